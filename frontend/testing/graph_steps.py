"""The steps that random graphs are made of: for each op of the IR, how it is applied to values that are there already.

Operands are kept where an op is defined and not too steep, so that rounding is not blown up on the way; what they are
follows from small numbers, so that a graph shrinks step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gradloom.compiler import ops
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.indexing import Gather, ScatterAdd
from gradloom.compiler.ops.movement import Iota
from gradloom.compiler.ops.pooling import MaxPool, MaxPoolGrad, MaxPoolSelect, SumPool, SumPoolGrad
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.compiler.ops.windows import Padding, Pair
from gradloom.compiler.ops.winograd import TAPS, TILES, WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.types import BF16, BOOL, I32, I64, U8
from gradloom.testing.graph_pool import (
    MOST_ELEMENTS,
    MOST_FACTORS,
    Pool,
    broadcast_size,
    converted,
    with_axis,
)

Step = Callable[[Pool], Value]


# Elementwise: what an op is applied to, kept where the op has a value and is not too steep.


def _unary(function: Callable[[Value], Value]) -> Step:
    return lambda pool: function(pool.number())


def _of_float(function: Callable[[Value], Value]) -> Step:
    return lambda pool: function(pool.floating())


def _binary(function: Callable[[Value, Value], Value]) -> Step:
    def step(pool: Pool) -> Value:
        x = pool.number()
        return function(x, pool.beside(x))

    return step


def _logic(function: Callable[[Value, Value], Value]) -> Step:
    def step(pool: Pool) -> Value:
        x = pool.boolean()
        return function(x, pool.beside(x))

    return step


def _away_from_zero(x: Value) -> Value:
    """A divisor that depends on x; an integer may be 0, by which division is defined."""
    return ops.absolute(x) + 0.75 if x.dtype.is_float else x


def _multiply(x: Value, y: Value) -> Value:
    return ops.multiply(ops.tanh(x) if x.dtype.is_float else x, y)


def _divide(pool: Pool) -> Value:
    x = pool.floating()
    return ops.divide(x, _away_from_zero(pool.beside(x)))


def _power(pool: Pool) -> Value:
    x = pool.floating()
    exponent = pool.one_of([1.5, -0.5, 2.0, -1.0, None])
    return ops.power(ops.absolute(x) + 0.5, ops.tanh(pool.beside(x)) if exponent is None else exponent)


def _convert(pool: Pool) -> Value:
    return converted(pool.any(), pool.one_of([*pool.floats, I32, BOOL, I64, U8]))


def _select(pool: Pool) -> Value:
    condition = pool.boolean()
    x = pool.value(
        lambda x: x.dtype != BF16 and broadcast_size(condition.shape, x.shape) <= MOST_ELEMENTS, lambda: condition
    )
    return ops.where(condition, x, pool.value(lambda y: y.type == x.type, lambda: x))


@ops.custom_gradient
def _cubed(x: Value) -> tuple[Value, Callable[[Value], Value]]:
    return x * x * x, lambda upstream: upstream * x


# Movement.


def _reshape(pool: Pool) -> Value:
    x = with_axis(pool.any())
    return ops.reshape(x, pool.one_of([(-1,), (1, *x.shape), (*x.shape, 1), (x.shape[0], -1), (-1, x.shape[-1])]))


def _transpose(pool: Pool) -> Value:
    x = pool.any()
    axes = list(range(x.ndim))
    return ops.transpose(x, [axes.pop(pool.between(0, len(axes) - 1)) for _ in range(x.ndim)])


def _broadcast_to(pool: Pool) -> Value:
    x = pool.any()
    shape = tuple(2 if size == 1 and pool.between(0, 1) else size for size in x.shape)
    return ops.broadcast_to(x, (*[pool.between(1, 3)] * pool.between(0, 1), *shape))


def _slice(pool: Pool) -> Value:
    x = with_axis(pool.any())
    axis = pool.between(0, x.ndim - 1)
    start = pool.between(0, x.shape[axis] - 1)
    return x[(slice(None),) * axis + (slice(start, pool.between(start + 1, x.shape[axis]), pool.between(1, 3)),)]


def _pad(pool: Pool) -> Value:
    x = with_axis(pool.any())
    axis = pool.between(0, x.ndim - 1)
    width = pool.between(0, 2), pool.between(0, 2)
    return ops.pad(x, [width if n == axis else (0, 0) for n in range(x.ndim)])


def _concatenate(pool: Pool) -> Value:
    x = with_axis(pool.any())
    axis = pool.between(0, x.ndim - 1)
    y = pool.value(
        lambda y: (
            y.dtype == x.dtype
            and y.ndim == x.ndim
            and all(a == b for n, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if n != axis)
        ),
        lambda: x,
    )
    return ops.concatenate([x, y], axis=axis)


def _reverse(pool: Pool) -> Value:
    x = with_axis(pool.any())
    return ops.flip(x, pool.between(0, x.ndim - 1))


def _iota(pool: Pool) -> Value:
    x = with_axis(pool.any())
    dtype = pool.one_of([I32, *(dtype.arithmetic for dtype in pool.floats), I64, U8])
    return x.graph.apply(Iota(x.shape, pool.between(0, x.ndim - 1), dtype))


def _rows(pool: Pool, x: Value) -> Value:
    """Numbers of rows of x, or beside them, where the nearest row is meant."""
    numbers = np.array([pool.between(-1, x.shape[0]) for _ in range(pool.between(1, 4))], np.int32)
    return pool.value(lambda value: value.dtype.is_integer and value.type.size <= 16, lambda: x.graph.constant(numbers))


def _gather(pool: Pool) -> Value:
    x = with_axis(pool.any())
    return x.graph.apply(Gather(), x, _rows(pool, x))


def _scatter_add(pool: Pool) -> Value:
    x = with_axis(pool.number())
    size = pool.between(1, 5)
    spread = np.arange(x.shape[0]) * 3 % (size + 1)
    rows = pool.value(
        lambda value: value.dtype.is_integer and value.ndim > 0 and value.shape == x.shape[: value.ndim],
        lambda: x.graph.constant(spread.astype(np.int64)),
    )
    return x.graph.apply(ScatterAdd(size), x, rows)


# Reductions and contractions.


def _axes(pool: Pool, x: Value) -> tuple[int, ...]:
    first = pool.between(0, x.ndim - 1)
    return tuple(range(first, pool.between(first, x.ndim - 1) + 1))


def _reduction(function: Callable[..., Value], value: Callable[[Pool], Value] = Pool.number) -> Step:
    def step(pool: Pool) -> Value:
        x = with_axis(value(pool))
        return function(x, axis=_axes(pool, x), keepdims=bool(pool.between(0, 1)))

    return step


def _ordered(pool: Pool) -> Value:
    """What has a maximum: numbers and bools."""
    return pool.value(lambda value: value.dtype != BF16, pool.number)


def _near_one(pool: Pool) -> Value:
    """Factors whose product neither vanishes nor grows."""
    x = pool.number()
    return 1.0 + ops.tanh(x) / float(max(x.type.size, 1)) if x.dtype.is_float else x


def _matmul(pool: Pool) -> Value:
    """x times a matrix of its shape, or of the shape of its transpose."""
    x = pool.value(
        lambda x: x.dtype.is_float and x.type.size <= MOST_FACTORS, lambda: ops.mean(pool.floating(), keepdims=True)
    )
    x = x if x.ndim > 1 else ops.reshape(x, (1, -1))
    y = pool.value(lambda y: y.type == x.type, lambda: x)
    turned = ops.swapaxes(x, -1, -2)
    product = (
        lambda: ops.matmul(x, ops.swapaxes(y, -1, -2)),
        lambda: ops.matmul(turned, y),
        lambda: ops.swapaxes(ops.matmul(y, turned), -1, -2),
    )[pool.between(0, 2)]()
    return product * (1.0 / max(x.shape[-2:]))


def _attributes(pool: Pool, window: Pair) -> tuple[Pair, Padding]:
    """Strides, and padding that is less than the window."""
    strides = pool.one_of([(1, 1), (2, 1), (1, 2)])
    height, width = window
    above, left = pool.one_of([(0, 0), (1, 0), (1, 1)])
    return strides, ((min(above, height - 1), 0), (min(left, width - 1), min(1, width - 1)))


def _conv2d(pool: Pool) -> Value:
    x = pool.images(pool.floating(stored=True))
    channels = x.shape[3]
    groups = channels if channels <= 5 and pool.between(0, 1) else 1
    window = pool.window(x)
    shape = (*window, channels // groups, groups * pool.between(1, 3))
    kernel = pool.constant(x, shape) * (1.0 / math.prod(shape[:3]))
    # The taps of a window may stand apart where it still fits then.
    apart = pool.between(0, 1) == 1 and all(
        2 * size - 1 <= side for size, side in zip(window, x.shape[1:3], strict=True)
    )
    dilation = (2, 2) if apart else (1, 1)
    return x.graph.apply(Conv2D(*_attributes(pool, window), dilation, groups), x, converted(kernel, x.dtype))


def _conv2d_input_grad(pool: Pool) -> Value:
    x = pool.images(pool.floating(stored=True), 256)
    window = pool.between(1, 3), pool.between(1, 3)
    strides, padding = _attributes(pool, window)
    if min(x.shape[1:3]) == 1:
        # All that a window reaches may be padding, and an image of no pixel is of no use to other steps.
        padding = ((0, 0), (0, 0))
    height, width = ((x.shape[1 + n] - 1) * strides[n] + window[n] - sum(padding[n]) for n in range(2))
    kernel = pool.constant(x, (*window, pool.between(1, 3), x.shape[3])) * (1.0 / (math.prod(window) * x.shape[3]))
    return x.graph.apply(Conv2DInputGrad((height, width), strides, padding), x, converted(kernel, x.dtype))


def _conv2d_kernel_grad(pool: Pool) -> Value:
    x = pool.images(pool.floating(stored=True), 256)
    window = pool.window(x)
    result = x[:, : x.shape[1] - window[0] + 1, : x.shape[2] - window[1] + 1]
    return x.graph.apply(Conv2DKernelGrad(window), x, result) * (1.0 / math.prod(result.shape[:3]))


def _tile(pool: Pool) -> Value:
    """Images of whole tiles that depend on some value."""
    x = ops.reshape(pool.floating(), (-1,))[:8]
    return ops.reshape(x, (1, 1, 1, -1)) * pool.constant(x, (1, 4, 4, 1))


def _winograd_conv2d(pool: Pool) -> Value:
    x, tile = _tile(pool), pool.one_of(TILES)
    kernel = pool.constant(x, (TAPS, TAPS, x.shape[3], pool.between(1, 3))) * (1.0 / x.shape[3])
    transformed = x.graph.apply(WinogradKernel(tile), kernel)
    return ops.stop_gradient(x.graph.apply(WinogradConv2D(tile, ((1, 1), (1, 1))), x, transformed))


def _winograd_conv2d_kernel_grad(pool: Pool) -> Value:
    x = _tile(pool)
    op = WinogradConv2DKernelGrad(pool.one_of(TILES), ((1, 1), (1, 1)))
    return ops.stop_gradient(x.graph.apply(op, x, ops.tanh(x)) * (1.0 / 16))


# Pooling.


def _pooling(pool: Pool, window: Pair) -> tuple[Pair, Pair, Padding]:
    """Attributes of pooling."""
    return window, *_attributes(pool, window)


def _max_pool(pool: Pool) -> Value:
    x = pool.images(pool.number())
    return x.graph.apply(MaxPool(*_pooling(pool, pool.window(x))), x)


def _max_pool_grad(pool: Pool) -> Value:
    x = pool.images(pool.floating())
    attributes = _pooling(pool, pool.window(x))
    return x.graph.apply(MaxPoolGrad(*attributes), x, x.graph.apply(SumPool(*attributes), x))


def _max_pool_select(pool: Pool) -> Value:
    x = pool.images(pool.floating())
    return x.graph.apply(MaxPoolSelect(*_pooling(pool, pool.window(x))), x, ops.tanh(x))


def _sum_pool(pool: Pool) -> Value:
    x = pool.images(pool.number())
    return x.graph.apply(SumPool(*_pooling(pool, pool.window(x))), x)


def _sum_pool_grad(pool: Pool) -> Value:
    x = pool.images(pool.number(), 256)
    window = pool.between(1, 3), pool.between(1, 3)
    size = x.shape[1] + window[0] - 1, x.shape[2] + window[1] - 1
    return x.graph.apply(SumPoolGrad(size, window), x)


def _random_uniform(pool: Pool) -> Value:
    counter = converted(ops.max(pool.integer()), I64)
    shape = pool.any().shape
    return counter.graph.apply(RandomUniform(shape, pool.between(0, 3)), counter)


STEPS: dict[str, Step] = {
    "add": _binary(ops.add),
    "subtract": _binary(ops.subtract),
    "multiply": _binary(_multiply),
    "divide": _divide,
    "floor_divide": _binary(lambda x, y: ops.floor_divide(x, _away_from_zero(y))),
    "remainder": _binary(lambda x, y: ops.mod(x, _away_from_zero(y))),
    "power": _power,
    "maximum": _binary(ops.maximum),
    "minimum": _binary(ops.minimum),
    "negative": _unary(ops.negative),
    "absolute": _unary(ops.absolute),
    "sign": _unary(ops.sign),
    "floor": _of_float(ops.floor),
    "ceil": _of_float(ops.ceil),
    "round": _of_float(ops.round),
    "exp": _of_float(lambda x: ops.exp(ops.minimum(x, 2.0))),
    "expm1": _of_float(lambda x: ops.expm1(ops.minimum(x, 2.0))),
    "log": _of_float(lambda x: ops.log(ops.absolute(x) + 0.5)),
    "log1p": _of_float(lambda x: ops.log1p(ops.absolute(x))),
    "sqrt": _of_float(lambda x: ops.sqrt(ops.absolute(x) + 0.25)),
    "tanh": _of_float(ops.tanh),
    "sigmoid": _of_float(ops.sigmoid),
    "erf": _of_float(ops.erf),
    "convert": _convert,
    "equal": _binary(ops.equal),
    "not_equal": _binary(ops.not_equal),
    "less": _binary(ops.less),
    "less_equal": _binary(ops.less_equal),
    "greater": _binary(ops.greater),
    "greater_equal": _binary(ops.greater_equal),
    "logical_and": _logic(ops.logical_and),
    "logical_or": _logic(ops.logical_or),
    "logical_xor": _logic(ops.logical_xor),
    "logical_not": lambda pool: ops.logical_not(pool.boolean()),
    "select": _select,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "reverse": _reverse,
    "iota": _iota,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "stop_gradient": _of_float(ops.stop_gradient),
    "custom_gradient": _of_float(lambda x: _cubed(ops.tanh(x))),
    "sum": _reduction(ops.sum),
    "mean": _reduction(ops.mean, Pool.floating),
    "prod": _reduction(ops.prod, _near_one),
    "max": _reduction(ops.max, _ordered),
    "min": _reduction(ops.min, _ordered),
    "softmax": _of_float(lambda x: ops.softmax(with_axis(x))),
    "log_softmax": _of_float(lambda x: ops.log_softmax(with_axis(x))),
    "matmul": _matmul,
    "conv2d": _conv2d,
    "conv2d_input_grad": _conv2d_input_grad,
    "conv2d_kernel_grad": _conv2d_kernel_grad,
    "winograd_conv2d": _winograd_conv2d,
    "winograd_conv2d_kernel_grad": _winograd_conv2d_kernel_grad,
    "max_pool": _max_pool,
    "max_pool_grad": _max_pool_grad,
    "max_pool_select": _max_pool_select,
    "sum_pool": _sum_pool,
    "sum_pool_grad": _sum_pool_grad,
    "random_uniform": _random_uniform,
}
"""A step for each op, under the op's name, and for some functions that are fused in ways of their own."""
