"""Row-wise kernels: several reductions in phases, short and long rows, values kept in scratch, updates in place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_close, assert_same, check, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.ops.movement import BroadcastTo
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.types import F32, F64, I32, TensorType


def layer_norm(x: Value) -> Value:
    mean = ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
    return (x - mean) / ops.sqrt(variance + 1e-3)


def standardized_twice(x: Value) -> Value:
    """Five reductions, each of which needs the one before."""
    y = layer_norm(ops.exp(x - ops.max(x, axis=-1, keepdims=True)))
    return layer_norm(ops.tanh(y)) * ops.sum(y, axis=-1, keepdims=True)


def picked(x: Value) -> Value:
    """What is largest in each row, at its place."""
    return ops.one_hot(ops.argmax(x, axis=-1), x.shape[-1]) * x


ROW_WISE: dict[str, Callable[[Value], Value]] = {
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
    "logsumexp": lambda x: ops.logsumexp(x, axis=-1),
    "variance": lambda x: ops.var(x, axis=-1),
    "layer norm": layer_norm,
    "twice": standardized_twice,
    "argmax": lambda x: ops.argmax(x, axis=-1),
    "picked": picked,
    "narrow": lambda x: ops.sum(ops.square(x), axis=-1, keepdims=True) - ops.max(x, axis=-1, keepdims=True),
    "softmax over two": lambda x: ops.softmax(ops.reshape(x, (1, -1, x.shape[-1])), axis=(1, 2)),
}
WIDTHS = [1, 2, 10, 15, 16, 17, 31, 33, 63, 64, 65, 100, 300]


@pytest.mark.parametrize("name", ROW_WISE)
@pytest.mark.parametrize("level", host_levels())
def test_row_wise_functions_of_short_and_long_rows(name: str, level: str) -> None:
    graph = Graph(name)
    rng = np.random.default_rng(0)
    arrays = {}
    with building(graph):
        for dtype in (F32, F64):
            for shape in [*((3, width) for width in WIDTHS), (200, 5), (2, 3, 70), (40,)]:
                label = f"{dtype}{shape}"
                x = graph.input(label, TensorType(dtype, shape))
                arrays[label] = rng.normal(size=shape).astype(dtype.numpy)
                graph.output(f"y{label}", ROW_WISE[name](x))
    options = pipeline.Options(Target.named(level), 2)
    program = pipeline.compile_graph(graph, options)
    got = run_program(program, graph, arrays)
    assert_close(got, interpret(graph, arrays), graph)
    assert_same(run_program(program, graph, arrays, 2), got)


@pytest.mark.parametrize("name", [name for name in ROW_WISE if name not in ("argmax", "picked")])
@pytest.mark.parametrize("shape", [(3, 10), (2, 100), (70, 17)], ids=str)
def test_gradients_of_row_wise_functions(name: str, shape: tuple[int, ...]) -> None:
    graph = Graph(name)
    with building(graph):
        x = graph.input("x", TensorType(F64, shape))
        y = ROW_WISE[name](x)
        c = graph.input("c", y.type)
        (first,) = gradients([y], [x], [c])
        graph.output("y", y)
        graph.output("g", first)
        graph.output("h", gradients([ops.sum(first * ops.tanh(x))], [x])[0])
    rng = np.random.default_rng(1)
    check(graph, {"x": rng.normal(size=shape), "c": rng.normal(size=y.shape)}, scale=10)


def test_softmax_of_short_rows_is_one_kernel_without_scratch() -> None:
    low = lowered(ops.softmax, (32, 10))
    assert len(low.scheduled.launches) == 1
    assert low.memory.scratch_bytes == 0 and low.memory.arena_bytes == 0


def test_softmax_of_long_rows_keeps_the_exponentials_in_scratch() -> None:
    """An exponential is computed once an element, not once a phase."""
    low = lowered(ops.softmax, (32, 1000))
    assert len(low.scheduled.launches) == 1
    assert low.memory.arena_bytes == 0
    assert low.memory.scratch_bytes == 4032
    assert [buffer.type.shape for buffer in low.kernels[0].scratch] == [(1000,)]


def lowered(f: Callable[[Value], Value], shape: tuple[int, ...]) -> pipeline.Lowering:
    graph = Graph("rows")
    with building(graph):
        graph.output("y", f(graph.input("x", TensorType(F32, shape))))
    return pipeline.lower(graph)


@pytest.mark.parametrize("width", [10, 17, 100, 300])
def test_rows_written_onto_what_they_are_computed_from(width: int) -> None:
    """In place if every element is read before it is replaced, else by a copy: the values are the same."""
    graph = Graph("in place")
    with building(graph):
        x = graph.input("x", TensorType(F32, (6, width)), "state")
        y = graph.input("y", TensorType(F32, (6, width)))
        m = graph.input("m", TensorType(F32, (6,)), "state")
        graph.output("x", x - ops.softmax(x) * ops.reshape(m, (6, 1)) + y, x)
        graph.output("m", m * 0.5 + ops.sum(ops.exp(y), axis=-1), m)
    rng = np.random.default_rng(0)
    arrays = {v.op.attributes["label"]: rng.normal(size=v.shape).astype(np.float32) for v in graph.inputs}
    check(graph, arrays)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_reduction_of_a_broadcast_reduction(axis: int) -> None:
    """Both run over the same positions, but the second reads the first one's result across rows."""
    graph = Graph("twice")
    x = graph.input("x", TensorType(F32, (4, 4)))
    first = graph.apply(Sum((axis,)), x)
    second = graph.apply(Sum((axis,)), graph.apply(BroadcastTo((4, 4)), first))
    graph.output("first", first)
    graph.output("second", second)
    graph.output("third", graph.apply(Sum((1,)), graph.apply(BroadcastTo((4, 4)), second)))
    check(graph, {"x": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)})


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_cross_entropy_with_its_gradient(classes: int) -> None:
    graph = Graph("loss")
    with building(graph):
        logits = graph.input("logits", TensorType(F32, (33, classes)))
        labels = graph.input("labels", TensorType(I32, (33,)))
        loss = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        graph.output("loss", loss)
        graph.output("gradient", gradients([ops.mean(loss)], [logits])[0])
        graph.output("hits", ops.equal(ops.argmax(logits, axis=-1), labels))
    rng = np.random.default_rng(0)
    arrays = {
        "logits": rng.normal(size=(33, classes)).astype(np.float32) * 5,
        "labels": rng.integers(0, classes, 33).astype(np.int32),
    }
    check(graph, arrays)


