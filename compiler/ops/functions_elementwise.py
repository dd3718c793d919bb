"""Functions of `keras.ops` that work element by element: arithmetic, comparison, logic, math, conversion."""

from __future__ import annotations

import math

import numpy as np

from gradloom.compiler.errors import DTypeError
from gradloom.compiler.ir import Op, Value
from gradloom.compiler.ops.arithmetic import (
    Add,
    Divide,
    FloorDivide,
    Maximum,
    Minimum,
    Multiply,
    Power,
    Remainder,
    Subtract,
)
from gradloom.compiler.ops.comparison import (
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalNot,
    LogicalOr,
    LogicalXor,
    NotEqual,
    Select,
)
from gradloom.compiler.ops.elementwise import (
    Absolute,
    Ceil,
    Erf,
    Exp,
    Expm1,
    Floor,
    Log,
    Log1p,
    Negative,
    Round,
    Sigmoid,
    Sign,
    Sqrt,
    Tanh,
)
from gradloom.compiler.ops.operands import (
    TensorLike,
    as_value,
    bools,
    broadcast,
    convert,
    floats,
    graph_of,
    numbers,
    promoted,
)
from gradloom.compiler.types import BOOL, DType, as_dtype


def _apply(op: Op, *operands: Value) -> Value:
    return operands[0].graph.apply(op, *operands)


# Arithmetic.


