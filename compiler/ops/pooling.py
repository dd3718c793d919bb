"""Pooling over windows of [batch, height, width, channels]: maxima, sums, and their derivatives, element by element.

Padding never wins a maximum and never counts. Every window holds an element that is no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Inline, Position, Reader, nearest, refuse_bf16
from gradloom.compiler.ops.movement import clamped
from gradloom.compiler.ops.windows import (
    Padding,
    Pair,
    check_attributes,
    count_windows,
    height_and_width,
    images,
    one_float_dtype,
)
from gradloom.compiler.types import BOOL, TensorType

Place = tuple[Index, Expr | None]
"""A row or column moved to where there is one, and whether it was there: None if that is known."""


class Pooling(Inline):
    """What pooling ops share; subclasses are dataclasses with these fields."""

    arity: ClassVar[int | None] = 1
    cost: ClassVar[int] = 16
    window: Pair
    strides: Pair
    padding: Padding

    def pooled(self, operand: TensorType, size: Pair) -> TensorType:
        """The type of what is pooled from images of `size` with the operand's batch, channels and dtype."""
        images(operand)
        check_attributes(self.strides, self.padding)
        if operand.dtype == BOOL:
            raise DTypeError(f"Expected numbers. Received: {operand}")
        refuse_bf16(operand)
        if any(max(self.padding[axis]) >= self.window[axis] or size[axis] < 1 for axis in range(2)):
            raise ShapeError(
                "Expected less padding than the window on each side, and images of at least one pixel, so that no "
                f"window holds padding alone. Received: window={self.window}, padding={self.padding}, images of "
                f"{size[0]}x{size[1]}"
            )
        height, width = self.count(size)
        return TensorType(operand.dtype, (operand.shape[0], height, width, operand.shape[3]))

    def check_pooled(self, operand: TensorType, expected: TensorType) -> None:
        """Refuse an operand that is no result of pooling."""
        if operand != expected:
            raise ShapeError(f"Expected the type {expected} of what is pooled. Received: {operand}")

    def count(self, size: Pair) -> Pair:
        """How many windows images of `size` have vertically and horizontally."""
        return count_windows(size, self.window, self.strides, self.padding)

    # Loop IR.

    def inside(self, b: Builder, at: Index, axis: int, size: int) -> list[Place]:
        """The rows (axis 0) or columns (1) of window number `at`."""
        start = b.index_scale(at, self.strides[axis]) + (-self.padding[axis][0])
        return [clamped(b, start + tap, size - 1) for tap in range(self.window[axis])]

    def around(self, b: Builder, at: Index, axis: int, count: int) -> list[Place]:
        """The windows, of `count` there are, that hold row (axis 0) or column (1) number `at`."""
        stride, window = self.strides[axis], self.window[axis]
        last, first_tap = b.divmod(at + self.padding[axis][0], stride)
        places = []
        for back in range(-(-window // stride)):
            number, exists = clamped(b, last + (-back), count - 1)
            if (tap := first_tap + back * stride).high is None or tap.high >= window:
                exists = _both(b, exists, b.compare("lt", b.expr(tap), window))
            places.append((number, exists))
        return places

    # The reference: one strided slice of the padded images for each tap of the window.

    def slices(self, x: np.ndarray, result: Pair, fill: float) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """For each tap where it lies in the padded images, and its elements, `fill` where it is padding."""
        padded = np.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=fill)
        for i in range(self.window[0]):
            for j in range(self.window[1]):
                rows, columns = (
                    slice(tap, tap + (count - 1) * stride + 1, stride)
                    for tap, stride, count in zip((i, j), self.strides, result, strict=True)
                )
                place = (slice(None), rows, columns)
                yield place, padded[place]

    def first_maximum(self, x: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, ...]]]:
        """The number of the tap at each window's first maximum (-1 if a NaN is there), and where taps lie."""
        height, width = self.count((x.shape[1], x.shape[2]))
        places, elements = zip(*self.slices(x, (height, width), 0), strict=True)
        real = np.stack([tap for _, tap in self.slices(np.ones_like(x, bool), (height, width), False)])
        taps = np.stack(elements)
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        peak = np.max(np.where(real, taps, lowest), axis=0)
        hit = real & (taps == peak)
        return np.where(hit.any(axis=0), hit.argmax(axis=0), -1), list(places)

    def tie_distance(self, x: np.ndarray) -> float:
        """How far elements of x may move before another one is the maximum of a window."""
        if x.dtype.kind != "f":
            return super().kink_distance(x)
        count = self.count((x.shape[1], x.shape[2]))
        taps = np.sort(np.stack([tap for _, tap in self.slices(x, count, -np.inf)]), axis=0)
        with np.errstate(invalid="ignore"):
            return nearest((taps[-1] - taps[-2]) / 2) if len(taps) > 1 else super().kink_distance(x)

    def crop(self, padded: np.ndarray, size: Pair) -> np.ndarray:
        """Padded images without their padding."""
        (top, _), (left, _) = self.padding
        return np.ascontiguousarray(padded[:, top : top + size[0], left : left + size[1]])


