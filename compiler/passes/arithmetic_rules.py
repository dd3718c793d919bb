"""Rewrite rules of arithmetic and logic: neutral elements, signs, conversions, selections.

Unless a rule says otherwise it keeps every bit of every value, with two exceptions that hold throughout: a NaN stays a
NaN, but perhaps not the same one, and the sign of a zero that comes out of maximum or minimum is not specified.
"""

from __future__ import annotations

import math

import numpy as np

from gradloom.compiler.ir import Constant, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, Maximum, Minimum, Multiply, Power, Subtract
from gradloom.compiler.ops.comparison import LogicalAnd, LogicalNot, LogicalOr, Select
from gradloom.compiler.ops.elementwise import Convert, Exp, Log, Negative
from gradloom.compiler.ops.markers import Marker
from gradloom.compiler.ops.movement import BroadcastTo, Reshape
from gradloom.compiler.ops.reductions import Max, Sum
from gradloom.compiler.passes.fold import is_literal, literal
from gradloom.compiler.passes.rewrite import Draft, Rule, rule_on
from gradloom.compiler.types import BF16, BOOL, F32, F64, I32, I64, U8, DType


def spread(graph: Draft, operand: Value, result: Value) -> Value:
    """`operand`, repeated to the shape of `result` where its own is smaller."""
    return operand if operand.shape == result.shape else graph.apply(BroadcastTo(result.shape), operand)


def filled(graph: Draft, number: float, like: Value) -> Value:
    """A tensor of the type of `like` filled with `number`."""
    return spread(graph, graph.constant(number, like.dtype), like)


@rule_on(Add, Multiply, Maximum, Minimum)
def literal_last(graph: Draft, value: Value) -> Value | None:
    """c + x → x + c, likewise ·, max and min, for a literal c: the other rules look for it there. Exact."""
    x, y = value.inputs
    if isinstance(x.op, Constant) and not isinstance(y.op, Constant):
        return graph.apply(value.op, y, x)
    return None


@rule_on(Add)
def add_zero(graph: Draft, value: Value) -> Value | None:
    """x + 0 → x for integers, x + (−0) → x for floats. Exact: x + (+0) is left alone, since it makes +0 of −0."""
    x, y = value.inputs
    return spread(graph, x, value) if is_literal(y, -0.0 if value.dtype.is_float else 0) else None


@rule_on(Subtract)
def subtract_zero(graph: Draft, value: Value) -> Value | None:
    """x − 0 → x. Exact: of floats x − (+0) alone, since x − (−0) makes +0 of −0."""
    x, y = value.inputs
    return spread(graph, x, value) if is_literal(y, 0) else None


@rule_on(Add)
def add_negative(graph: Draft, value: Value) -> Value | None:
    """x + (−y) → x − y, (−x) + y → y − x. Exact: IEEE 754 defines subtraction so."""
    x, y = value.inputs
    if isinstance(y.op, Negative):
        return graph.apply(Subtract(), x, y.inputs[0])
    return graph.apply(Subtract(), y, x.inputs[0]) if isinstance(x.op, Negative) else None


@rule_on(Subtract)
def subtract_negative(graph: Draft, value: Value) -> Value | None:
    """x − (−y) → x + y. Exact."""
    x, y = value.inputs
    return graph.apply(Add(), x, y.inputs[0]) if isinstance(y.op, Negative) else None


@rule_on(Multiply, Divide)
def multiply_one(graph: Draft, value: Value) -> Value | None:
    """x · 1 → x, x / 1 → x. Exact."""
    x, y = value.inputs
    return spread(graph, x, value) if is_literal(y, 1) else None


@rule_on(Multiply)
def multiply_zero(graph: Draft, value: Value) -> Value | None:
    """x · 0 → 0 for integers. Exact; floats are left alone: Inf · 0 is NaN, and −1 · 0 is −0."""
    if not value.dtype.is_integer or not is_literal(value.inputs[1], 0):
        return None
    return filled(graph, 0, value)


@rule_on(Multiply, Divide)
def multiply_minus_one(graph: Draft, value: Value) -> Value | None:
    """x · (−1) → −x, x / (−1) → −x. Exact."""
    x, y = value.inputs
    if value.dtype.kind == "unsigned" or not is_literal(y, -1):
        return None
    return spread(graph, graph.apply(Negative(), x), value)


