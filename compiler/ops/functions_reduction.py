"""Functions of `keras.ops` that reduce axes: sums, means, extrema, norms, and where extrema are."""

from __future__ import annotations

import math

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Op, Value
from gradloom.compiler.ops.functions_elementwise import (
    absolute,
    equal,
    exp,
    isfinite,
    isnan,
    log,
    logical_or,
    power,
    sqrt,
    square,
    where,
)
from gradloom.compiler.ops.functions_shape import ravel, reshape
from gradloom.compiler.ops.markers import StopGradient
from gradloom.compiler.ops.movement import Iota
from gradloom.compiler.ops.operands import Axis, TensorLike, bools, canonical_axes, convert, floats, promoted
from gradloom.compiler.ops.reductions import Max, Min, Prod, Sum
from gradloom.compiler.types import BOOL, I32, U8


def _kept(value: Value, axes: tuple[int, ...], reduced: Value, keepdims: bool) -> Value:
    """The reduced tensor with size 1 along the axes of `value` that are gone, if asked for."""
    if not keepdims:
        return reduced
    return reshape(reduced, [1 if axis in axes else size for axis, size in enumerate(value.shape)])


def _reduce(op: type[Sum | Prod | Max | Min], value: Value, axis: Axis, keepdims: bool) -> Value:
    axes = canonical_axes(axis, value.ndim, op.name)
    reduced: Op = op(axes)
    return _kept(value, axes, value.graph.apply(reduced, value) if axes else value, keepdims)


def _count(value: Value, axis: Axis, function: str) -> int:
    """How many elements a reduction along `axis` combines."""
    return math.prod(value.shape[at] for at in canonical_axes(axis, value.ndim, function))


def _summable(x: TensorLike, function: str) -> Value:
    """x in a dtype that holds sums: bools and u8 as i32."""
    (value,) = promoted(x, function=function)
    return convert(value, I32) if value.dtype in (BOOL, U8) else value


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The sum along axes (all, if none is given); bools and uint8 are summed in int32."""
    return _reduce(Sum, _summable(x, "sum"), axis, keepdims)


def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The product along axes (all, if none is given); bools and uint8 are multiplied in int32."""
    return _reduce(Prod, _summable(x, "prod"), axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The mean along axes (all, if none is given), in floats; NaN of no elements."""
    (value,) = floats(x, function="mean")
    return sum(value, axis, keepdims) / float(_count(value, axis, "mean"))


def var(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The mean square of the distance from the mean, along axes."""
    (value,) = floats(x, function="var")
    return mean(square(value - mean(value, axis, keepdims=True)), axis, keepdims)


def std(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The square root of the variance, along axes."""
    return sqrt(var(x, axis, keepdims))


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False, initial: float | None = None) -> Value:
    """The largest element along axes (and `initial`); NaN if there is one."""
    (value,) = promoted(x, function="max")
    _some(value, axis, initial, "max")
    result = _reduce(Max, value, axis, keepdims)
    return result if initial is None else where(result < initial, initial, result)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False, initial: float | None = None) -> Value:
    """The smallest element along axes (and `initial`); NaN if there is one."""
    (value,) = promoted(x, function="min")
    _some(value, axis, initial, "min")
    result = _reduce(Min, value, axis, keepdims)
    return result if initial is None else where(result > initial, initial, result)


def _some(value: Value, axis: Axis, initial: float | None, function: str) -> None:
    if initial is None and _count(value, axis, function) == 0:
        raise ShapeError(f"{function}: expected at least one element along axis={axis}. Received: {value.type}")


def amax(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The largest element along axes: another name of `max`."""
    return max(x, axis, keepdims)


def amin(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """The smallest element along axes: another name of `min`."""
    return min(x, axis, keepdims)


def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """Whether any element along axes differs from 0."""
    (value,) = bools(x, function="any")
    return _reduce(Max, value, axis, keepdims)


def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """Whether all elements along axes differ from 0."""
    (value,) = bools(x, function="all")
    return _reduce(Min, value, axis, keepdims)


def count_nonzero(x: TensorLike, axis: Axis = None) -> Value:
    """How many elements along axes differ from 0, in int32."""
    return sum(bools(x, function="count_nonzero")[0], axis)


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the first of the largest elements is, in int32: along an axis, or in the flattened x.

    NaN counts as the largest.
    """
    return _position(x, axis, keepdims, Max, "argmax")


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Value:
    """Where the first of the smallest elements is, in int32: along an axis, or in the flattened x.

    NaN counts as the smallest.
    """
    return _position(x, axis, keepdims, Min, "argmin")


def _position(x: TensorLike, axis: int | None, keepdims: bool, op: type[Max | Min], function: str) -> Value:
    (whole,) = promoted(x, function=function)
    value = ravel(whole) if axis is None else whole
    (at,) = canonical_axes(0 if axis is None else axis, value.ndim, function)
    _some(value, at, None, function)
    extremum = _reduce(op, value, at, keepdims=True)
    hit = equal(value, extremum)
    if value.dtype.is_float:
        hit = logical_or(hit, isnan(value))
    last = value.shape[at] - 1
    positions = value.graph.apply(Iota(value.shape, at, I32))
    found = _reduce(Min, where(hit, positions, last), at, keepdims=keepdims and axis is not None)
    return reshape(found, (1,) * whole.ndim) if keepdims and axis is None else found


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Value:
    """log Σ eˣ along axes, without overflow; −inf where all elements are."""
    (value,) = floats(x, function="logsumexp")
    peak = value.graph.apply(StopGradient(), max(value, axis, keepdims=True))
    # An infinite peak would make inf − inf.
    peak = where(isfinite(peak), peak, 0.0)
    total = log(sum(exp(value - peak), axis, keepdims=True)) + peak
    axes = canonical_axes(axis, value.ndim, "logsumexp")
    return total if keepdims else reshape(total, [size for at, size in enumerate(value.shape) if at not in axes])


def norm(x: TensorLike, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> Value:
    """The norm of vectors along one axis: Euclidean (2), or of another order (1, inf, −inf, 0, p).

    Along two axes, and without `axis`, the Euclidean norm of all elements ("fro" for matrices); of no other order.
    """
    (value,) = floats(x, function="norm")
    axes = canonical_axes(axis, value.ndim, "norm")
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return sqrt(sum(square(value), axes, keepdims))
    if len(axes) != 1 or isinstance(ord, str):
        raise ValueError(f"norm: expected ord=None, or a number for one axis. Received: ord={ord!r}, axis={axis}")
    size = absolute(value)
    if ord == math.inf:
        return max(size, axes, keepdims)
    if ord == -math.inf:
        return min(size, axes, keepdims)
    if ord == 0:
        return sum(convert(bools(value)[0], value.dtype), axes, keepdims)
    if ord == 1:
        return sum(size, axes, keepdims)
    return power(sum(power(size, ord), axes, keepdims), 1.0 / ord)
