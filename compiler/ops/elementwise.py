"""Elementwise ops of one operand: rounding, exponentials, roots, activations, conversion."""

from __future__ import annotations

import math as scalar_math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops import math
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.ops.base import Elementwise, broadcast_shapes, for_arithmetic, nearest
from gradloom.compiler.types import BF16, BOOL, F32, DType, TensorType


class Numeric(Elementwise):
    """An elementwise op of numbers: it refuses bools."""

    def result_dtype(self, dtype: DType) -> DType:
        if dtype == BOOL:
            raise DTypeError(f"Expected numbers. Received: {dtype}")
        return dtype


class Floating(Elementwise):
    """An elementwise op of floats."""

    def result_dtype(self, dtype: DType) -> DType:
        if not dtype.is_float:
            raise DTypeError(f"Expected floats. Received: {dtype}")
        return dtype


class PiecewiseConstant(Floating):
    """A rounding: its derivative is zero wherever it has one, and taken as zero where it jumps."""

    offset: ClassVar[float] = 0.0
    """Where it jumps: so far from each integer."""

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None,)

    def kink_distance(self, *operands: np.ndarray) -> float:
        from_jump = operands[0] - self.offset
        return nearest(np.abs(from_jump - np.rint(from_jump)))

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.zeros_like(tangents[0])