@rule_on(Multiply)
def multiply_literals(graph: Draft, value: Value) -> Value | None:
    """(x · c) · d → x · (c·d). Exact: for integers, which wrap, and for c and d powers of two with |c|, |d| ≥ 1.

    Other floats are left alone: the product would be rounded once instead of twice, and might not overflow in between.
    """
    inner, d = value.inputs
    if not isinstance(inner.op, Multiply) or graph.shared(inner):
        return None
    x, c = inner.inputs
    first, second = literal(c), literal(d)
    if first is None or second is None:
        return None
    if value.dtype.is_float and not (_scales_up(first) and _scales_up(second)):
        return None
    with np.errstate(over="ignore"):
        product = np.multiply(first, second, dtype=value.dtype.numpy)
    if not np.isfinite(product):
        return None
    return spread(graph, graph.apply(Multiply(), x, graph.constant(product)), value)


def _scales_up(factor: np.generic) -> bool:
    """Whether the factor is ±2ⁿ with n ≥ 0: multiplying by it rounds nothing."""
    mantissa, exponent = math.frexp(factor.item())
    return abs(mantissa) == 0.5 and exponent >= 1


@rule_on(Divide)
def divide_power_of_two(graph: Draft, value: Value) -> Value | None:
    """x / 2ⁿ → x · 2⁻ⁿ where 2⁻ⁿ is a normal number. Exact: both are the same number, rounded once."""
    x, y = value.inputs
    divisor = literal(y)
    if divisor is None or not np.isfinite(divisor) or divisor == 0:
        return None
    mantissa, exponent = math.frexp(divisor.item())
    inverse, limits = math.ldexp(mantissa * 2, 1 - exponent), np.finfo(value.dtype.numpy)
    if abs(mantissa) != 0.5 or not limits.tiny <= abs(inverse) <= limits.max:
        return None
    return spread(graph, graph.apply(Multiply(), x, graph.constant(inverse, value.dtype)), value)


@rule_on(Negative)
def negative_negative(graph: Draft, value: Value) -> Value | None:
    """−(−x) → x. Exact."""
    (x,) = value.inputs
    return x.inputs[0] if isinstance(x.op, Negative) else None


@rule_on(Negative)
def negative_product(graph: Draft, value: Value) -> Value | None:
    """−(x · c) → x · (−c), −(x / c) → x / (−c) for a literal c. Exact."""
    (inner,) = value.inputs
    if not isinstance(inner.op, Multiply | Divide) or not isinstance(inner.inputs[1].op, Constant):
        return None
    if graph.shared(inner):
        return None
    x, c = inner.inputs
    return graph.apply(inner.op, x, graph.apply(Negative(), c))


@rule_on(Multiply, Divide)
def product_of_negatives(graph: Draft, value: Value) -> Value | None:
    """(−x) · c → x · (−c) for a literal c, (−x) · (−y) → x · y; likewise for /. Exact."""
    x, y = value.inputs
    if not isinstance(x.op, Negative):
        return None
    if isinstance(y.op, Negative):
        return graph.apply(value.op, x.inputs[0], y.inputs[0])
    return graph.apply(value.op, x.inputs[0], graph.apply(Negative(), y)) if isinstance(y.op, Constant) else None


@rule_on(Power)
def power_literal(graph: Draft, value: Value) -> Value | None:
    """x⁰ → 1, x¹ → x, x² → x · x, x⁻¹ → 1 / x. The first two are exact, the others no less exact than a power.

    Holds for NaN (NaN⁰ is 1), ±Inf and −0 (whose inverse is −Inf).
    """
    x, y = value.inputs
    if is_literal(y, 0) or is_literal(y, -0.0):
        return filled(graph, 1, value)
    if is_literal(y, 1):
        return spread(graph, x, value)
    if is_literal(y, 2):
        return spread(graph, graph.apply(Multiply(), x, x), value)
    if is_literal(y, -1):
        return spread(graph, graph.apply(Divide(), graph.constant(1, x.dtype), x), value)
    return None


@rule_on(Maximum, Minimum, LogicalAnd, LogicalOr)
def idempotent(graph: Draft, value: Value) -> Value | None:
    """max(x, x) → x, likewise min, and, or. Exact."""
    x, y = value.inputs
    return x if x is y else None


