"""Reductions: sum, product and extrema along axes, which vanish from the shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Reduction, nearest
from gradloom.compiler.ops.comparison import Equal, Select
from gradloom.compiler.ops.elementwise import Convert
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Reshape, Slice, Transpose
from gradloom.compiler.types import BOOL, DType, as_dtype


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with size 1 along the reduced axes."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def _spread(reduced: Value, like: Value, axes: tuple[int, ...]) -> Value:
    """A reduced tensor repeated along the reduced axes of `like`."""
    graph = reduced.graph
    return graph.apply(BroadcastTo(like.shape), graph.apply(Reshape(_kept(like.shape, axes)), reduced))


class NumericReduction(Reduction):
    """A reduction of numbers: it refuses bools."""

    def result_dtype(self, dtype: DType) -> DType:
        if dtype == BOOL:
            raise DTypeError(f"Expected numbers. Received: {dtype}")
        return dtype


@dataclass(frozen=True)
class Sum(NumericReduction):
    """The sum, in the operand's dtype; integers wrap: `%3: f32[32] = sum %2 {axes=[1]}`."""

    name: ClassVar[str] = "sum"
    opcode: ClassVar[str] = "add"
    axes: tuple[int, ...]

    def identity(self, dtype: DType) -> float | int | bool:
        return 0

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.sum(operands[0], axis=self.axes, dtype=operands[0].dtype))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (_spread(cotangent, node.inputs[0], self.axes),)


@dataclass(frozen=True)
class Prod(NumericReduction):
    """The product, in the operand's dtype; integers wrap: `%3: f32[32] = prod %2 {axes=[1]}`."""

    name: ClassVar[str] = "prod"
    opcode: ClassVar[str] = "mul"
    axes: tuple[int, ...]

    def identity(self, dtype: DType) -> float | int | bool:
        return 1

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(np.prod(operands[0], axis=self.axes, dtype=operands[0].dtype))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        # Not result / x, which fails at zeros: the factors are multiplied by halves, and the cotangent comes back
        # through each product.
        graph, (x,) = node.graph, node.inputs
        order = Transpose((*(axis for axis in range(x.ndim) if axis not in self.axes), *self.axes))
        moved = graph.apply(order, x)
        rows = node.type.size
        level = graph.apply(Reshape((rows, x.type.size // rows if rows else 0)), moved)
        halves: list[tuple[Value, Value, Value | None]] = []
        while level.shape[1] > 1:
            half = level.shape[1] // 2
            first, second = _columns(level, 0, half), _columns(level, half, 2 * half)
            odd = _columns(level, 2 * half, 2 * half + 1) if level.shape[1] % 2 else None
            halves.append((first, second, odd))
            product = first * second
            level = product if odd is None else graph.apply(Concatenate(1), product, odd)
        back = graph.apply(BroadcastTo(level.shape), graph.apply(Reshape((rows, 1)), cotangent))
        for first, second, odd in reversed(halves):
            half = first.shape[1]
            own = _columns(back, 0, half)
            parts = [own * second, own * first]
            if odd is not None:
                parts.append(_columns(back, half, half + 1))
            back = graph.apply(Concatenate(1), *parts)
        return (graph.apply(order.inverse, graph.apply(Reshape(moved.shape), back)),)


def _columns(x: Value, start: int, stop: int) -> Value:
    """Columns [start, stop) of a matrix."""
    return x.graph.apply(Slice((0, start), (x.shape[0], stop), (1, 1)), x)


class Extremum(Reduction):
    """The largest or smallest element: NaN if there is one.

    Equal extrema share the cotangent evenly; where the result is NaN nothing gets any.
    """

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        graph, (x,) = node.graph, node.inputs
        if not node.dtype.is_float:
            return (None,)
        hit = graph.apply(Equal(), x, _spread(node, x, self.axes))
        count = graph.apply(Sum(self.axes), graph.apply(Convert(x.dtype), hit))
        share = _spread(cotangent / count, x, self.axes)
        return (graph.apply(Select(), hit, share, graph.constant(0, x.dtype)),)

    def kink_distance(self, *operands: np.ndarray) -> float:
        rows = self._rows(operands[0])
        if rows.dtype.kind != "f" or rows.shape[-1] < 2:
            return super().kink_distance(*operands)
        ordered = np.sort(rows if self.opcode == "max" else -rows, axis=-1)
        with np.errstate(invalid="ignore"):
            return nearest((ordered[..., -1] - ordered[..., -2]) / 2)

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        rows, moving = self._rows(operands[0]), self._rows(tangents[0])
        extremum = rows.max(axis=-1, keepdims=True) if self.opcode == "max" else rows.min(axis=-1, keepdims=True)
        return np.asarray(np.mean(moving, axis=-1, where=rows == extremum))

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """The elements that are compared with one another, in the last axis."""
        kept = [axis for axis in range(x.ndim) if axis not in self.axes]
        sizes = [x.shape[axis] for axis in kept]
        # NumPy derives no size where another one is 0.
        return x.transpose([*kept, *self.axes]).reshape(*sizes, math.prod(x.shape[axis] for axis in self.axes))


@dataclass(frozen=True)
class Max(Extremum):
    """The largest element, of bools whether any holds: `%3: f32[32] = max %2 {axes=[1]}`. Of none: the least value."""

    name: ClassVar[str] = "max"
    opcode: ClassVar[str] = "max"
    axes: tuple[int, ...]

    def identity(self, dtype: DType) -> float | int | bool:
        if dtype.is_float:
            return float("-inf")
        return int(np.iinfo(dtype.numpy).min) if dtype.is_integer else False

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        with np.errstate(invalid="ignore"):
            return np.asarray(np.max(x, axis=self.axes, initial=self.identity(as_dtype(x.dtype))))


@dataclass(frozen=True)
class Min(Extremum):
    """The smallest element, of bools whether all hold: `%3: f32[32] = min %2 {axes=[1]}`. Of none: the top value."""

    name: ClassVar[str] = "min"
    opcode: ClassVar[str] = "min"
    axes: tuple[int, ...]

    def identity(self, dtype: DType) -> float | int | bool:
        if dtype.is_float:
            return float("inf")
        return int(np.iinfo(dtype.numpy).max) if dtype.is_integer else True

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        with np.errstate(invalid="ignore"):
            return np.asarray(np.min(x, axis=self.axes, initial=self.identity(as_dtype(x.dtype))))
