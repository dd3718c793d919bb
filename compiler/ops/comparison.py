"""Elementwise ops of conditions: comparisons, logic, and selection by a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.ops.base import Elementwise, broadcast_shapes, nearest, refuse_bf16
from gradloom.compiler.types import BOOL, DType, TensorType


def between(x: np.ndarray, y: np.ndarray) -> float:
    """How far elements may move before two of them meet; equal infinities are no nearer than others."""
    with np.errstate(invalid="ignore"):
        return nearest(np.abs(x - y) / 2)


class Comparison(Elementwise):
    """A comparison of two operands of one dtype; subclasses name its opcode and NumPy's function."""

    arity: ClassVar[int | None] = 2
    opcode: ClassVar[str]
    function: ClassVar[np.ufunc]

    def result_dtype(self, dtype: DType) -> DType:
        return BOOL

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.compare(self.opcode, *operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.function(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None, None)

    def kink_distance(self, *operands: np.ndarray) -> float:
        x, y = operands
        # What is compared with itself (to find NaNs) never changes sides.
        return super().kink_distance(x, y) if x is y or x.dtype.kind != "f" else between(x, y)


@dataclass(frozen=True)
class Equal(Comparison):
    """x = y, false for NaN: `%5: bool[8] = equal %3 %4`."""

    name: ClassVar[str] = "equal"
    opcode: ClassVar[str] = "eq"
    function: ClassVar[np.ufunc] = np.equal


@dataclass(frozen=True)
class NotEqual(Comparison):
    """x ≠ y, true for NaN: `%5: bool[8] = not_equal %3 %4`."""

    name: ClassVar[str] = "not_equal"
    opcode: ClassVar[str] = "ne"
    function: ClassVar[np.ufunc] = np.not_equal


@dataclass(frozen=True)
class Less(Comparison):
    """x < y, false for NaN: `%5: bool[8] = less %3 %4`."""

    name: ClassVar[str] = "less"
    opcode: ClassVar[str] = "lt"
    function: ClassVar[np.ufunc] = np.less


@dataclass(frozen=True)
class LessEqual(Comparison):
    """x ≤ y, false for NaN: `%5: bool[8] = less_equal %3 %4`."""

    name: ClassVar[str] = "less_equal"
    opcode: ClassVar[str] = "le"
    function: ClassVar[np.ufunc] = np.less_equal


@dataclass(frozen=True)
class Greater(Comparison):
    """x > y, false for NaN: `%5: bool[8] = greater %3 %4`."""

    name: ClassVar[str] = "greater"
    opcode: ClassVar[str] = "gt"
    function: ClassVar[np.ufunc] = np.greater


@dataclass(frozen=True)
class GreaterEqual(Comparison):
    """x ≥ y, false for NaN: `%5: bool[8] = greater_equal %3 %4`."""

    name: ClassVar[str] = "greater_equal"
    opcode: ClassVar[str] = "ge"
    function: ClassVar[np.ufunc] = np.greater_equal


class Logic(Elementwise):
    """An op of bools; subclasses name its opcode and NumPy's function."""

    arity: ClassVar[int | None] = 2
    opcode: ClassVar[str]
    function: ClassVar[np.ufunc]

    def result_dtype(self, dtype: DType) -> DType:
        if dtype != BOOL:
            raise DTypeError(f"Expected bools. Received: {dtype}")
        return BOOL

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.binary(self.opcode, *operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None,) * len(node.inputs)


@dataclass(frozen=True)
class LogicalAnd(Logic):
    """Both: `%5: bool[8] = logical_and %3 %4`."""

    name: ClassVar[str] = "logical_and"
    opcode: ClassVar[str] = "and"
    function: ClassVar[np.ufunc] = np.logical_and


@dataclass(frozen=True)
class LogicalOr(Logic):
    """Either or both: `%5: bool[8] = logical_or %3 %4`."""

    name: ClassVar[str] = "logical_or"
    opcode: ClassVar[str] = "or"
    function: ClassVar[np.ufunc] = np.logical_or


@dataclass(frozen=True)
class LogicalXor(Logic):
    """One of the two: `%5: bool[8] = logical_xor %3 %4`."""

    name: ClassVar[str] = "logical_xor"
    opcode: ClassVar[str] = "xor"
    function: ClassVar[np.ufunc] = np.logical_xor


@dataclass(frozen=True)
class LogicalNot(Logic):
    """The opposite: `%5: bool[8] = logical_not %4`."""

    name: ClassVar[str] = "logical_not"
    arity: ClassVar[int | None] = 1
    opcode: ClassVar[str] = "not"
    function: ClassVar[np.ufunc] = np.logical_not

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.unary("not", operands[0])


@dataclass(frozen=True)
class Select(Elementwise):
    """x where the condition holds, else y: `%6: f32[8] = select %3 %4 %5`.

    What is not selected does not count: a NaN there does not reach the result, and gets the cotangent 0 (which an op
    before it with an infinite derivative still turns into NaN).
    """

    name: ClassVar[str] = "select"
    arity: ClassVar[int | None] = 3

    def infer(self, *operands: TensorType) -> TensorType:
        condition, x, y = operands
        if condition.dtype != BOOL or x.dtype != y.dtype:
            raise DTypeError(f"Expected a bool and two operands of one dtype. Received: {condition}, {x}, {y}")
        refuse_bf16(x)
        return TensorType(x.dtype, broadcast_shapes(condition.shape, x.shape, y.shape))

    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        return b.select(*operands)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.where(*operands))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        condition, zero = node.inputs[0], node.graph.constant(0, cotangent.dtype)
        if not node.dtype.is_float:
            return (None, None, None)
        return (
            None,
            node.graph.apply(Select(), condition, cotangent, zero),
            node.graph.apply(Select(), condition, zero, cotangent),
        )
