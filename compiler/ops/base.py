"""The kinds of ops: what an op must say itself, and what its kind gives it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, NoGradientError, ShapeError
from gradloom.compiler.ir import Op, Value
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.types import BF16, OPEN, DType, TensorType, as_dtype

Position = tuple[Index, ...]


@dataclass(frozen=True)
class Reader:
    """An operand as a lowering sees it: its type, and a way to have its element at a position computed or loaded."""

    type: TensorType
    read: Callable[[Position], Expr]


class TensorOp(Op):
    """An op with a gradient and a NumPy reference."""

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        """Emit the cotangent of each operand of `node`, or None where the operand has none.

        A cotangent may still have the result's shape where the operand was broadcast: `gradients` sums it.
        """
        raise NoGradientError(f"op {self.name!r} has no gradient")

    @abstractmethod
    def reference(self, *operands: np.ndarray) -> np.ndarray:
        """Compute the result with NumPy, in the operands' precision: the oracle for compiled code."""

    # Kinks: where there is no derivative. `gradloom.testing` asks.

    def kink_distance(self, *operands: np.ndarray) -> float:
        """How far all elements of the operands may move, at least, before one meets a kink, jump or pole.

        0 where an element is at one; infinite for an op that has none.
        """
        return math.inf

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        """The derivative along `tangents` that the op's gradient stands for, at kinks and elsewhere: its convention.

        None for an op that has no kinks, or none at which its result is finite and its derivative bounded.
        """
        return None


class Inline(TensorOp):
    """An op whose result can be computed element by element, inside any kernel that reads it."""

    cost: ClassVar[int] = 1
    """About how many instructions an element takes: fusion computes cheap ops anew rather than store them."""

    @abstractmethod
    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        """Emit the element at `position` of the result."""


class Elementwise(Inline):
    """One lane at a time; operands are broadcast by NumPy's rule and have one dtype."""

    arity: ClassVar[int | None] = 1

    def infer(self, *operands: TensorType) -> TensorType:
        dtypes = {operand.dtype for operand in operands}
        if len(dtypes) > 1:
            raise DTypeError(f"Expected operands of one dtype. Received: {', '.join(map(str, operands))}")
        refuse_bf16(*operands)
        return TensorType(self.result_dtype(operands[0].dtype), broadcast_shapes(*(o.shape for o in operands)))

    def result_dtype(self, dtype: DType) -> DType:
        """The result's dtype for operands of `dtype`; raises `DTypeError` where the op refuses it."""
        return dtype

    @abstractmethod
    def scalar(self, b: Builder, *operands: Expr) -> Expr:
        """Emit the computation on one lane, or on vectors of lanes: the builder's methods work on both."""

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        return self.scalar(b, *(operand.read(broadcast_position(position, operand.type)) for operand in operands))


class Movement(Inline):
    """An op that only says where its elements come from: `read` maps a position to positions in the operands."""

    arity: ClassVar[int | None] = 1
    cost: ClassVar[int] = 0


class Reduction(TensorOp):
    """Combines the elements along `axes`, which vanish from the shape.

    Subclasses are dataclasses with the field `axes: tuple[int, ...]` (sorted, non-negative).
    """

    arity: ClassVar[int | None] = 1
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (operand,) = operands
        refuse_bf16(operand)
        if OPEN in operand.shape:
            raise ShapeError(f"Expected a tensor of known shape (a data set is read by rows). Received: {operand}")
        if list(self.axes) != sorted(set(self.axes)) or any(not 0 <= axis < operand.rank for axis in self.axes):
            raise ShapeError(f"Expected ascending axes below {operand.rank}. Received: axes={list(self.axes)}")
        kept = tuple(size for axis, size in enumerate(operand.shape) if axis not in self.axes)
        return TensorType(self.result_dtype(operand.dtype), kept)

    def result_dtype(self, dtype: DType) -> DType:
        """The result's dtype; raises `DTypeError` where the op refuses the operand's."""
        return dtype

    opcode: ClassVar[str]
    """The opcode of the loop IR that combines two values: it must be associative up to rounding."""

    @abstractmethod
    def identity(self, dtype: DType) -> float | int | bool:
        """The value that leaves every other unchanged."""


class Contraction(TensorOp):
    """Sums products over contracted dimensions: a kernel of its own, into which others are fused.

    Sums of products of bf16 are f32, and so are the cotangents of its operands.
    """

    arity: ClassVar[int | None] = 2


class Windowed(Contraction):
    """A contraction that reads its first operand through windows: images that lie in memory, with zeros around them."""


class Scatter(TensorOp):
    """Adds rows into a tensor of zeros at positions known at run time."""

    arity: ClassVar[int | None] = 2


def nearest(distances: np.ndarray) -> float:
    """The smallest of some distances, infinite for none; NaNs are far from everything."""
    return float(np.fmin.reduce(np.asarray(distances, np.float64), axis=None, initial=math.inf))


def refuse_bf16(*operands: TensorType) -> None:
    """Refuse operands of bf16 where there is arithmetic: only contractions read them, and multiply them as f32."""
    if any(operand.dtype == BF16 for operand in operands):
        raise DTypeError(f"Expected operands converted to f32. Received: {', '.join(map(str, operands))}")


def for_arithmetic(*operands: np.ndarray) -> list[np.ndarray]:
    """Arrays in the dtype in which they are computed with: f32 for bf16."""
    return [operand.astype(as_dtype(operand.dtype).arithmetic.numpy, copy=False) for operand in operands]


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcast shape of shapes of any size; an open leading size (a whole data set) does not broadcast."""
    if any(size < 0 for shape in shapes for size in shape):
        raise ShapeError(f"Expected tensors of known shape (a data set is read by rows). Received: {list(shapes)}")
    result = []
    for axis in range(-max(map(len, shapes)), 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"Expected shapes that broadcast. Received: {', '.join(map(str, shapes))}")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def broadcast_position(position: Position, operand: TensorType) -> Position:
    """Where an operand that is broadcast is read for an element at `position` of the result."""
    own = position[len(position) - operand.rank :]
    return tuple([ix.ZERO if size == 1 else at for at, size in zip(own, operand.shape, strict=True)])
