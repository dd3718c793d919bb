"""Functions of `keras.ops` that make tensors and rearrange them: shapes, axes, joining, splitting, repeating."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.comparison import Equal, Select
from gradloom.compiler.ops.movement import Concatenate, Iota, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.operands import (
    Axis,
    TensorLike,
    as_value,
    as_values,
    broadcast,
    canonical_axes,
    canonical_axis,
    convert,
    graph_of,
    is_weak,
    promoted,
    static_shape,
)
from gradloom.compiler.types import BOOL, F32, I32, DType, as_dtype

AnyDType: TypeAlias = DType | str | type | np.dtype

# Making tensors.


def convert_to_tensor(x: TensorLike, dtype: AnyDType | None = None) -> Value:
    """x as a value of the graph, in `dtype` if given."""
    value = as_value(x, function="convert_to_tensor")
    return value if dtype is None else convert(value, as_dtype(dtype))


def full(shape: int | Sequence[int], fill_value: TensorLike, dtype: AnyDType | None = None) -> Value:
    """A tensor of `fill_value`, in the value's own dtype or in `dtype`."""
    sizes = static_shape(shape, "full")
    if dtype is not None and is_weak(fill_value):
        value = graph_of(function="full").constant(fill_value, as_dtype(dtype))
    else:
        value = convert_to_tensor(fill_value, dtype)
    return broadcast(value, sizes)


def zeros(shape: int | Sequence[int], dtype: AnyDType = F32) -> Value:
    """A tensor of zeros."""
    return full(shape, 0, dtype)


def ones(shape: int | Sequence[int], dtype: AnyDType = F32) -> Value:
    """A tensor of ones."""
    return full(shape, 1, dtype)


def full_like(x: TensorLike, fill_value: TensorLike, dtype: AnyDType | None = None) -> Value:
    """A tensor of `fill_value`, of x's shape and (unless `dtype` is given) dtype."""
    like = as_value(x, function="full_like")
    wanted = like.dtype if dtype is None else as_dtype(dtype)
    return broadcast(convert(as_value(fill_value, like), wanted), like.shape)


def zeros_like(x: TensorLike, dtype: AnyDType | None = None) -> Value:
    """Zeros of x's shape and (unless `dtype` is given) dtype."""
    return full_like(x, 0, dtype)


def ones_like(x: TensorLike, dtype: AnyDType | None = None) -> Value:
    """Ones of x's shape and (unless `dtype` is given) dtype."""
    return full_like(x, 1, dtype)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: AnyDType | None = None) -> Value:
    """start, start + step, … up to before stop, all Python numbers: int32 for integers, else float32."""
    if stop is None:
        start, stop = 0, start
    numbers = (start, stop, step)
    if any(not isinstance(number, int | float) for number in numbers) or step == 0:
        raise TypeError(f"arange: expected Python numbers and step != 0. Received: {numbers}")
    integral = all(isinstance(number, int) for number in numbers)
    wanted = (I32 if integral else F32) if dtype is None else as_dtype(dtype)
    count = max(0, math.ceil((stop - start) / step))
    value = graph_of(function="arange").apply(Iota((count,), 0, I32 if integral else F32))
    value = value if step == 1 else value * step
    return convert(value if start == 0 else value + start, wanted)


def eye(N: int, M: int | None = None, k: int = 0, dtype: AnyDType = F32) -> Value:
    """Ones on the k-th diagonal of an [N, M] matrix of zeros."""
    graph, shape = graph_of(function="eye"), (N, N if M is None else M)
    row, column = graph.apply(Iota(shape, 0, I32)), graph.apply(Iota(shape, 1, I32))
    return convert(graph.apply(Equal(), row + k if k else row, column), as_dtype(dtype))


# Shapes and axes.


def shape(x: TensorLike) -> tuple[int, ...]:
    """The shape of x, as a tuple of Python integers."""
    return as_value(x, function="shape").shape


def ndim(x: TensorLike) -> int:
    """The number of axes of x."""
    return as_value(x, function="ndim").ndim


def size(x: TensorLike) -> int:
    """The number of elements of x."""
    return as_value(x, function="size").type.size