@dataclass(frozen=True)
class MaxPool(Pooling):
    """The maximum of each window, NaN if there is one: `%3: f32[8,4,4,16] = max_pool %2 {window=[2,2], strides=[2,2]}`.

    The gradient goes to the first maximum of each window.
    """

    name: ClassVar[str] = "max_pool"
    window: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        return self.pooled(operands[0], height_and_width(images(operands[0])))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (x,) = operands
        rows = self.inside(b, position[1], 0, x.type.shape[1])
        columns = self.inside(b, position[2], 1, x.type.shape[2])
        # A tap in the padding reads the nearest element instead, which is in the window anyway.
        taps = (x.read((position[0], row, column, position[3])) for row, _ in rows for column, _ in columns)
        return reduce(lambda best, tap: b.binary("max", best, tap), taps)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        height, width = self.count((x.shape[1], x.shape[2]))
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        with np.errstate(invalid="ignore"):
            return np.asarray(np.max(np.stack([tap for _, tap in self.slices(x, (height, width), lowest)]), axis=0))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        op = MaxPoolGrad(self.window, self.strides, self.padding)
        return (node.graph.apply(op, node.inputs[0], cotangent),)

    def kink_distance(self, *operands: np.ndarray) -> float:
        return self.tie_distance(operands[0])

    def at_kink(self, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray | None:
        return MaxPoolSelect(self.window, self.strides, self.padding).reference(operands[0], tangents[0])


@dataclass(frozen=True)
class MaxPoolGrad(Pooling):
    """Each window's cotangent at its first maximum: `%5: f32[8,8,8,16] = max_pool_grad %2 %4 {window=[2,2]}`.

    Operands are the images and the pooled cotangent. A window with a NaN gives nothing to any of its elements.
    """

    name: ClassVar[str] = "max_pool_grad"
    arity: ClassVar[int | None] = 2
    window: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        x, cotangent = images(operands[0]), images(operands[1])
        self.check_pooled(cotangent, self.pooled(x, height_and_width(x)))
        return x

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        x, cotangent = operands
        image, row, column, channel = position
        _, rows, columns, _ = cotangent.type.shape
        parts = []
        for at_row, row_exists in self.around(b, row, 0, rows):
            for at_column, column_exists in self.around(b, column, 1, columns):
                wins = self._is_first_maximum(b, position, (at_row, at_column), x)
                exists = _both(b, row_exists, column_exists)
                wins = wins if exists is None else b.binary("and", wins, exists)
                parts.append(b.select(wins, cotangent.read((image, at_row, at_column, channel)), 0))
        return reduce(b.add, parts)

    def _is_first_maximum(self, b: Builder, position: Position, window: tuple[Index, Index], x: Reader) -> Expr:
        """Whether the element at `position` is the first maximum of a window that holds it."""
        image, row, column, channel = position
        _, height, width, _ = x.type.shape
        own, here = x.read(position), b.expr(b.ravel((row, column), (height, width)))
        wins = b.true()
        for tap_row, _ in self.inside(b, window[0], 0, height):
            for tap_column, _ in self.inside(b, window[1], 1, width):
                # Order is told by where elements lie: a tap in the padding reads an element that another tap reads too.
                behind = b.compare("ge", b.expr(b.ravel((tap_row, tap_column), (height, width))), here)
                other = x.read((image, tap_row, tap_column, channel))
                equal = b.binary("and", b.compare("eq", other, own), behind)
                wins = b.binary("and", wins, b.binary("or", b.compare("lt", other, own), equal))
        return wins

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, cotangent = operands
        first, places = self.first_maximum(x)
        result = np.pad(np.zeros_like(x), ((0, 0), *self.padding, (0, 0)))
        with np.errstate(all="ignore"):
            for tap, place in enumerate(places):
                result[place] += np.where(first == tap, cotangent, 0)
        return self.crop(result, (x.shape[1], x.shape[2]))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        op = MaxPoolSelect(self.window, self.strides, self.padding)
        return (None, node.graph.apply(op, node.inputs[0], cotangent))

    def kink_distance(self, *operands: np.ndarray) -> float:
        return self.tie_distance(operands[0])


@dataclass(frozen=True)
class MaxPoolSelect(Pooling):
    """z at the first maximum of each window of x: `%5: f32[8,4,4,16] = max_pool_select %2 %4 {window=[2,2]}`.

    Operands are x and z; 0 for a window with a NaN. It is the derivative of `max_pool_grad` by its cotangent.
    """

    name: ClassVar[str] = "max_pool_select"
    arity: ClassVar[int | None] = 2
    window: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        x, z = images(operands[0]), images(operands[1])
        if x != z:
            raise ShapeError(f"Expected operands of one shape. Received: {x}, {z}")
        return self.pooled(x, height_and_width(x))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        x, z = operands
        image, row, column, channel = position
        peak: Expr | None = None
        chosen: Expr | None = None
        for tap_row, _ in self.inside(b, row, 0, x.type.shape[1]):
            for tap_column, _ in self.inside(b, column, 1, x.type.shape[2]):
                tap = image, tap_row, tap_column, channel
                if peak is None or chosen is None:
                    peak, chosen = x.read(tap), z.read(tap)
                    continue
                # A tap in the padding reads an element of the window: equal to the peak or below it, it takes nothing.
                chosen = b.select(b.compare("gt", x.read(tap), peak), z.read(tap), chosen)
                peak = b.binary("max", peak, x.read(tap))
        assert peak is not None and chosen is not None, "a window has at least one tap"
        return b.select(b.compare("eq", peak, peak), chosen, 0)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, z = operands
        first, _ = self.first_maximum(x)
        taps = np.stack([tap for _, tap in self.slices(z, (first.shape[1], first.shape[2]), 0)])
        chosen = np.take_along_axis(taps, np.maximum(first, 0)[None], axis=0)[0]
        return np.asarray(np.where(first >= 0, chosen, z.dtype.type(0)))

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        op = MaxPoolGrad(self.window, self.strides, self.padding)
        return (None, node.graph.apply(op, node.inputs[0], cotangent))

    def kink_distance(self, *operands: np.ndarray) -> float:
        return self.tie_distance(operands[0])


@dataclass(frozen=True)
class SumPool(Pooling):
    """The sum of each window, without the padding: `%3: f32[8,4,4,16] = sum_pool %2 {window=[2,2], strides=[2,2]}`."""

    name: ClassVar[str] = "sum_pool"
    window: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        return self.pooled(operands[0], height_and_width(images(operands[0])))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (x,) = operands
        image, row, column, channel = position
        parts = []
        for tap_row, row_exists in self.inside(b, row, 0, x.type.shape[1]):
            for tap_column, column_exists in self.inside(b, column, 1, x.type.shape[2]):
                element = x.read((image, tap_row, tap_column, channel))
                exists = _both(b, row_exists, column_exists)
                parts.append(element if exists is None else b.select(exists, element, 0))
        return reduce(b.add, parts)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        height, width = self.count((x.shape[1], x.shape[2]))
        result = np.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
        with np.errstate(all="ignore"):
            for _, tap in self.slices(x, (height, width), 0):
                result += tap
        return result

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        size = height_and_width(node.inputs[0].type)
        return (node.graph.apply(SumPoolGrad(size, self.window, self.strides, self.padding), cotangent),)


@dataclass(frozen=True)
class SumPoolGrad(Pooling):
    """For each pixel the sum of the windows that hold it: `%4: f32[8,8,8,16] = sum_pool_grad %3 {shape=[8,8], …}`.

    The operand is the pooled cotangent, `shape` the size of the images.
    """

    name: ClassVar[str] = "sum_pool_grad"
    shape: Pair
    window: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        cotangent = images(operands[0])
        self.check_pooled(cotangent, self.pooled(cotangent, self.shape))
        return TensorType(cotangent.dtype, (cotangent.shape[0], *self.shape, cotangent.shape[3]))

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        (cotangent,) = operands
        image, row, column, channel = position
        _, rows, columns, _ = cotangent.type.shape
        parts = []
        for at_row, row_exists in self.around(b, row, 0, rows):
            for at_column, column_exists in self.around(b, column, 1, columns):
                element = cotangent.read((image, at_row, at_column, channel))
                exists = _both(b, row_exists, column_exists)
                parts.append(element if exists is None else b.select(exists, element, 0))
        return reduce(b.add, parts)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (cotangent,) = operands
        batch, height, width, channels = cotangent.shape
        result = np.zeros((batch, *self.shape, channels), cotangent.dtype)
        result = np.pad(result, ((0, 0), *self.padding, (0, 0)))
        with np.errstate(all="ignore"):
            for place, _ in self.slices(np.zeros((batch, *self.shape, channels), bool), (height, width), False):
                result[place] += cotangent
        return self.crop(result, self.shape)

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (node.graph.apply(SumPool(self.window, self.strides, self.padding), cotangent),)


def _both(b: Builder, first: Expr | None, second: Expr | None) -> Expr | None:
    """Whether both hold, where None holds for certain."""
    if first is None or second is None:
        return second if first is None else first
    return b.binary("and", first, second)
