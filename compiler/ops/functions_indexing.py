"""Functions of `keras.ops` that take elements by index, and what `value[key]` means."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import broadcast_shapes
from gradloom.compiler.ops.functions_elementwise import where
from gradloom.compiler.ops.functions_shape import flip, moveaxis, ravel, reshape, slice_axis
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.movement import Iota, Slice
from gradloom.compiler.ops.operands import Symbolic, TensorLike, as_value, canonical_axis, convert, static_shape
from gradloom.compiler.types import I32, I64, OPEN


def slice(inputs: TensorLike, start_indices: Sequence[int], shape: Sequence[int]) -> Value:
    """A block of `shape` of the tensor from `start_indices` (Python integers) on; size −1 means up to the end."""
    value = as_value(inputs, function="slice")
    start, sizes = static_shape(start_indices, "slice"), static_shape(shape, "slice")
    if not len(start) == len(sizes) == value.ndim:
        raise ShapeError(f"slice: expected {value.ndim} starts and sizes. Received: {start_indices} and {shape}")
    stop = tuple(whole if size == -1 else at + size for at, size, whole in zip(start, sizes, value.shape, strict=True))
    return value.graph.apply(Slice(start, stop, (1,) * value.ndim), value)


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Value:
    """Elements of x along an axis (of the flattened x, if none is given) by integers of any shape.

    Negative indices count from the end. One that is still outside takes the nearest element, since a running program
    cannot raise.
    """
    anchor = x if isinstance(x, Value) else indices if isinstance(indices, Value) else None
    value = as_value(x, anchor, "take")
    if axis is None:
        value, axis = ravel(value), 0
    at = canonical_axis(axis, value.ndim, "take")
    if isinstance(indices, int | np.integer) and not isinstance(indices, bool):
        return _element(value, at, int(indices))
    index = as_value(indices, value, "take")
    if not index.dtype.is_integer:
        raise DTypeError(f"take: expected integers as indices. Received: {index.type}")
    length = value.shape[at]
    if length != OPEN and index.dtype.kind == "int":
        index = index if length < 2**31 else convert(index, I64)
        index = where(index < 0, index + length, index)
    rows = value.graph.apply(Gather(), moveaxis(value, at, 0) if at else value, index)
    # The indices' axes stand in front now, and belong where the axis was.
    return moveaxis(rows, list(range(index.ndim)), list(range(at, at + index.ndim))) if at else rows


def _known_length(value: Value, axis: int) -> int:
    if value.shape[axis] == OPEN:
        raise ShapeError(f"Expected a tensor of known shape (a data set is read by rows). Received: {value.type}")
    return value.shape[axis]


def _element(value: Value, axis: int, index: int) -> Value:
    """The element at a Python integer along an axis, which vanishes."""
    length = _known_length(value, axis)
    if not -length <= index < length:
        raise ShapeError(f"Expected an index from {-length} to {length - 1} along axis {axis}. Received: {index}")
    index %= length
    rest = value.shape[:axis] + value.shape[axis + 1 :]
    return reshape(slice_axis(value, axis, index, index + 1), rest)


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Value:
    """The elements of x whose positions along `axis` are `indices`, a tensor of x's rank; sizes else broadcast."""
    anchor = x if isinstance(x, Value) else indices if isinstance(indices, Value) else None
    value = as_value(x, anchor, "take_along_axis")
    index = as_value(indices, value, "take_along_axis")
    if axis is None:
        value, axis = ravel(value), 0
    at = canonical_axis(axis, value.ndim, "take_along_axis")
    if not index.dtype.is_integer or index.ndim != value.ndim:
        raise ShapeError(f"take_along_axis: expected integers of rank {value.ndim}. Received: {index.type}")
    length, dtype = value.shape[at], I32 if value.type.size < 2**31 else I64
    index = convert(index, dtype)
    # Clamped here: an index outside must not reach into another row of the flattened tensor.
    index = where(index < 0, index + length, index)
    index = where(index < 0, 0, where(index >= length, length - 1, index))
    sizes = [index.shape[axis] if axis == at else size for axis, size in enumerate(value.shape)]
    shape = broadcast_shapes(tuple(sizes), index.shape)
    offset = index * prod(value.shape[at + 1 :])
    for other, size in enumerate(value.shape):
        if other != at and size != 1:
            offset = offset + value.graph.apply(Iota(shape, other, dtype)) * prod(value.shape[other + 1 :])
    return value.graph.apply(Gather(), ravel(value), offset)


def getitem(x: Value, key: Any) -> Value:
    """`x[key]` as in NumPy, for integers, slices, None, Ellipsis, and one tensor of integers.

    Raises `ShapeError` for an integer outside, and `TypeError` for another key, as for masks of bools, whose result has
    no static shape.
    """
    keys = _expanded(x, key if isinstance(key, tuple) else (key,))
    axis = 0
    for item in keys:
        if item is None:
            x = reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))
            axis += 1
        elif isinstance(item, _SLICE):
            x = _sliced(x, axis, item)
            axis += 1
        elif isinstance(item, int | np.integer):
            x = _element(x, axis, int(item))
        else:
            rank = x.ndim
            x = take(x, item, axis)
            axis += x.ndim - rank + 1
    return x


_SLICE = type(np.s_[:])


def _expanded(x: Value, keys: tuple[Any, ...]) -> list[Any]:
    """The keys with Ellipsis written out as full slices; refuses what is no index."""
    for item in keys:
        is_index = item is None or item is Ellipsis or isinstance(item, _SLICE | int | np.integer)
        dtype = item.dtype if isinstance(item, Value) else getattr(item, "dtype", np.dtype("int64"))
        is_tensor = isinstance(item, Value | np.ndarray | list | Symbolic) and "bool" not in str(dtype)
        if isinstance(item, bool | np.bool_) or not (is_index or is_tensor):
            raise TypeError(
                "Expected integers, slices, None, Ellipsis or a tensor of integers as index (for a mask of bools use "
                f"gl.ops.where). Received: {item!r}"
            )
    tensors = [place for place, item in enumerate(keys) if isinstance(item, Value | np.ndarray | list | Symbolic)]
    if len(tensors) > 1 or (tensors and any(isinstance(item, int | np.integer) for item in keys)):
        raise TypeError(f"Expected one tensor of integers, and no integer beside it, as index. Received: {keys!r}")
    used = len([item for item in keys if item is not None and item is not Ellipsis])
    places = [place for place, item in enumerate(keys) if item is Ellipsis]
    if used > x.ndim or len(places) > 1:
        raise ShapeError(f"Expected at most {x.ndim} indices and one Ellipsis for {x.type}. Received: {keys!r}")
    if not places:
        return list(keys)
    (place,) = places
    return [*keys[:place], *[np.s_[:]] * (x.ndim - used), *keys[place + 1 :]]


def _sliced(x: Value, axis: int, key: Any) -> Value:
    """One axis by a Python slice; a negative step takes the flipped axis."""
    length = _known_length(x, axis)
    start, stop, step = key.indices(length)
    if step > 0:
        return slice_axis(x, axis, start, max(start, stop), step)
    # The same elements in the flipped axis, where they come in ascending order.
    count = max(0, -(-(start - stop) // -step))
    first = length - 1 - start if count else 0
    return slice_axis(flip(x, axis), axis, first, first + (count - 1) * -step + 1 if count else first, -step)