def reshape(x: TensorLike, newshape: int | Sequence[int]) -> Value:
    """x with its elements, in row-major order, in another shape; one size may be −1."""
    value = as_value(x, function="reshape")
    sizes = static_shape(newshape, "reshape")
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        if known <= 0 or value.type.size % known:
            raise ShapeError(f"reshape: expected a shape of {value.type.size} elements. Received: {newshape}")
        sizes = tuple(value.type.size // known if size == -1 else size for size in sizes)
    return value if sizes == value.shape else value.graph.apply(Reshape(sizes), value)


def ravel(x: TensorLike) -> Value:
    """x with one axis."""
    return reshape(x, (-1,))


def transpose(x: TensorLike, axes: Sequence[int] | None = None) -> Value:
    """x with its axes in another order: reversed, if none is given."""
    value = as_value(x, function="transpose")
    if axes is None:
        order = tuple(reversed(range(value.ndim)))
    else:
        order = tuple(canonical_axis(axis, value.ndim, "transpose") for axis in axes)
    return value if order == tuple(range(value.ndim)) else value.graph.apply(Transpose(order), value)


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Value:
    """x with two axes exchanged."""
    value = as_value(x, function="swapaxes")
    first, second = (canonical_axis(axis, value.ndim, "swapaxes") for axis in (axis1, axis2))
    order = list(range(value.ndim))
    order[first], order[second] = second, first
    return transpose(value, order)


def moveaxis(x: TensorLike, source: int | Sequence[int], destination: int | Sequence[int]) -> Value:
    """x with axes moved to other places, the rest in their order."""
    value = as_value(x, function="moveaxis")
    sources, destinations = (
        [canonical_axis(axis, value.ndim, "moveaxis") for axis in ([axes] if isinstance(axes, int) else axes)]
        for axes in (source, destination)
    )
    if len(sources) != len(destinations) or len(set(sources)) < len(sources) or len(set(destinations)) < len(sources):
        raise ShapeError(f"moveaxis: expected as many different axes. Received: {source} and {destination}")
    order = [axis for axis in range(value.ndim) if axis not in sources]
    for to, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(to, axis)
    return transpose(value, order)


def expand_dims(x: TensorLike, axis: int | Sequence[int]) -> Value:
    """x with axes of size 1 inserted where the result has them."""
    value = as_value(x, function="expand_dims")
    count = 1 if isinstance(axis, int) else len(axis)
    new = canonical_axes(axis, value.ndim + count, "expand_dims")
    sizes = iter(value.shape)
    return reshape(value, [1 if at in new else next(sizes) for at in range(value.ndim + count)])


def squeeze(x: TensorLike, axis: Axis = None) -> Value:
    """x without the given axes of size 1: without all of them, if none is given."""
    value = as_value(x, function="squeeze")
    if axis is None:
        gone = tuple(at for at, size in enumerate(value.shape) if size == 1)
    else:
        gone = canonical_axes(axis, value.ndim, "squeeze")
    if any(value.shape[at] != 1 for at in gone):
        raise ShapeError(f"squeeze: expected axes of size 1. Received: axis={axis} of {value.type}")
    return reshape(value, [size for at, size in enumerate(value.shape) if at not in gone])


def broadcast_to(x: TensorLike, shape: int | Sequence[int]) -> Value:
    """x repeated along new leading axes and axes of size 1."""
    sizes = static_shape(shape, "broadcast_to")
    if min(sizes, default=0) < 0:
        raise ShapeError(f"broadcast_to: expected sizes from 0 on. Received: shape={shape}")
    return broadcast(as_value(x, function="broadcast_to"), sizes)


def flip(x: TensorLike, axis: Axis = None) -> Value:
    """x in opposite order along axes: all of them, if none is given."""
    value = as_value(x, function="flip")
    axes = canonical_axes(axis, value.ndim, "flip")
    return value.graph.apply(Reverse(axes), value) if axes else value


# Joining, splitting, repeating.


def concatenate(xs: Sequence[TensorLike], axis: int = 0) -> Value:
    """Tensors one behind the other along an axis."""
    values = promoted(*_listed(xs, "concatenate"), function="concatenate")
    at = canonical_axis(axis, values[0].ndim, "concatenate")
    return values[0] if len(values) == 1 else values[0].graph.apply(Concatenate(at), *values)


def stack(x: Sequence[TensorLike], axis: int = 0) -> Value:
    """Tensors of one shape one behind the other along a new axis."""
    values = promoted(*_listed(x, "stack"), function="stack")
    if len({value.shape for value in values}) > 1:
        raise ShapeError(f"stack: expected tensors of one shape. Received: {', '.join(str(v.type) for v in values)}")
    at = canonical_axis(axis, values[0].ndim + 1, "stack")
    return concatenate([expand_dims(value, at) for value in values], at)


def _listed(xs: Sequence[TensorLike], function: str) -> list[TensorLike]:
    listed = list(xs)
    if not listed:
        raise ShapeError(f"{function}: expected at least one tensor. Received: {xs!r}")
    return listed


def split(x: TensorLike, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Value]:
    """x in parts along an axis: so many equal ones, or split before the given indices."""
    value = as_value(x, function="split")
    at = canonical_axis(axis, value.ndim, "split")
    length = value.shape[at]
    if isinstance(indices_or_sections, int):
        if indices_or_sections < 1 or length % indices_or_sections:
            raise ShapeError(
                f"split: expected a number of sections that divides {length}, the size of axis {at}. "
                f"Received: {indices_or_sections}"
            )
        part = length // indices_or_sections
        bounds = [part * count for count in range(indices_or_sections + 1)]
    else:
        inner = [min(max(index + length if index < 0 else index, 0), length) for index in indices_or_sections]
        bounds = [0, *inner, length]
    pairs = itertools.pairwise(bounds)
    return [slice_axis(value, at, start, max(start, stop)) for start, stop in pairs]


def slice_axis(x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Every `step`-th element of one axis, from start to before stop."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    starts, stops, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return x.graph.apply(Slice(tuple(starts), tuple(stops), tuple(steps)), x)


def pad(
    x: TensorLike,
    pad_width: int | Sequence[int] | Sequence[Sequence[int]],
    mode: str = "constant",
    constant_values: float | None = None,
) -> Value:
    """x with `constant_values` (0) before and behind: a count, (before, behind), or one such pair for each axis."""
    value = as_value(x, function="pad")
    if mode != "constant":
        raise ValueError(f'pad: expected mode="constant". Received: mode={mode!r}')
    try:
        # As Python's integers, which a size of 2**63 does not wrap.
        widths = np.broadcast_to(np.asarray(pad_width, dtype=object), (value.ndim, 2))
    except ValueError:
        raise ShapeError(
            f"pad: expected one pair of counts for each axis of {value.type}. Received: {pad_width}"
        ) from None
    low, high = tuple(map(int, widths[:, 0])), tuple(map(int, widths[:, 1]))
    op = Pad(low, high, (0,) * value.ndim)
    padded = value.graph.apply(op, value)
    if not constant_values:
        return padded
    inside = value.graph.apply(op, broadcast(value.graph.constant(True), value.shape))
    return value.graph.apply(Select(), inside, padded, as_values(padded, constant_values)[1])


def tile(x: TensorLike, repeats: int | Sequence[int]) -> Value:
    """x repeated as a whole along each axis, from the last one on."""
    value = as_value(x, function="tile")
    counts = static_shape(repeats, "tile")
    rank = max(value.ndim, len(counts))
    counts = (1,) * (rank - len(counts)) + counts
    sizes = (1,) * (rank - value.ndim) + value.shape
    pairs = list(zip(counts, sizes, strict=True))
    spaced = reshape(value, [part for _, size in pairs for part in (1, size)])
    spread = broadcast(spaced, tuple(part for pair in pairs for part in pair))
    return reshape(spread, [count * size for count, size in pairs])


def repeat(x: TensorLike, repeats: int, axis: int | None = None) -> Value:
    """x with each element repeated along an axis; of the flattened x, if none is given."""
    value = ravel(x) if axis is None else as_value(x, function="repeat")
    at = canonical_axis(0 if axis is None else axis, value.ndim, "repeat")
    if not isinstance(repeats, int) or repeats < 0:
        raise TypeError(f"repeat: expected one Python integer for all elements. Received: repeats={repeats!r}")
    spaced = expand_dims(value, at + 1)
    spread = broadcast(spaced, (*spaced.shape[: at + 1], repeats, *spaced.shape[at + 2 :]))
    return reshape(spread, (*value.shape[:at], value.shape[at] * repeats, *value.shape[at + 1 :]))


def one_hot(x: TensorLike, num_classes: int, axis: int = -1, dtype: AnyDType = F32) -> Value:
    """1 at the class that each integer of x names, else 0, along a new axis; all 0 for one outside of the classes."""
    value = as_value(x, function="one_hot")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer) or num_classes < 0:
        raise ValueError(f"one_hot: expected num_classes as a number of classes. Received: num_classes={num_classes!r}")
    if not value.dtype.is_integer:
        value = convert(value, I32)
    at = canonical_axis(axis, value.ndim + 1, "one_hot")
    index = expand_dims(value, at)
    wide = (*index.shape[:at], int(num_classes), *index.shape[at + 1 :])
    # Compared in i32 at least: classes above 255 do not exist in u8, but must not wrap around to others either.
    positions = value.graph.apply(Iota(wide, at, I32))
    hit = value.graph.apply(Equal(), *promoted(index, positions))
    return hit if as_dtype(dtype) == BOOL else convert(hit, as_dtype(dtype))