STEPS = ("exp", "tanh", "minus max", "over sum", "times mean", "plus input", "square", "mask", "shifted", "first row")


@settings(max_examples=60, derandomize=True, database=None)
@given(st.data())
def test_random_chains_of_reductions_and_maps(data: Any) -> None:
    rows, width = data.draw(st.sampled_from([1, 3, 40])), data.draw(st.sampled_from([1, 4, 16, 19, 64, 65, 90]))
    graph = Graph("chain")
    arrays = {"x": np.random.default_rng(rows * width).normal(size=(rows, width)).astype(np.float32)}
    with building(graph):
        x = y = graph.input("x", TensorType(F32, (rows, width)))
        for n, step in enumerate(data.draw(st.lists(st.sampled_from(STEPS), min_size=2, max_size=7))):
            y = row_step(step, x, y)
            if data.draw(st.integers(0, 3)) == 0:
                graph.output(f"y{n}", y)
            if data.draw(st.integers(0, 3)) == 0:
                graph.output(f"m{n}", ops.min(y, axis=-1) * 2.0)
        graph.output("y", y)
    check(graph, arrays)


def row_step(step: str, x: Value, y: Value) -> Value:
    """Another value of the same shape."""
    return {
        "exp": lambda: ops.exp(ops.minimum(y, 1.0)),
        "tanh": lambda: ops.tanh(y),
        "minus max": lambda: y - ops.max(y, axis=-1, keepdims=True),
        "over sum": lambda: y / (1.0 + ops.sum(ops.absolute(y), axis=-1, keepdims=True)),
        "times mean": lambda: y * ops.mean(x, axis=-1, keepdims=True),
        "plus input": lambda: y + x,
        "square": lambda: ops.square(ops.tanh(y)),
        "mask": lambda: ops.where(ops.greater(x, 0.0), y, ops.mean(y, axis=-1, keepdims=True)),
        "shifted": lambda: y + ops.flip(y, -1),
        "first row": lambda: y + ops.sum(y[:1] * 0.5, axis=-1, keepdims=True),
    }[step]()


def test_a_kernel_of_rows_of_any_width_is_lowered_at_once() -> None:
    """What stands behind whole vectors is one partial vector, of a row of 2⁴⁰ elements, too."""
    graph = Graph()
    graph.output("least", ops.min(graph.input("x", TensorType(I32, (2**40, 33))), axis=(0, 1)))
    (launch,) = pipeline.lower(graph).scheduled.launches
    assert len(str(launch.kernel)) < 2000
