"""Functions of `keras.ops` for images: convolution, pooling, statistics of channels, normalization, upsampling.

Images are [batch, height, width, channels] (`data_format="channels_last"`). `padding` is "valid", "same" (as many
windows as strides fit; where the padding is odd, its larger half lies below and to the right), or explicit numbers,
((top, bottom), (left, right)).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.convolution import Conv2D
from gradloom.compiler.ops.functions_elementwise import maximum, rsqrt, square
from gradloom.compiler.ops.functions_gradient import stop_gradient
from gradloom.compiler.ops.functions_reduction import mean as mean_
from gradloom.compiler.ops.functions_shape import repeat, reshape
from gradloom.compiler.ops.movement import Slice
from gradloom.compiler.ops.operands import (
    Axis,
    TensorLike,
    as_value,
    canonical_axes,
    canonical_axis,
    convert,
    factors,
    floats,
    promoted,
)
from gradloom.compiler.ops.pooling import MaxPool, SumPool
from gradloom.compiler.ops.windows import Padding, Pair, check_attributes, images, same_padding
from gradloom.compiler.types import F32

Steps: TypeAlias = int | Sequence[int]
PaddingLike: TypeAlias = str | Sequence[Sequence[int]]

VALID: Padding = ((0, 0), (0, 0))

SAMPLE = 16
"""One in so many elements is looked at before moments are taken: more make these more exact, and cost more."""


def conv(
    inputs: TensorLike,
    kernel: TensorLike,
    strides: Steps = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: Steps = 1,
) -> Value:
    """The convolution of images with a kernel [height, width, channels / groups, filters].

    As many groups as the kernel's channels go into those of the images. Raises `ShapeError` for what does not fit.
    """
    x, weights = _factors(inputs, kernel, "conv")
    _check_format(data_format, "conv")
    groups, rest = divmod(x.shape[-1], max(weights.shape[2], 1)) if x.ndim == weights.ndim == 4 else (1, 0)
    if rest or groups < 1:
        raise ShapeError(
            f"conv: expected a kernel [height, width, channels, filters] whose channels divide the {x.shape[-1]} of "
            f"the images. Received: images {x.type}, kernel {weights.type}"
        )
    return _convolve(x, weights, strides, padding, dilation_rate, groups, "conv")


def depthwise_conv(
    inputs: TensorLike,
    kernel: TensorLike,
    strides: Steps = 1,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
    dilation_rate: Steps = 1,
) -> Value:
    """The convolution of each channel alone, with a kernel [height, width, channels, multiplier].

    The result has channels · multiplier channels, those that belong to one channel side by side.
    """
    x, weights = _factors(inputs, kernel, "depthwise_conv")
    _check_format(data_format, "depthwise_conv")
    if x.ndim != 4 or weights.ndim != 4 or weights.shape[2] != x.shape[3]:
        raise ShapeError(
            "depthwise_conv: expected images [batch, height, width, channels] and a kernel [height, width, channels, "
            f"multiplier]. Received: images {x.type}, kernel {weights.type}"
        )
    height, width, channels, multiplier = weights.shape
    by_channel = reshape(weights, (height, width, 1, channels * multiplier))
    return _convolve(x, by_channel, strides, padding, dilation_rate, channels, "depthwise_conv")


def _factors(inputs: TensorLike, kernel: TensorLike, function: str) -> list[Value]:
    """Images and kernel in one float dtype: f32 for integers and bools."""
    return [
        value if value.dtype.is_float else convert(value, F32) for value in factors(inputs, kernel, function=function)
    ]


def _convolve(
    x: Value, kernel: Value, strides: Steps, padding: PaddingLike, dilation: Steps, groups: int, function: str
) -> Value:
    steps, spread = _pair(strides, "strides", function), _pair(dilation, "dilation_rate", function)
    window = (kernel.shape[0], kernel.shape[1]) if kernel.ndim == 4 else (1, 1)
    around = _padding(padding, x, window, steps, spread, function)
    return x.graph.apply(Conv2D(steps, around, spread, groups), x, kernel)


def max_pool(
    inputs: TensorLike,
    pool_size: Steps,
    strides: Steps | None = None,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
) -> Value:
    """The maximum of each window; windows lie side by side unless `strides` says otherwise. Padding never wins."""
    (x,) = promoted(inputs, function="max_pool")
    window, steps, around = _pooling(x, pool_size, strides, padding, data_format, "max_pool")
    return x.graph.apply(MaxPool(window, steps, around), x)


def average_pool(
    inputs: TensorLike,
    pool_size: Steps,
    strides: Steps | None = None,
    padding: PaddingLike = "valid",
    data_format: str | None = None,
) -> Value:
    """The mean of each window, over its elements that are no padding; windows lie side by side by default."""
    (x,) = floats(inputs, function="average_pool")
    window, steps, around = _pooling(x, pool_size, strides, padding, data_format, "average_pool")
    total = x.graph.apply(SumPool(window, steps, around), x)
    if around == VALID:
        return total / float(prod(window))
    rows, columns = (
        _real_elements(x.shape[1 + axis], total.shape[1 + axis], window[axis], steps[axis], around[axis][0])
        for axis in range(2)
    )
    graph, dtype = x.graph, x.dtype
    return total / (graph.constant(rows[:, None, None], dtype) * graph.constant(columns[:, None], dtype))


def _real_elements(size: int, count: int, window: int, stride: int, before: int) -> np.ndarray:
    """For each of `count` windows along an axis, how many of its elements are no padding."""
    start = np.arange(count) * stride - before
    return np.asarray(np.minimum(start + window, size) - np.maximum(start, 0))


def _pooling(
    x: Value, pool_size: Steps, strides: Steps | None, padding: PaddingLike, data_format: str | None, function: str
) -> tuple[Pair, Pair, Padding]:
    """Window, strides and padding of a pooling op."""
    _check_format(data_format, function)
    window = _pair(pool_size, "pool_size", function)
    steps = window if strides is None else _pair(strides, "strides", function)
    return window, steps, _padding(padding, x, window, steps, (1, 1), function)


def _padding(padding: PaddingLike, x: Value, window: Pair, steps: Pair, dilation: Pair, function: str) -> Padding:
    """Explicit numbers for what `padding` says about the images x."""
    check_attributes(steps, VALID, dilation)
    if padding == "valid":
        return VALID
    if padding == "same":
        _, height, width, _ = images(x.type).shape
        return same_padding((height, width), window, steps, dilation)
    try:
        (top, bottom), (left, right) = ((int(count) for count in pair) for pair in padding)
    except (TypeError, ValueError):
        raise ValueError(
            f'{function}: expected padding="valid", "same" or ((top, bottom), (left, right)). '
            f"Received: padding={padding!r}"
        ) from None
    return (top, bottom), (left, right)


def _pair(steps: Steps, name: str, function: str) -> Pair:
    """One number for height and width, or one for each."""
    try:
        pair = [steps, steps] if isinstance(steps, int | np.integer) else list(steps)
        if any(isinstance(step, bool) or not isinstance(step, int | np.integer) for step in pair):
            raise TypeError
        vertical, horizontal = pair
    except (TypeError, ValueError):
        raise ValueError(f"{function}: expected {name} as one integer or two. Received: {name}={steps!r}") from None
    return int(vertical), int(horizontal)


def _check_format(data_format: str | None, function: str) -> None:
    if data_format not in (None, "channels_last"):
        raise ValueError(f'{function}: expected data_format="channels_last". Received: data_format={data_format!r}')


# Statistics of channels.


def moments(x: TensorLike, axes: Axis, keepdims: bool = False) -> tuple[Value, Value]:
    """Mean and variance along axes, in one pass over the data after a look at a sample of it.

    Both are taken of the distances from the mean of a sample, so that little is lost where the mean is large beside
    the standard deviation (Chan, Golub, LeVeque: "Algorithms for computing the sample variance", 1983). Of a sample
    with a share s of the elements, whatever they are, the mean lies at most √((1 − s) / s) standard deviations from
    that of all: the variance loses at most a factor of 1 / s, here 16, in accuracy. Where an element is infinite, the
    variance is NaN, and the mean infinite or NaN.
    """
    (value,) = floats(x, function="moments")
    reduced = canonical_axes(axes, value.ndim, "moments")
    if any(value.shape[axis] == 0 for axis in reduced):
        raise ShapeError(f"moments: expected at least one element along axes={axes}. Received: {value.type}")
    origin = stop_gradient(_sample_mean(value, reduced))
    distance = value - origin
    shift = mean_(distance, reduced, keepdims=True)
    mean = origin + shift
    variance = maximum(mean_(square(distance), reduced, keepdims=True) - square(shift), 0.0)
    if keepdims:
        return mean, variance
    kept = [size for axis, size in enumerate(value.shape) if axis not in reduced]
    return reshape(mean, kept), reshape(variance, kept)


def _sample_mean(x: Value, axes: Sequence[int]) -> Value:
    """The mean of the first elements along axes, a sixteenth of them and hardly more; the axes are kept with size 1.

    Exact where all elements are equal, and no sum of large elements overflows, since their distances are summed.
    """
    thinning = SAMPLE
    ends = list(x.shape)
    for axis in axes:
        ends[axis] = -(-x.shape[axis] // thinning)
        thinning = thinning * ends[axis] // x.shape[axis]
    first = _first(x, [1 if axis in axes else size for axis, size in enumerate(x.shape)])
    if tuple(ends) == first.shape:
        return first
    mean = mean_(_first(x, ends) - first, tuple(axes))
    return reshape(reshape(first, mean.shape) + mean, first.shape)


def _first(x: Value, counts: Sequence[int]) -> Value:
    """The first elements along each axis."""
    return x.graph.apply(Slice((0,) * x.ndim, tuple(counts), (1,) * x.ndim), x)


def batch_normalization(
    x: TensorLike,
    mean: TensorLike,
    variance: TensorLike,
    axis: int,
    offset: TensorLike | None = None,
    scale: TensorLike | None = None,
    epsilon: float = 1e-3,
) -> Value:
    """(x − mean) / √(variance + epsilon) · scale + offset, all but x being vectors along `axis`."""
    given = [operand for operand in (offset, scale) if operand is not None]
    value, *vectors = floats(x, mean, variance, *given, function="batch_normalization")
    at = canonical_axis(axis, value.ndim, "batch_normalization")
    if any(vector.shape != (value.shape[at],) for vector in vectors):
        raise ShapeError(
            f"batch_normalization: expected vectors of {value.shape[at]} elements, the size of axis {axis}. "
            f"Received: {', '.join(str(vector.type) for vector in vectors)} for {value.type}"
        )
    center, spread, *rest = (reshape(vector, (-1,) + (1,) * (value.ndim - at - 1)) for vector in vectors)
    factor = rsqrt(spread + epsilon)
    if scale is not None:
        factor = factor * rest[-1]
    normal = (value - center) * factor
    return normal if offset is None else normal + rest[0]


def upsample(x: TensorLike, size: Steps) -> Value:
    """Images with each pixel repeated `size` times vertically and horizontally."""
    value = as_value(x, function="upsample")
    images(value.type)
    vertical, horizontal = _pair(size, "size", "upsample")
    return repeat(repeat(value, vertical, axis=1), horizontal, axis=2)
