"""Movement ops: results whose elements are elements of the operands, or zeros, at mapped positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Movement, Position, Reader, broadcast_shapes
from gradloom.compiler.types import BOOL, OPEN, DType, TensorType


def _closed(operand: TensorType) -> TensorType:
    """The operand, if its shape is known."""
    if OPEN in operand.shape:
        raise ShapeError(f"Expected a tensor of known shape (a data set is read by rows). Received: {operand}")
    return operand


@dataclass(frozen=True)
class Reshape(Movement):
    """The same elements in row-major order: `%3: f32[32,784] = reshape %2 {shape=[32,784]}`.

    A data set keeps its open first axis, and only what stands behind it takes another form.
    """

    name: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        if self.shape[:1] == operands[0].shape[:1] == (OPEN,):
            row = Reshape(self.shape[1:]).infer(TensorType(operands[0].dtype, operands[0].shape[1:]))
            return TensorType(row.dtype, self.shape)
        operand = _closed(operands[0])
        if any(size < 0 for size in self.shape) or prod(self.shape) != operand.size:
            raise ShapeError(f"Expected a shape of {operand.size} elements. Received: {operand} to {list(self.shape)}")
        return TensorType(operand.dtype, self.shape)

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (operand,) = operands
        place: list[Index] = []
        for outer, inner in _matching_axes(self.shape, operand.type.shape):
            sizes = [self.shape[axis] for axis in outer]
            offset = b.ravel([position[axis] for axis in outer], sizes)
            place.extend(b.unravel(offset, [operand.type.shape[axis] for axis in inner]))
        return operand.read(tuple(place))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0].reshape(self.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (node.graph.apply(Reshape(node.inputs[0].shape), cotangent),)


def _matching_axes(first: tuple[int, ...], second: tuple[int, ...]) -> Iterator[tuple[range, range]]:
    """Split two shapes of one size into runs of axes of equal size, as short as possible.

    An axis that a reshape keeps is mapped by itself, so that its index needs no division.
    """
    start_i = start_j = i = j = 0
    while 0 not in first and (i < len(first) or j < len(second)):
        size_i, size_j = prod(first[start_i:i]), prod(second[start_j:j])
        if size_i == size_j and size_i > 1:
            yield range(start_i, i), range(start_j, j)
            start_i, start_j = i, j
        elif size_i <= size_j and i < len(first):
            i += 1
        elif j < len(second):
            j += 1
        else:
            i += 1
    yield range(start_i, len(first)), range(start_j, len(second))


@dataclass(frozen=True)
class Transpose(Movement):
    """Axis i of the result is axis permutation[i]: `%3: f32[10,128] = transpose %2 {permutation=[1,0]}`."""

    name: ClassVar[str] = "transpose"
    permutation: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        operand = _closed(operands[0])
        if sorted(self.permutation) != list(range(operand.rank)):
            raise ShapeError(f"Expected an order of {operand.rank} axes. Received: {list(self.permutation)}")
        return TensorType(operand.dtype, tuple(operand.shape[axis] for axis in self.permutation))

    @property
    def inverse(self) -> Transpose:
        """The transposition that undoes this one."""
        return Transpose(tuple(self.permutation.index(axis) for axis in range(len(self.permutation))))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        return operands[0].read(tuple(position[axis] for axis in self.inverse.permutation))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0].transpose(self.permutation)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (node.graph.apply(self.inverse, cotangent),)


@dataclass(frozen=True)
class BroadcastTo(Movement):
    """Repeated along new leading axes and axes of size 1: `%3: f32[32,128] = broadcast_to %2 {shape=[32,128]}`."""

    name: ClassVar[str] = "broadcast_to"
    shape: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (operand,) = operands
        if broadcast_shapes(operand.shape, self.shape) != self.shape:
            raise ShapeError(f"Expected a shape that {operand} broadcasts to. Received: {list(self.shape)}")
        return TensorType(operand.dtype, self.shape)

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (operand,) = operands
        own = position[len(position) - operand.type.rank :]
        return operand.read(
            tuple(ix.constant(0) if size == 1 else at for at, size in zip(own, operand.type.shape, strict=True))
        )

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.broadcast_to(operands[0], self.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (cotangent,)


@dataclass(frozen=True)
class Slice(Movement):
    """Every stride-th element from start to before stop: `%3: f32[4] = slice %2 {start=[0], stop=[8], stride=[2]}`."""

    name: ClassVar[str] = "slice"
    start: tuple[int, ...]
    stop: tuple[int, ...]
    stride: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        operand = _closed(operands[0])
        if {len(self.start), len(self.stop), len(self.stride)} != {operand.rank}:
            raise ShapeError(f"Expected start, stop and stride for {operand.rank} axes. Received: {self!r}")
        for axis, size in enumerate(operand.shape):
            start, stop, stride = self.start[axis], self.stop[axis], self.stride[axis]
            if not 0 <= start <= stop <= size or stride < 1:
                raise ShapeError(
                    f"Expected 0 <= start <= stop <= {size} and stride >= 1 along axis {axis}. "
                    f"Received: start={start}, stop={stop}, stride={stride}"
                )
        spans = zip(self.start, self.stop, self.stride, strict=True)
        return TensorType(operand.dtype, tuple(-(-(stop - start) // stride) for start, stop, stride in spans))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        places = zip(position, self.start, self.stride, strict=True)
        return operands[0].read(tuple(b.index_scale(at, stride) + start for at, start, stride in places))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0][tuple(map(slice, self.start, self.stop, self.stride))]

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        shape = node.inputs[0].shape
        # What is left behind the last element that was taken; without one, the whole axis is padding.
        ends = [
            start + (count - 1) * stride + 1 if count else start
            for start, stride, count in zip(self.start, self.stride, node.shape, strict=True)
        ]
        high = tuple(size - end for size, end in zip(shape, ends, strict=True))
        return (node.graph.apply(Pad(self.start, high, tuple(stride - 1 for stride in self.stride)), cotangent),)


@dataclass(frozen=True)
class Pad(Movement):
    """Zeros before, behind and between the elements: `%3: f32[9] = pad %2 {low=[1], high=[1], interior=[0]}`."""

    name: ClassVar[str] = "pad"
    low: tuple[int, ...]
    high: tuple[int, ...]
    interior: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        operand = _closed(operands[0])
        if {len(self.low), len(self.high), len(self.interior)} != {operand.rank}:
            raise ShapeError(f"Expected low, high and interior for {operand.rank} axes. Received: {self!r}")
        if any(count < 0 for count in self.low + self.high + self.interior):
            raise ShapeError(f"Expected counts of zeros, not negative. Received: {self!r}")
        widths = zip(operand.shape, self.low, self.high, self.interior, strict=True)
        return TensorType(operand.dtype, tuple(lo + n + max(n - 1, 0) * gap + hi for n, lo, hi, gap in widths))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (operand,) = operands
        if operand.type.size == 0:
            return b.const(0, operand.type.dtype)
        place: list[Index] = []
        inside = b.true()
        for at, size, low, gap in zip(position, operand.type.shape, self.low, self.interior, strict=True):
            own = at + (-low)
            span = (size - 1) * (gap + 1)
            own, covered = clamped(b, own, span)
            inside = inside if covered is None else b.binary("and", inside, covered)
            if gap:
                own, rest = b.divmod(own, gap + 1)
                inside = b.binary("and", inside, b.compare("eq", b.expr(rest), 0))
            place.append(own)
        # The element is read at a position inside even where the result is zero: no load may leave its buffer.
        return b.select(inside, operand.read(tuple(place)), 0)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (operand,) = operands
        shape = self.infer(TensorType(BOOL, operand.shape)).shape
        result = np.zeros(shape, operand.dtype)
        if operand.size:
            ends = [size - high for size, high in zip(shape, self.high, strict=True)]
            result[tuple(map(slice, self.low, ends, [gap + 1 for gap in self.interior]))] = operand
        return result

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        stop = tuple(size - high for size, high in zip(node.shape, self.high, strict=True))
        return (node.graph.apply(Slice(self.low, stop, tuple(gap + 1 for gap in self.interior)), cotangent),)


def clamped(b: Builder, at: Index, last: int) -> tuple[Index, Expr | None]:
    """The index moved into [0, last], and whether it was there: None if that is known."""
    if at.low is not None and at.high is not None and at.low >= 0 and at.high <= last:
        return at, None
    value = b.expr(at)
    covered = b.binary("and", b.compare("ge", value, 0), b.compare("le", value, last))
    return b.index(b.binary("min", b.binary("max", value, 0), last), 0, last), covered


@dataclass(frozen=True)
class Concatenate(Movement):
    """The operands one behind the other: `%4: f32[32,20] = concatenate %2 %3 {axis=1}`."""

    name: ClassVar[str] = "concatenate"
    arity: ClassVar[int | None] = None
    axis: int

    def infer(self, *operands: TensorType) -> TensorType:
        first = _closed(operands[0])
        if not 0 <= self.axis < first.rank:
            raise ShapeError(f"Expected an axis below {first.rank}. Received: axis={self.axis}")
        for operand in operands:
            if operand.dtype != first.dtype:
                raise DTypeError(f"Expected operands of one dtype. Received: {', '.join(map(str, operands))}")
            if _without(operand.shape, self.axis) != _without(first.shape, self.axis):
                raise ShapeError(
                    f"Expected shapes that are equal but along axis {self.axis}. "
                    f"Received: {', '.join(map(str, operands))}"
                )
        size = sum(operand.shape[self.axis] for operand in operands)
        return TensorType(first.dtype, (*first.shape[: self.axis], size, *first.shape[self.axis + 1 :]))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        at = position[self.axis]
        result: Expr | None = None
        start = 0
        for operand in operands:
            size = operand.type.shape[self.axis]
            behind = at.high is not None and at.high < start
            before = at.low is not None and at.low >= start + size
            if size and not behind and not before:
                own, _ = clamped(b, at + (-start), size - 1)
                element = operand.read((*position[: self.axis], own, *position[self.axis + 1 :]))
                result = element if result is None else b.select(b.compare("ge", b.expr(at), start), element, result)
            start += size
        return b.const(0, operands[0].type.dtype) if result is None else result

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.concatenate(operands, self.axis)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        cotangents, offset = [], 0
        for operand in node.inputs:
            start, stop = [0] * node.ndim, list(node.shape)
            start[self.axis], stop[self.axis] = offset, offset + operand.shape[self.axis]
            cotangents.append(node.graph.apply(Slice(tuple(start), tuple(stop), (1,) * node.ndim), cotangent))
            offset = stop[self.axis]
        return cotangents


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


@dataclass(frozen=True)
class Reverse(Movement):
    """The opposite order along axes: `%3: f32[8] = reverse %2 {axes=[0]}`."""

    name: ClassVar[str] = "reverse"
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        operand = _closed(operands[0])
        if list(self.axes) != sorted(set(self.axes)) or any(not 0 <= axis < operand.rank for axis in self.axes):
            raise ShapeError(f"Expected ascending axes below {operand.rank}. Received: axes={list(self.axes)}")
        return operand

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (operand,) = operands
        return operand.read(
            tuple(
                b.index_scale(at, -1) + (operand.type.shape[axis] - 1) if axis in self.axes else at
                for axis, at in enumerate(position)
            )
        )

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return np.flip(operands[0], self.axes)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (node.graph.apply(self, cotangent),)


@dataclass(frozen=True)
class Iota(Movement):
    """The position along an axis: `%3: i32[32,10] = iota {shape=[32,10], axis=1, dtype=i32}`."""

    name: ClassVar[str] = "iota"
    arity: ClassVar[int | None] = 0
    shape: tuple[int, ...]
    axis: int
    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        if self.dtype == BOOL:
            raise DTypeError(f"Expected a dtype of numbers. Received: {self.dtype}")
        if not 0 <= self.axis < len(self.shape) or any(size < 0 for size in self.shape):
            raise ShapeError(f"Expected an axis of the shape. Received: shape={list(self.shape)}, axis={self.axis}")
        return TensorType(self.dtype, self.shape)

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        return b.convert(b.expr(position[self.axis]), self.dtype)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        along = np.arange(self.shape[self.axis]).astype(self.dtype.numpy)
        return np.broadcast_to(along.reshape([-1] + [1] * (len(self.shape) - self.axis - 1)), self.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return ()
