"""Elementwise ops of two numbers: the four operations, division with remainder, power, extrema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.ir import Value
from gradloom.compiler.loops import math
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.ops.base import nearest
from gradloom.compiler.ops.comparison import Equal, Greater, Less, LogicalAnd, Select, between
from gradloom.compiler.ops.elementwise import Absolute, Floating, Log, Numeric


@dataclass(frozen=True)
class Add(Numeric):
    """x + y; integers wrap: `%5: f32[32,128] = add %3 %4`."""

    name: ClassVar[str] = "add"
    arity: ClassVar[int | None] = 2

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.add(*operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.add(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent, cotangent)


@dataclass(frozen=True)
class Subtract(Numeric):
    """x − y; integers wrap: `%5: f32[32,128] = subtract %3 %4`."""

    name: ClassVar[str] = "subtract"
    arity: ClassVar[int | None] = 2

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.sub(*operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.subtract(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent, -cotangent)


@dataclass(frozen=True)
class Multiply(Numeric):
    """x · y; integers wrap: `%5: f32[32,128] = multiply %3 %4`."""

    name: ClassVar[str] = "multiply"
    arity: ClassVar[int | None] = 2

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.mul(*operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.multiply(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        x, y = node.inputs
        return (cotangent * y, cotangent * x)


@dataclass(frozen=True)
class Divide(Floating):
    """x / y for floats: `%5: f32[32,128] = divide %3 %4`."""

    name: ClassVar[str] = "divide"
    arity: ClassVar[int | None] = 2
    cost: ClassVar[int] = 4

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.div(*operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.divide(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        _, y = node.inputs
        by_x = cotangent / y
        return (by_x, -(by_x * node))

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(operands[1]))


@dataclass(frozen=True)
class FloorDivide(Numeric):
    """⌊x / y⌋: `%5: i32[8] = floor_divide %3 %4`.

    For integers the quotient toward −inf, 0 where y is 0; for floats the quotient rounded as by divide, then floored.
    """

    name: ClassVar[str] = "floor_divide"
    arity: ClassVar[int | None] = 2
    cost: ClassVar[int] = 4

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        x, y = operands
        if x.dtype.is_float:
            return b.unary("floor", b.div(x, y))
        if x.dtype.kind == "unsigned":
            return b.div(x, y)
        quotient = _quotient(b, x, y)
        rest = b.sub(x, b.mul(quotient, y))
        opposite = b.compare("lt", b.binary("xor", rest, y), 0)
        inexact = b.binary("and", b.compare("ne", rest, 0), b.compare("ne", y, 0))
        return b.select(b.binary("and", inexact, opposite), b.sub(quotient, 1), quotient)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, y = operands
        with np.errstate(all="ignore"):
            if x.dtype.kind == "f":
                return np.asarray(np.floor(np.divide(x, y)))
            return np.asarray(np.floor_divide(x, y))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None, None)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return _to_whole_quotient(*operands)

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.zeros(np.broadcast_shapes(*(tangent.shape for tangent in tangents)))


@dataclass(frozen=True)
class Remainder(Numeric):
    """x − ⌊x / y⌋·y, with the sign of y: `%5: i32[8] = remainder %3 %4`.

    For integers 0 where y is 0. For floats as written: NaN where y is 0 or infinite, and rounded like its terms.
    """

    name: ClassVar[str] = "remainder"
    arity: ClassVar[int | None] = 2
    cost: ClassVar[int] = 6

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        x, y = operands
        if x.dtype.is_float:
            return b.sub(x, b.mul(b.unary("floor", b.div(x, y)), y))
        if x.dtype.kind == "unsigned":
            return b.binary("rem", x, y)
        rest = b.sub(x, b.mul(_quotient(b, x, y), y))
        opposite = b.compare("lt", b.binary("xor", rest, y), 0)
        moved = b.select(b.binary("and", b.compare("ne", rest, 0), opposite), b.add(rest, y), rest)
        return b.select(b.compare("eq", y, 0), 0, moved)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, y = operands
        with np.errstate(all="ignore"):
            if x.dtype.kind == "f":
                return np.asarray(x - np.floor(x / y) * y)
            return np.asarray(np.remainder(x, y))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        x, y = node.inputs
        return (cotangent, -(cotangent * node.graph.apply(FloorDivide(), x, y)))

    def kink_distance(self, *operands: np.ndarray) -> float:
        return _to_whole_quotient(*operands)

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        x, y = operands
        along: np.ndarray = tangents[0] - np.floor(x / y) * tangents[1]
        return along


def _to_whole_quotient(x: np.ndarray, y: np.ndarray) -> float:
    """How far two floats may move before their quotient is an integer, or has a pole."""
    with np.errstate(all="ignore"):
        quotient = x / y
        # Moving each by d moves the quotient by no more than d·(1 + |quotient|) / (|y| − d).
        return nearest(np.abs(quotient - np.rint(quotient)) * np.abs(y) / (2 + np.abs(quotient)))


def _quotient(b: Builder, x: Expr, y: Expr) -> Expr:
    """x / y toward zero, 0 where y is 0, wrapped where the smallest integer is divided by −1 (which hardware traps)."""
    by_minus_one = b.compare("eq", y, -1)
    return b.select(by_minus_one, b.unary("neg", x), b.div(x, b.select(by_minus_one, 1, y)))


@dataclass(frozen=True)
class Power(Floating):
    """xʸ for floats, as C's pow: `%5: f32[8] = power %3 %4`.

    The derivative by y is 0 where x is 0, and NaN where x is negative.
    """

    name: ClassVar[str] = "power"
    arity: ClassVar[int | None] = 2
    cost: ClassVar[int] = 40

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.power(b, *operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.power(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        graph, (x, y) = node.graph, node.inputs
        one = graph.constant(1, x.dtype)
        zero = graph.constant(0, x.dtype)
        # x⁰ has the derivative 0, also at x = 0, where 0·x⁻¹ is NaN. Elsewhere y is differentiated in turn, at 0 too.
        smallest = graph.constant(np.finfo(x.dtype.numpy).tiny, x.dtype)
        inverse_overflows = graph.apply(Less(), graph.apply(Absolute(), x), smallest)
        constant = graph.apply(LogicalAnd(), graph.apply(Equal(), y, zero), inverse_overflows)
        exponent = graph.apply(Select(), constant, one, y - 1)
        base = graph.apply(Select(), graph.apply(Equal(), x, zero), one, x)
        return (cotangent * (y * x**exponent), cotangent * (node * graph.apply(Log(), base)))

    def kink_distance(self, *operands: np.ndarray) -> float:
        x, y = np.broadcast_arrays(*operands)
        return nearest(np.abs(x)[(y < 0) | (y != np.rint(y))])


@dataclass(frozen=True)
class Maximum(Numeric):
    """The larger one, NaN if either is: `%5: f32[32,128] = maximum %3 %4`.

    The derivative asks whether the *result* exceeds y, so that ReLU's gradient needs only its result; at a tie, and
    for NaN, the cotangent goes to y.
    """

    name: ClassVar[str] = "maximum"
    arity: ClassVar[int | None] = 2

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.binary("max", *operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.maximum(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return _chosen(node.graph.apply(Greater(), node, node.inputs[1]), cotangent)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return between(*operands)

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.where(np.greater(*operands), *tangents)


@dataclass(frozen=True)
class Minimum(Numeric):
    """The smaller one, NaN if either is: `%5: f32[32,128] = minimum %3 %4`.

    As with maximum, the cotangent goes to x where the result is less than y, else to y.
    """

    name: ClassVar[str] = "minimum"
    arity: ClassVar[int | None] = 2

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.binary("min", *operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.minimum(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return _chosen(node.graph.apply(Less(), node, node.inputs[1]), cotangent)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return between(*operands)

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.where(np.less(*operands), *tangents)


def _chosen(first: Value, cotangent: Value) -> Sequence[Value]:
    """The cotangent, for the first operand where `first` holds and for the second elsewhere."""
    graph, zero = first.graph, first.graph.constant(0, cotangent.dtype)
    return graph.apply(Select(), first, cotangent, zero), graph.apply(Select(), first, zero, cotangent)
