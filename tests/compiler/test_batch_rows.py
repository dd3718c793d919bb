"""Whether rows of a batch are independent: known cases, and what is found of random functions holds in the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.compiler.passes.batch_rows import rows_are_independent
from gradloom.compiler.types import F32, I32, I64, TensorType

Function = Callable[[Value], Value]


def traced(function: Function, rows: int, shape: tuple[int, ...]) -> Graph:
    graph = Graph("predict")
    with building(graph):
        graph.output("y", function(graph.input("x", TensorType(F32, (rows, *shape)))))
    return graph


def independent(function: Function, shape: tuple[int, ...] = (4,), rows: tuple[int, int] = (6, 5)) -> bool:
    return rows_are_independent(*(traced(function, size, shape) for size in rows))


def constant(x: Value, *shape: int) -> Value:
    return x.graph.constant(np.cos(np.arange(np.prod(shape))).reshape(shape).astype(np.float32))


def parameter(x: Value, label: str, shape: tuple[int, ...], role: str = "parameter") -> Value:
    return x.graph.input(label, TensorType(F32, shape), role)


INDEPENDENT: dict[str, tuple[Function, tuple[int, ...]]] = {
    "nothing": (lambda x: x, (4,)),
    "elementwise": (lambda x: ops.tanh(x) * constant(x, 4) + 1.0, (4,)),
    "dense": (lambda x: ops.matmul(x, parameter(x, "w", (4, 5))) + parameter(x, "b", (5,)), (4,)),
    "dense of a rank": (lambda x: ops.matmul(x, parameter(x, "w", (4, 5))), (3, 4)),
    "flattened": (lambda x: ops.reshape(x, (x.shape[0], -1)), (3, 4)),
    "merged and parted": (lambda x: ops.reshape(ops.tanh(ops.reshape(x, (-1, 4))), x.shape), (3, 4)),
    "softmax": (lambda x: ops.softmax(x), (4,)),
    "attention": (lambda x: ops.matmul(ops.softmax(ops.matmul(x, ops.swapaxes(x, -1, -2))), x), (3, 4)),
    "channels first": (lambda x: ops.transpose(ops.tanh(ops.transpose(x, (2, 0, 1))), (1, 2, 0)), (3, 4)),
    "convolution": (lambda x: ops.conv(x, constant(x, 3, 3, 2, 3), 1, "same"), (5, 5, 2)),
    "pools": (lambda x: ops.max_pool(ops.average_pool(x, 2, 1, "valid"), 2, 2, "same"), (5, 5, 2)),
    "residual": (lambda x: x + ops.pad(x[:, 1:], ((0, 0), (0, 1))), (4,)),
    "concatenated": (lambda x: ops.concatenate([x, ops.flip(x, 1)], axis=1), (4,)),
    "embedding": (lambda x: ops.take(constant(x, 7, 3), ops.cast(ops.absolute(x), I32), axis=0), (4,)),
    "zeros": (lambda x: ops.zeros_like(x), (4,)),
    "positions": (lambda x: x + ops.arange(4, dtype=F32), (4,)),
    "size of an axis": (lambda x: ops.sum(x, axis=1, keepdims=True) / float(x.shape[1]), (4,)),
    "state": (lambda x: x - parameter(x, "mean", (4,), "state"), (4,)),
    "captured": (lambda x: x * x.graph.capture(np.ones((500,), np.float32)), (500,)),
}

DEPENDENT: dict[str, tuple[Function, tuple[int, ...]]] = {
    "mean of the batch": (lambda x: x - ops.mean(x, axis=0, keepdims=True), (4,)),
    "softmax of the batch": (lambda x: ops.softmax(x, axis=0), (4,)),
    "largest": (lambda x: x / ops.max(x), (4,)),
    "size of the batch": (lambda x: x / float(x.shape[0]), (4,)),
    "reversed": (lambda x: ops.flip(x, 0), (4,)),
    "first sample": (lambda x: x - x[:1], (4,)),
    "products of samples": (lambda x: ops.matmul(x, ops.transpose(x)), (4,)),
    "samples by samples": (lambda x: ops.matmul(ops.matmul(x, ops.transpose(x)), x), (4,)),
    "samples in the last axis": (lambda x: ops.transpose(x), (4,)),
    "interleaved": (lambda x: ops.reshape(ops.transpose(x), x.shape), (4,)),
    "more rows": (lambda x: ops.reshape(x, (-1, 2)), (4,)),
    "a row for each pair": (lambda x: ops.concatenate([x, x], axis=0), (4,)),
    "sum": (lambda x: ops.sum(x), (4,)),
    "positions of samples": (lambda x: x + ops.reshape(ops.arange(x.shape[0], dtype=F32), (-1, 1)), (4,)),
    "random": (lambda x: x + x.graph.apply(RandomUniform(x.shape, 0), x.graph.constant(1, I64)), (4,)),
    "as the batch is": (lambda x: x * x.graph.capture(np.full((500,), x.shape[0], np.float32)), (500,)),
    "another sample": (lambda x: ops.take(x, np.array([0, 0, 0, 0, 0, 1][: x.shape[0]]), axis=0), (4,)),
    "samples by number": (lambda x: ops.take(x, ops.cast(ops.absolute(x[:, 0]), I32), axis=0), (4,)),
    "shifted": (lambda x: ops.pad(x, ((1, 0), (0, 0)))[:-1], (4,)),
    "in another graph": (lambda x: ops.tanh(x) if x.shape[0] > 5 else ops.sigmoid(x), (4,)),
}


@pytest.mark.parametrize("case", INDEPENDENT)
def test_rows_that_are_independent(case: str) -> None:
    assert independent(*INDEPENDENT[case])
    assert independent(*INDEPENDENT[case], rows=(32, 24))


@pytest.mark.parametrize("case", DEPENDENT)
def test_rows_that_are_not(case: str) -> None:
    assert not independent(*DEPENDENT[case])


def test_new_state_that_the_batch_makes_is_a_dependence() -> None:
    graphs = []
    for rows in (4, 3):
        graph = traced(lambda x: x, rows, (4,))
        with building(graph):
            x = graph.inputs[0]
            mean, count = parameter(x, "mean", (4,), "state"), parameter(x, "count", (), "state")
            graph.output("count", count + 1.0, donor=count)
            graphs.append(graph)
    assert rows_are_independent(*graphs)
    for graph in graphs:
        with building(graph):
            x, mean, _ = graph.inputs
            graph.output("mean", mean + ops.mean(x, axis=0), donor=mean)
    assert not rows_are_independent(*graphs)


def test_all_arguments_have_the_rows() -> None:
    def two(rows: int, others: int) -> Graph:
        graph = traced(lambda x: x, rows, (4,))
        with building(graph):
            graph.output("z", ops.tanh(graph.input("other", TensorType(F32, (others, 4)))))
        return graph

    assert rows_are_independent(two(4, 4), two(3, 3))
    assert not rows_are_independent(two(4, 8), two(3, 6)) and not rows_are_independent(two(4, 2), two(3, 2))


def _axis(x: Value, number: int) -> int:
    return number % x.ndim


STEPS: dict[str, Callable[[Value, Value, int], Value]] = {
    "tanh": lambda x, y, n: ops.tanh(x),
    "add": lambda x, y, n: x + y if x.shape == y.shape else x + 1.0,
    "sum": lambda x, y, n: ops.sum(x, axis=_axis(x, n), keepdims=x.ndim == 1),
    "mean": lambda x, y, n: x - ops.mean(x, axis=_axis(x, n), keepdims=True),
    "rotate": lambda x, y, n: ops.transpose(x, np.roll(np.arange(x.ndim), n).tolist()),
    "flat": lambda x, y, n: ops.reshape(x, (-1,)),
    "rows": lambda x, y, n: ops.reshape(x, (x.shape[0], -1)),
    "apart": lambda x, y, n: ops.reshape(x, (-1, 2)) if x.type.size % 2 == 0 else x,
    "like before": lambda x, y, n: ops.reshape(x, y.shape) if x.type.size == y.type.size else x,
    "flip": lambda x, y, n: ops.flip(x, _axis(x, n)),
    "half": lambda x, y, n: x[
        tuple(slice(0, -(-s // 2)) if a == _axis(x, n) else slice(None) for a, s in enumerate(x.shape))
    ],
    "twice": lambda x, y, n: ops.concatenate([x, ops.tanh(x)], axis=_axis(x, n)),
    "pad": lambda x, y, n: ops.pad(x, [(int(a == _axis(x, n)), 0) for a in range(x.ndim)]),
    "new axis": lambda x, y, n: ops.expand_dims(x, n % (x.ndim + 1)),
    "repeat": lambda x, y, n: ops.broadcast_to(x, (2, *x.shape)),
    "first": lambda x, y, n: x - ops.take(x, np.array([0]), axis=_axis(x, n)),
    "weights": lambda x, y, n: ops.matmul(x, constant(x, x.shape[-1], 4)) if x.ndim > 1 else x,
    "square": lambda x, y, n: ops.matmul(x, ops.swapaxes(x, -1, -2)) if x.ndim > 1 else x,
    "size": lambda x, y, n: x / float(x.shape[_axis(x, n)]),
    "softmax": lambda x, y, n: ops.softmax(x, axis=_axis(x, n)),
    "positions": lambda x, y, n: x + ops.arange(x.shape[-1], dtype=F32),
    "pool": lambda x, y, n: ops.max_pool(x, 2, 1, "same") if x.ndim == 4 else x,
    "convolution": lambda x, y, n: ops.conv(x, constant(x, 2, 2, x.shape[3], 2), 1, "same") if x.ndim == 4 else x,
}


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_is_found_of_random_functions_is_so(data: Any) -> None:
    """Rows that are found to be independent are the same whatever stands beside them, in a batch of another size."""
    shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=3)))
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)), max_size=7))

    def function(x: Value) -> Value:
        before = x
        for name, number in steps:
            result = STEPS[name](x, before, number)
            if result.type.size <= 5000 and result.ndim <= 5:
                before, x = x, result
        return x

    graphs = [traced(function, rows, shape) for rows in (4, 3)]
    if not rows_are_independent(*graphs):
        return
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, *shape)).astype(np.float32)
    padded = np.where(np.arange(4).reshape(-1, *(1 for _ in shape)) < 3, x, np.float32(7))
    results = [interpret(g, {"x": a})["y"] for g, a in ((graphs[0], x), (graphs[0], padded), (graphs[1], x[:3]))]
    for result in results:
        np.testing.assert_allclose(result[:3], results[0][:3], rtol=1e-5, atol=1e-6)