def add(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 + x2; of bools whether either holds."""
    x, y = promoted(x1, x2, function="add")
    return _apply(LogicalOr() if x.dtype == BOOL else Add(), x, y)


def subtract(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 − x2."""
    return _apply(Subtract(), *numbers(x1, x2, function="subtract"))


def multiply(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 · x2; of bools whether both hold."""
    x, y = promoted(x1, x2, function="multiply")
    return _apply(LogicalAnd() if x.dtype == BOOL else Multiply(), x, y)


def divide(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 / x2 in floats: integers are converted to float32."""
    return _apply(Divide(), *floats(x1, x2, function="divide"))


def true_divide(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 / x2 in floats: another name of `divide`."""
    return divide(x1, x2)


def floor_divide(x1: TensorLike, x2: TensorLike) -> Value:
    """⌊x1 / x2⌋; for integers 0 where x2 is 0."""
    return _apply(FloorDivide(), *numbers(x1, x2, function="floor_divide"))


def mod(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 − ⌊x1 / x2⌋·x2, with the sign of x2; for integers 0 where x2 is 0."""
    return _apply(Remainder(), *numbers(x1, x2, function="mod"))


def power(x1: TensorLike, x2: TensorLike) -> Value:
    """x1 to the power of x2.

    A Python integer as x2 (or a float that is one, up to 64 in magnitude) becomes multiplications. Integers can only
    be raised to a non-negative one; else raises `DTypeError`.
    """
    if isinstance(x2, int | float) and not isinstance(x2, bool) and -64 <= x2 <= 64 and x2 == int(x2):
        (x,) = numbers(x1, function="power")
        if x.dtype.is_float or (x2 >= 0 and isinstance(x2, int)):
            raised = _integer_power(x, int(math.fabs(x2)))
            return raised if x2 >= 0 else divide(1, raised)
    x, y = promoted(x1, x2, function="power")
    if not x.dtype.is_float:
        raise DTypeError(
            f"power: expected floats, or a Python integer from 0 to 64 as the exponent of integers. "
            f"Received: {x.type} and {x2!r}"
        )
    return _apply(Power(), x, y)


def _integer_power(x: Value, exponent: int) -> Value:
    """x·x·…·x by repeated squaring."""
    if exponent == 0:
        return broadcast(x.graph.constant(1, x.dtype), x.shape)
    result: Value | None = None
    while exponent:
        if exponent & 1:
            result = x if result is None else result * x
        exponent >>= 1
        x = x * x if exponent else x
    assert result is not None
    return result


def negative(x: TensorLike) -> Value:
    """−x."""
    return _apply(Negative(), *numbers(x, function="negative"))


def absolute(x: TensorLike) -> Value:
    """|x|."""
    (value,) = promoted(x, function="absolute")
    return value if value.dtype == BOOL else _apply(Absolute(), value)


def abs(x: TensorLike) -> Value:
    """|x|: another name of `absolute`."""
    return absolute(x)


def sign(x: TensorLike) -> Value:
    """−1, 0 or 1."""
    return _apply(Sign(), *numbers(x, function="sign"))


def square(x: TensorLike) -> Value:
    """x²."""
    (value,) = numbers(x, function="square")
    return value * value


def reciprocal(x: TensorLike) -> Value:
    """1 / x."""
    return divide(1, as_value(x, function="reciprocal"))


def maximum(x1: TensorLike, x2: TensorLike) -> Value:
    """The larger one of x1 and x2, NaN if either is."""
    x, y = promoted(x1, x2, function="maximum")
    return _apply(LogicalOr() if x.dtype == BOOL else Maximum(), x, y)


def minimum(x1: TensorLike, x2: TensorLike) -> Value:
    """The smaller one of x1 and x2, NaN if either is."""
    x, y = promoted(x1, x2, function="minimum")
    return _apply(LogicalAnd() if x.dtype == BOOL else Minimum(), x, y)


def clip(x: TensorLike, x_min: TensorLike, x_max: TensorLike) -> Value:
    """x moved into [x_min, x_max]; NaN stays."""
    return minimum(maximum(x, x_min), x_max)


# Rounding: integers stay as they are.


def _rounded(op: Op, x: TensorLike, function: str) -> Value:
    (value,) = promoted(x, function=function)
    return _apply(op, value) if value.dtype.is_float else value


def floor(x: TensorLike) -> Value:
    """The next integer toward −inf, in x's dtype."""
    return _rounded(Floor(), x, "floor")


def ceil(x: TensorLike) -> Value:
    """The next integer toward +inf, in x's dtype."""
    return _rounded(Ceil(), x, "ceil")


def round(x: TensorLike, decimals: int = 0) -> Value:
    """The nearest multiple of 10^−decimals, ties to even, in x's dtype."""
    if decimals == 0:
        return _rounded(Round(), x, "round")
    value = as_value(x, function="round")
    if not value.dtype.is_float:
        raise DTypeError(f"round: expected floats to round to decimals={decimals}. Received: {value.type}")
    scale = 10.0 ** math.fabs(decimals)
    if decimals > 0:
        return divide(_apply(Round(), multiply(value, scale)), scale)
    return multiply(_apply(Round(), divide(value, scale)), scale)


# Math: integers are converted to float32.


def exp(x: TensorLike) -> Value:
    """eˣ."""
    return _apply(Exp(), *floats(x, function="exp"))


def expm1(x: TensorLike) -> Value:
    """eˣ − 1, exact near 0."""
    return _apply(Expm1(), *floats(x, function="expm1"))


def log(x: TensorLike) -> Value:
    """The natural logarithm."""
    return _apply(Log(), *floats(x, function="log"))


def log1p(x: TensorLike) -> Value:
    """log(1 + x), exact near 0."""
    return _apply(Log1p(), *floats(x, function="log1p"))


def log2(x: TensorLike) -> Value:
    """The logarithm to base 2."""
    return log(x) * (1 / math.log(2))


def log10(x: TensorLike) -> Value:
    """The logarithm to base 10."""
    return log(x) * (1 / math.log(10))


def logaddexp(x1: TensorLike, x2: TensorLike) -> Value:
    """log(e^x1 + e^x2) without overflow."""
    x, y = floats(x1, x2, function="logaddexp")
    # The difference of equal infinities is NaN: there the sum is the infinity itself.
    same = logical_and(equal(x, y), isinf(x))
    difference = where(same, 0.0, x - y)
    return where(same, x, y + _log1p_exp(difference))


def _log1p_exp(x: Value) -> Value:
    """log(1 + eˣ) without overflow: max(x, 0) + log(1 + e^−|x|).

    Written with selections rather than with |x|, since the derivative must be 1/2 at 0.
    """
    positive = greater(x, 0)
    return where(positive, x, 0.0) + log1p(exp(where(positive, -x, x)))


def sqrt(x: TensorLike) -> Value:
    """The square root."""
    return _apply(Sqrt(), *floats(x, function="sqrt"))


def rsqrt(x: TensorLike) -> Value:
    """1 / √x."""
    return divide(1, sqrt(x))


def tanh(x: TensorLike) -> Value:
    """The hyperbolic tangent."""
    return _apply(Tanh(), *floats(x, function="tanh"))


def sigmoid(x: TensorLike) -> Value:
    """1 / (1 + e⁻ˣ)."""
    return _apply(Sigmoid(), *floats(x, function="sigmoid"))


def erf(x: TensorLike) -> Value:
    """The error function."""
    return _apply(Erf(), *floats(x, function="erf"))


# Comparison and logic.


def equal(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 = x2; false for NaN."""
    return _apply(Equal(), *promoted(x1, x2, function="equal"))


def not_equal(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 ≠ x2; true for NaN."""
    return _apply(NotEqual(), *promoted(x1, x2, function="not_equal"))


def less(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 < x2."""
    return _apply(Less(), *promoted(x1, x2, function="less"))


def less_equal(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 ≤ x2."""
    return _apply(LessEqual(), *promoted(x1, x2, function="less_equal"))


def greater(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 > x2."""
    return _apply(Greater(), *promoted(x1, x2, function="greater"))


def greater_equal(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether x1 ≥ x2."""
    return _apply(GreaterEqual(), *promoted(x1, x2, function="greater_equal"))


def logical_and(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether both differ from 0."""
    return _apply(LogicalAnd(), *bools(x1, x2, function="logical_and"))


def logical_or(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether either differs from 0."""
    return _apply(LogicalOr(), *bools(x1, x2, function="logical_or"))


def logical_xor(x1: TensorLike, x2: TensorLike) -> Value:
    """Whether exactly one differs from 0."""
    return _apply(LogicalXor(), *bools(x1, x2, function="logical_xor"))


def logical_not(x: TensorLike) -> Value:
    """Whether x is 0."""
    return _apply(LogicalNot(), *bools(x, function="logical_not"))


def where(condition: TensorLike, x1: TensorLike, x2: TensorLike) -> Value:
    """x1 where the condition differs from 0, else x2.

    What is not selected gets the cotangent 0. An infinite derivative before it makes NaN of that: select the operand
    of such a function too, as in `where(x > 0, log(where(x > 0, x, 1)), 0)`.
    """
    graph = graph_of(condition, x1, x2, function="where")
    test = convert(as_value(condition, function="where", graph=graph), BOOL)
    x, y = promoted(x1, x2, function="where", graph=graph)
    return _apply(Select(), test, x, y)


def isnan(x: TensorLike) -> Value:
    """Whether x is NaN."""
    (value,) = promoted(x, function="isnan")
    return _apply(NotEqual(), value, value)


def isinf(x: TensorLike) -> Value:
    """Whether x is +inf or −inf."""
    value = as_value(x, function="isinf")
    if not value.dtype.is_float:
        return broadcast(value.graph.constant(False), value.shape)
    return equal(absolute(value), float("inf"))


def isfinite(x: TensorLike) -> Value:
    """Whether x is neither infinite nor NaN."""
    value = as_value(x, function="isfinite")
    if not value.dtype.is_float:
        return broadcast(value.graph.constant(True), value.shape)
    return less(absolute(value), float("inf"))


def cast(x: TensorLike, dtype: DType | str | type | np.dtype) -> Value:
    """x in another dtype: floats are truncated to integers and saturated there, NaN becomes 0."""
    return convert(as_value(x, function="cast"), as_dtype(dtype))
