"""Random typed graphs: a hypothesis strategy over all kinds of ops, kept where results are well conditioned."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.types import F32, F64, I32, TensorType

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
    "softmax": lambda x: ops.softmax(x) if x.ndim else x,
    "log_softmax": lambda x: ops.log_softmax(x) if x.ndim else x,
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1) if x.ndim and x.shape[-1] else x,
    "floor": lambda x: x + ops.floor(ops.stop_gradient(x) * 0.0 + 1.5),
    "power": lambda x: ops.power(ops.absolute(x) + 0.5, 1.5),
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

REDUCTIONS = {"sum": ops.sum, "mean": ops.mean, "max": ops.max, "min": ops.min, "var": ops.var}


def _axes(draw: Draw, rank: int) -> tuple[int, ...]:
    return tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))


def _movement(draw: Draw, x: Value) -> Value:
    rank = x.ndim
    kind = draw(st.sampled_from(["reshape", "transpose", "flip", "slice", "pad", "concat", "broadcast", "repeat"]))
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
    if x.ndim < 2:
        x = ops.reshape(x, (1, -1))
    other = ops.swapaxes(x, -1, -2)
    if draw(st.booleans()):
        other = ops.tanh(other)
    product = ops.matmul(x, other) if draw(st.booleans()) else ops.matmul(other, x)
    return product / float(max(x.shape[-1], 1))


def _gather(draw: Draw, x: Value) -> Value:
    if not x.ndim:
        return x
    count = draw(st.integers(1, 5))
    rows = draw(st.lists(st.integers(0, x.shape[0] - 1), min_size=count, max_size=count))
    return ops.take(x, np.array(rows, np.int32), axis=0)


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
        for _ in range(draw(st.integers(1, most))):
            x = draw(st.sampled_from(pool[-4:]))
            kind = draw(
                st.sampled_from(["unary", "unary", "binary", "binary", "reduce", "move", "matmul", "gather", "cast"])
            )
            result = _step(draw, kind, x, pool)
            if result.type.size <= 20000 and result.ndim <= 5:
                pool.append(result)
        chosen = {draw(st.sampled_from(pool[-3:])), pool[-1]}
        for n, value in enumerate(sorted(chosen, key=lambda value: value.number)):
            graph.output(f"y{n}", value)
        loss = ops.mean(ops.tanh(pool[-1]))
        for n, gradient in enumerate(gradients([loss], inputs)):
            graph.output(f"g{n}", gradient)
    return graph, arrays


def _step(draw: Draw, kind: str, x: Value, pool: list[Value]) -> Value:
    if kind == "unary":
        return UNARY[draw(st.sampled_from(sorted(UNARY)))](x)
    if kind == "binary":
        fitting = [y for y in pool if _broadcasts(x.shape, y.shape)]
        return BINARY[draw(st.sampled_from(sorted(BINARY)))](x, draw(st.sampled_from(fitting)))
    if kind == "reduce" and x.ndim:
        keepdims = draw(st.booleans())
        return REDUCTIONS[draw(st.sampled_from(sorted(REDUCTIONS)))](x, axis=_axes(draw, x.ndim), keepdims=keepdims)
    if kind == "move":
        return _movement(draw, x)
    if kind == "matmul" and x.type.size <= 4000:
        return _matmul(draw, x)
    if kind == "gather":
        return _gather(draw, x)
    if kind == "cast" and x.ndim:
        position = ops.cast(ops.argmax(ops.stop_gradient(x), axis=-1), I32)
        return ops.expand_dims(ops.cast(position, x.dtype), -1) * 0.1 + x
    return x + 1.0


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False))
