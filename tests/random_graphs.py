"""Random typed graphs: a hypothesis strategy over all ops, kept where results are well conditioned.

All steps of a graph come from one flat table, so that no op is rarer than others because its kind has many.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.ops.pooling import MaxPoolSelect
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.compiler.types import F32, F64, I32, I64, TensorType

Draw = Callable[[st.SearchStrategy[Any]], Any]

UNARY: dict[str, Callable[[Value], Value]] = {
    "negative": ops.negative,
    "absolute": ops.absolute,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "exp": lambda x: ops.exp(ops.clip(x, -3.0, 3.0)),
    "expm1": lambda x: ops.expm1(ops.minimum(x, 2.0)),
    "log": lambda x: ops.log(ops.absolute(x) + 1.5),
    "log1p": lambda x: ops.log1p(ops.absolute(x)),
    "sqrt": lambda x: ops.sqrt(ops.absolute(x) + 0.5),
    "erf": ops.erf,
    "relu": ops.relu,
    "leaky_relu": ops.leaky_relu,
    "square": lambda x: ops.square(ops.tanh(x)),
    "softmax": lambda x: ops.softmax(_with_axis(x)),
    "log_softmax": lambda x: ops.log_softmax(_with_axis(x)),
    "logsumexp": lambda x: ops.logsumexp(_with_axis(x), axis=-1),
    "floor": lambda x: x + ops.floor(_near(x, 1.5)),
    "ceil": lambda x: x + ops.ceil(_near(x, -0.5)),
    "round": lambda x: x * ops.round(_near(x, 1.8)),
    "power": lambda x: ops.power(ops.absolute(x) + 0.5, 1.5),
    "custom_gradient": lambda x: _cubed(ops.tanh(x)),
}

BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": lambda x, y: ops.multiply(ops.tanh(x), y),
    "divide": lambda x, y: ops.divide(x, ops.absolute(y) + 1.5),
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "where": lambda x, y: ops.where(ops.greater(ops.tanh(x), 0.3), x, y),
    "logaddexp": ops.logaddexp,
}

REDUCTIONS: dict[str, Callable[..., Value]] = {
    "sum": ops.sum,
    "mean": ops.mean,
    "max": ops.max,
    "min": ops.min,
    "var": ops.var,
    "prod": lambda x, **axes: ops.prod(1.0 + ops.tanh(x) / float(max(x.type.size, 1)), **axes),
}

MOVEMENTS = ("reshape", "transpose", "flip", "slice", "pad", "concat", "broadcast", "repeat")


def _with_axis(x: Value) -> Value:
    return x if x.ndim else ops.reshape(x, (1,))


def _near(x: Value, number: float) -> Value:
    """What varies with x by less than 1/8 around `number`, which lies so far from where rounding jumps."""
    return ops.stop_gradient(ops.tanh(x)) * 0.125 + number


@ops.custom_gradient
def _cubed(x: Value) -> tuple[Value, Callable[[Value], Value]]:
    return x * x * x, lambda upstream: upstream * x


def _axes(draw: Draw, rank: int) -> tuple[int, ...]:
    return tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))


def _movement(draw: Draw, x: Value, kind: str) -> Value:
    rank = x.ndim
    if kind == "broadcast" or not rank:
        return ops.broadcast_to(x, (draw(st.integers(1, 3)), *x.shape))
    axis = draw(st.integers(0, rank - 1))
    if kind == "reshape":
        return ops.reshape(x, draw(st.sampled_from([(-1,), (1, *x.shape), (*x.shape, 1), (x.shape[0], -1)])))
    if kind == "transpose":
        return ops.transpose(x, draw(st.permutations(range(rank))))
    if kind == "flip":
        return ops.flip(x, axis)
    if kind == "slice":
        size = x.shape[axis]
        start = draw(st.integers(0, size - 1))
        keys = [slice(None)] * rank
        keys[axis] = slice(start, draw(st.integers(start + 1, size)), draw(st.integers(1, 2)))
        return x[tuple(keys)]
    if kind == "pad":
        return ops.pad(
            x, [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) if n == axis else (0, 0) for n in range(rank)]
        )
    if kind == "repeat":
        return ops.repeat(x, 2, axis=axis)
    return ops.concatenate([x, ops.tanh(x)], axis=axis)


def _matmul(draw: Draw, x: Value) -> Value:
    """x times a matrix that is made from x itself, or from its transpose, so that the inner sizes fit."""
    if x.type.size > 4000:
        return x + 1.0
    if x.ndim < 2:
        x = ops.reshape(x, (1, -1))
    other = ops.swapaxes(x, -1, -2)
    if draw(st.booleans()):
        other = ops.tanh(other)
    product = ops.matmul(x, other) if draw(st.booleans()) else ops.matmul(other, x)
    return product / float(max(x.shape[-1], 1))


def _gather(draw: Draw, x: Value) -> Value:
    x = _with_axis(x)
    rows = draw(st.lists(st.integers(0, x.shape[0] - 1), min_size=1, max_size=5))
    return ops.take(x, np.array(rows, np.int32), axis=0)


def _argmax(draw: Draw, x: Value) -> Value:
    x = _with_axis(x)
    position = ops.cast(ops.argmax(ops.stop_gradient(x), axis=-1), I32)
    return ops.expand_dims(ops.cast(position, x.dtype), -1) * 0.1 + x


def _integers(draw: Draw, x: Value) -> Value:
    """Integers that are computed from x."""
    return ops.cast(_near(x, draw(st.integers(-9, 9)) + 0.5), I32) + ops.arange(x.shape[-1], dtype=I32)


def _division(draw: Draw, x: Value) -> Value:
    x = _with_axis(x)
    numbers, divisor = _integers(draw, x), draw(st.sampled_from([-3, 2, 5]))
    result = ops.floor_divide(numbers, divisor) + ops.mod(numbers, divisor) * 2
    return x + ops.cast(result, x.dtype) * 0.1


def _logic(draw: Draw, x: Value) -> Value:
    x = _with_axis(x)
    numbers = _integers(draw, x)
    even = ops.logical_not(ops.equal(ops.mod(numbers, 2), 1))
    return ops.where(ops.logical_xor(ops.less_equal(numbers, 3), even), x, ops.negative(x))


def _random(draw: Draw, x: Value) -> Value:
    counter = ops.cast(ops.max(_near(x, 7.5)), I64)
    drawn = x.graph.apply(RandomUniform(x.shape, draw(st.integers(0, 3))), counter)
    return x + ops.cast(drawn, x.dtype)


def _images(x: Value) -> Value:
    """x as images [batch, height, width, channels], of sizes that it has."""
    return ops.reshape(x, (-1, *x.shape[-3:]) if x.ndim > 3 else (1, *x.shape, 1, 1, 1)[:4])


def _window(draw: Draw, images: Value) -> tuple[int, int]:
    return draw(st.integers(1, min(3, images.shape[1]))), draw(st.integers(1, min(3, images.shape[2])))


def _convolution(draw: Draw, x: Value) -> Value:
    """Images convolved with a kernel that depends on them."""
    if x.type.size > 4000:
        return x + 1.0
    x = _images(x)
    channels = x.shape[-1]
    groups = channels if channels <= 5 and draw(st.booleans()) else 1
    shape = (*_window(draw, x), channels // groups, groups * draw(st.integers(1, 3)))
    weights = np.cos(np.arange(np.prod(shape))).reshape(shape).astype(x.dtype.numpy)
    kernel = x.graph.constant(weights) * ops.tanh(ops.mean(x) + 1.0)
    strides, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    padding = "same" if dilation > 1 else draw(st.sampled_from(["valid", "same"]))
    result = ops.conv(x, kernel, strides, padding, dilation_rate=dilation)
    return result / float(np.prod(shape[:3]))


def _max_pool(draw: Draw, x: Value) -> Value:
    x = _images(x)
    return ops.max_pool(x, _window(draw, x), draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"])))


def _average_pool(draw: Draw, x: Value) -> Value:
    x = _images(x)
    return ops.average_pool(x, _window(draw, x), draw(st.integers(1, 2)), draw(st.sampled_from(["valid", "same"])))


def _max_pool_select(draw: Draw, x: Value) -> Value:
    x = _images(x)
    return x.graph.apply(MaxPoolSelect(_window(draw, x), (2, 1)), x, ops.tanh(x))


OTHERS: dict[str, Callable[[Draw, Value], Value]] = {
    "matmul": _matmul,
    "gather": _gather,
    "argmax": _argmax,
    "division": _division,
    "logic": _logic,
    "random": _random,
    "convolution": _convolution,
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "max_pool_select": _max_pool_select,
}

STEPS = sorted([*UNARY, *BINARY, *REDUCTIONS, *MOVEMENTS, *OTHERS, "matmul", "matmul", "convolution"])
"""What a step is drawn from: contractions more often, since they have the most ways to be fused."""


@st.composite
def graphs(draw: Draw, most: int = 12) -> tuple[Graph, dict[str, np.ndarray]]:
    """A graph of up to `most` drawn operations with the gradient of its mean, and arrays for its inputs."""
    dtype = draw(st.sampled_from([F32, F64]))
    sizes = st.sampled_from([1, 2, 3, 5, 8, 10, 16, 17, 33])
    graph, arrays = Graph("random"), {}
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    with building(graph):
        for n in range(draw(st.integers(1, 3))):
            shape = tuple(draw(st.lists(sizes, min_size=0 if n else 1, max_size=3)))
            arrays[f"x{n}"] = rng.uniform(-2, 2, shape).astype(dtype.numpy)
            graph.input(f"x{n}", TensorType(dtype, shape))
        inputs = list(graph.inputs)
        pool: list[Value] = list(inputs)
        # Hypothesis prefers some choices to others: with it, one op would come ten times as often as the next.
        for name in rng.choice(STEPS, draw(st.integers(1, most))):
            result = _step(draw, str(name), draw(st.sampled_from(pool[-4:])), pool)
            if result.type.size <= 20000 and result.ndim <= 5:
                pool.append(result)
        chosen = {draw(st.sampled_from(pool[-3:])), pool[-1]}
        for n, value in enumerate(sorted(chosen, key=lambda value: value.number)):
            graph.output(f"y{n}", value)
        # What no step reads would be dead: it adds to the loss.
        read = {operand for value in graph.values for operand in value.inputs}
        loss = sum(ops.mean(ops.tanh(value)) for value in pool if value not in read or value is pool[-1])
        for n, gradient in enumerate(gradients([loss], inputs)):
            graph.output(f"g{n}", gradient)
    return graph, arrays


def _step(draw: Draw, name: str, x: Value, pool: list[Value]) -> Value:
    if name in UNARY:
        return UNARY[name](x)
    if name in BINARY:
        return BINARY[name](x, draw(st.sampled_from([y for y in pool if _broadcasts(x.shape, y.shape)])))
    if name in REDUCTIONS:
        x = _with_axis(x)
        return REDUCTIONS[name](x, axis=_axes(draw, x.ndim), keepdims=draw(st.booleans()))
    if name in MOVEMENTS:
        return _movement(draw, x, name)
    return OTHERS[name](draw, x)


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))