@dataclass(frozen=True)
class Negative(Numeric):
    """−x, with the sign of zero: `%3: f32[8] = negative %2`."""

    name: ClassVar[str] = "negative"

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("neg", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.negative(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (-cotangent,)


@dataclass(frozen=True)
class Absolute(Numeric):
    """|x|: `%3: f32[8] = absolute %2`. The derivative at 0 is 0."""

    name: ClassVar[str] = "absolute"

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return operands[0] if operands[0].dtype.kind == "unsigned" else b.unary("abs", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.absolute(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent * node.graph.apply(Sign(), node.inputs[0]),)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(operands[0]))

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.asarray(np.sign(operands[0]) * tangents[0])


@dataclass(frozen=True)
class Sign(Numeric):
    """−1, 0 or 1, NaN for NaN: `%3: f32[8] = sign %2`."""

    name: ClassVar[str] = "sign"
    cost: ClassVar[int] = 4

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        (x,) = operands
        negative = b.select(b.compare("lt", x, 0), -1, x) if x.dtype.kind != "unsigned" else x
        return b.select(b.compare("gt", x, 0), 1, negative)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sign(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None,)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(operands[0]))

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return np.zeros_like(tangents[0])


@dataclass(frozen=True)
class Floor(PiecewiseConstant):
    """The next integer toward −inf: `%3: f32[8] = floor %2`."""

    name: ClassVar[str] = "floor"

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("floor", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.floor(operands[0]))


@dataclass(frozen=True)
class Ceil(PiecewiseConstant):
    """The next integer toward +inf: `%3: f32[8] = ceil %2`."""

    name: ClassVar[str] = "ceil"

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("ceil", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.ceil(operands[0]))


@dataclass(frozen=True)
class Round(PiecewiseConstant):
    """The nearest integer, ties to even: `%3: f32[8] = round %2`."""

    name: ClassVar[str] = "round"
    offset: ClassVar[float] = 0.5

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("round", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.rint(operands[0]))


@dataclass(frozen=True)
class Exp(Floating):
    """eˣ: `%3: f32[8] = exp %2`."""

    name: ClassVar[str] = "exp"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.exp(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.exp(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent * node,)


@dataclass(frozen=True)
class Expm1(Floating):
    """eˣ − 1, exact near 0: `%3: f32[8] = expm1 %2`."""

    name: ClassVar[str] = "expm1"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.expm1(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.expm1(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        # Not `result + 1`, which has lost all digits where eˣ is small.
        return (cotangent * node.graph.apply(Exp(), node.inputs[0]),)


@dataclass(frozen=True)
class Log(Floating):
    """The natural logarithm: −inf at 0, NaN below: `%3: f32[8] = log %2`."""

    name: ClassVar[str] = "log"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.log(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.log(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent / node.inputs[0],)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(operands[0]))


@dataclass(frozen=True)
class Log1p(Floating):
    """log(1 + x), exact near 0: `%3: f32[8] = log1p %2`."""

    name: ClassVar[str] = "log1p"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.log1p(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.log1p(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent / (1.0 + node.inputs[0]),)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(1 + operands[0]))


@dataclass(frozen=True)
class Sqrt(Floating):
    """The square root: NaN below 0, −0 at −0: `%3: f32[8] = sqrt %2`."""

    name: ClassVar[str] = "sqrt"
    cost: ClassVar[int] = 4

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("sqrt", operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (0.5 * cotangent / node,)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return nearest(np.abs(operands[0]))


@dataclass(frozen=True)
class Tanh(Floating):
    """The hyperbolic tangent: `%3: f32[8] = tanh %2`."""

    name: ClassVar[str] = "tanh"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.tanh(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.tanh(operands[0]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent * (1.0 - node * node),)


@dataclass(frozen=True)
class Sigmoid(Floating):
    """1 / (1 + e⁻ˣ), without overflow: `%3: f32[8] = sigmoid %2`."""

    name: ClassVar[str] = "sigmoid"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.sigmoid(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        with np.errstate(all="ignore"):
            small = np.exp(-np.abs(x))
            return np.asarray(np.where(x >= 0, 1 / (1 + small), small / (1 + small)), x.dtype)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent * (node * (1.0 - node)),)


@dataclass(frozen=True)
class Erf(Floating):
    """The error function: `%3: f32[8] = erf %2`."""

    name: ClassVar[str] = "erf"
    cost: ClassVar[int] = 20

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return math.erf(b, operands[0])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        flat = [scalar_math.erf(value) for value in x.ravel().tolist()]
        return np.array(flat, x.dtype).reshape(x.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        (x,) = node.inputs
        return (cotangent * (2.0 / scalar_math.sqrt(scalar_math.pi) * node.graph.apply(Exp(), -(x * x))),)


@dataclass(frozen=True)
class Convert(Elementwise):
    """To another dtype: `%3: f32[8] = convert %2 {dtype=f32}`.

    Floats become integers by truncation, saturated, NaN as 0; integers wrap; anything but 0 is true. From and to bf16
    goes the way over f32, to bf16 rounded to nearest, ties to even; of a NaN only the sign is left.
    """

    name: ClassVar[str] = "convert"
    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        return TensorType(self.dtype, broadcast_shapes(operands[0].shape))

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.convert(operands[0], self.dtype)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = for_arithmetic(*operands)
        if self.dtype == BF16:
            with np.errstate(over="ignore", invalid="ignore"):
                return x.astype(np.float32).astype(self.dtype.numpy)
        if not (x.dtype.kind == "f" and self.dtype.is_integer):
            with np.errstate(over="ignore"):
                return x.astype(self.dtype.numpy)
        limits = np.iinfo(self.dtype.numpy)
        # Bounds are compared as floats: the largest i64 rounds up to 2^63, which no i64 holds.
        with np.errstate(invalid="ignore"):
            inside = (x > float(limits.min) - 1) & (x < float(limits.max) + (limits.max < 2**53))
            whole = np.where(inside, np.trunc(x), 0).astype(self.dtype.numpy)
            saturated = np.where(x > 0, limits.max, limits.min).astype(self.dtype.numpy)
        return np.asarray(np.where(inside | np.isnan(x), whole, saturated), self.dtype.numpy)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        (x,) = node.inputs
        if not (x.dtype.is_float and self.dtype.is_float):
            return (None,)
        # Cotangents of bf16 are f32.
        dtype = x.dtype.arithmetic
        return (cotangent if cotangent.dtype == dtype else node.graph.apply(Convert(dtype), cotangent),)

    def kink_distance(self, *operands: np.ndarray) -> float:
        (x,) = for_arithmetic(*operands)
        if x.dtype.kind != "f" or self.dtype.is_float:
            return super().kink_distance(*operands)
        # Truncation jumps at each integer but 0, the test for zero just there.
        return nearest(np.abs(x) if self.dtype == BOOL else np.abs(x - np.where(np.abs(x) < 1, np.sign(x), np.rint(x))))


def stored_as(dtype: DType, value: Value) -> Value:
    """The value in the dtype in which a contraction's operands are stored: rounded, if that is bf16."""
    return value if value.dtype == dtype else value.graph.apply(Convert(dtype), value)


def before_rounding(value: Value) -> Value:
    """A value to compute with: for one of bf16 that which was rounded to it, or else the same in f32."""
    if value.dtype != BF16:
        return value
    if isinstance(value.op, Convert) and value.inputs[0].dtype == F32:
        return value.inputs[0]
    return value.graph.apply(Convert(F32), value)