@rule_on(Log)
def log_of_softmax(graph: Draft, value: Value) -> Value | None:
    """log(eˣ / Σeˣ) → x − log(Σeˣ) where x = z − max(z): a logarithm of probabilities that does not underflow.

    Not exact, but closer to the true value: where eˣ rounds to 0, finite instead of −Inf. NaN and ±Inf stay so: with
    the maximum subtracted, the sum is at least 1 and never overflows.
    """
    (quotient,) = value.inputs
    if not isinstance(quotient.op, Divide) or not isinstance(quotient.inputs[0].op, Exp):
        return None
    powers, total = quotient.inputs
    summed = total
    while isinstance(summed.op, Reshape | BroadcastTo):
        summed = summed.inputs[0]
    if not isinstance(summed.op, Sum) or summed.inputs[0] is not powers:
        return None
    if not _is_below_zero(powers.inputs[0], summed.op.axes):
        return None
    return graph.apply(Subtract(), powers.inputs[0], graph.apply(Log(), total))


def _is_below_zero(value: Value, axes: tuple[int, ...]) -> bool:
    """Whether the value is z − max(z), the maximum taken along `axes`."""
    if not isinstance(value.op, Subtract):
        return False
    z, shift = value.inputs
    while isinstance(shift.op, Reshape | BroadcastTo | Marker):
        shift = shift.inputs[0]
    return isinstance(shift.op, Max) and shift.op.axes == axes and shift.inputs[0] is z


LOSSLESS: dict[DType, tuple[DType, ...]] = {
    BOOL: (BOOL, U8, I32, I64, BF16, F32, F64),
    U8: (U8, I32, I64, BF16, F32, F64),
    I32: (I32, I64, F64),
    I64: (I64,),
    BF16: (BF16, F32, F64),
    F32: (F32, F64),
    F64: (F64,),
}
"""For each dtype those that hold every one of its values."""


@rule_on(Convert)
def convert_to_same(graph: Draft, value: Value) -> Value | None:
    """convert(x, dtype of x) → x. Exact."""
    (x,) = value.inputs
    return x if x.dtype == value.dtype else None


@rule_on(Convert)
def convert_convert(graph: Draft, value: Value) -> Value | None:
    """convert(convert(x, b), c) → convert(x, c) where b holds every value of x. Exact.

    Left alone for integers that pass through floats into a dtype too small for them: floats saturate, integers wrap.
    """
    (inner,) = value.inputs
    if not isinstance(inner.op, Convert):
        return None
    (x,) = inner.inputs
    saturates = x.dtype.is_integer and inner.dtype.is_float and value.dtype.is_integer
    if inner.dtype not in LOSSLESS[x.dtype] or (saturates and value.dtype not in LOSSLESS[x.dtype]):
        return None
    return graph.apply(Convert(value.dtype), x)


@rule_on(Select)
def select_known(graph: Draft, value: Value) -> Value | None:
    """select(true, x, y) → x, select(false, x, y) → y. Exact."""
    condition, x, y = value.inputs
    known = literal(condition)
    return None if known is None else spread(graph, x if known else y, value)


@rule_on(Select)
def select_same(graph: Draft, value: Value) -> Value | None:
    """select(c, x, x) → x. Exact."""
    _, x, y = value.inputs
    return spread(graph, x, value) if x is y else None


@rule_on(Select)
def select_not(graph: Draft, value: Value) -> Value | None:
    """select(not c, x, y) → select(c, y, x). Exact."""
    condition, x, y = value.inputs
    return graph.apply(Select(), condition.inputs[0], y, x) if isinstance(condition.op, LogicalNot) else None


@rule_on(LogicalNot)
def not_not(graph: Draft, value: Value) -> Value | None:
    """not not c → c. Exact."""
    (inner,) = value.inputs
    return inner.inputs[0] if isinstance(inner.op, LogicalNot) else None


@rule_on(LogicalAnd, LogicalOr)
def logic_literal(graph: Draft, value: Value) -> Value | None:
    """c and true → c, c or false → c, c and false → false, c or true → true. Exact."""
    for condition, other in (value.inputs, value.inputs[::-1]):
        known = literal(other)
        if known is not None:
            neutral = bool(known) == isinstance(value.op, LogicalAnd)
            return spread(graph, condition, value) if neutral else filled(graph, bool(known), value)
    return None


RULES: tuple[Rule, ...] = (
    literal_last,
    add_zero,
    subtract_zero,
    add_negative,
    subtract_negative,
    multiply_one,
    multiply_zero,
    multiply_minus_one,
    multiply_literals,
    divide_power_of_two,
    negative_negative,
    negative_product,
    product_of_negatives,
    power_literal,
    idempotent,
    log_of_softmax,
    convert_to_same,
    convert_convert,
    select_known,
    select_same,
    select_not,
    not_not,
    logic_literal,
)
