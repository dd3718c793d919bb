"""Layout choice: which parameters are kept transposed, and that nothing but the layout changes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ops.arithmetic import Maximum
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.elementwise import Exp, Sqrt
from gradloom.compiler.ops.movement import Reshape, Transpose
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.passes.layout import choose_layouts
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.types import F32, TensorType

Update = Callable[[Graph, Value, Value], None]


def sgd(graph: Graph, parameter: Value, gradient: Value) -> None:
    rate = graph.input("rate", TensorType(F32, ()), "hyperparameter")
    graph.output(parameter.op.label, parameter - rate * gradient, parameter)  # type: ignore[attr-defined]


def adam(graph: Graph, parameter: Value, gradient: Value) -> None:
    label = parameter.op.label  # type: ignore[attr-defined]
    rate = graph.input("rate", TensorType(F32, ()), "hyperparameter")
    mean = graph.input(f"{label}/mean", parameter.type, "state")
    square = graph.input(f"{label}/square", parameter.type, "state")
    new_mean = mean * 0.9 + gradient * 0.1
    new_square = square * 0.99 + gradient * gradient * 0.01
    step = new_mean / (graph.apply(Sqrt(), new_square) + 1e-7)
    graph.output(f"{label}/mean", new_mean, mean)
    graph.output(f"{label}/square", new_square, square)
    graph.output(label, parameter - rate * step, parameter)


def mlp(update: Update, batch: int = 32, sizes: tuple[int, int, int] = (784, 128, 10), decay: float = 0.0) -> Graph:
    """The train step of a two-layer network whose loss is the mean square of its exponentiated outputs."""
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (batch, sizes[0])))
    kernels = [
        graph.input(f"W{n}", TensorType(F32, (rows, columns)), "parameter")
        for n, (rows, columns) in enumerate(pairwise(sizes), 1)
    ]
    bias = graph.input("b", TensorType(F32, (sizes[2],)), "parameter")
    hidden = graph.apply(Maximum(), graph.apply(Matmul(), x, kernels[0]), graph.constant(np.float32(0)))
    logits = graph.apply(Matmul(), hidden, kernels[1]) + bias
    loss = graph.apply(Sum((0, 1)), graph.apply(Exp(), logits)) / float(batch)
    if decay:
        loss = loss + decay * graph.apply(Sum((0, 1)), kernels[1] * kernels[1])
    for parameter, gradient in zip([*kernels, bias], gradients([loss], [*kernels, bias]), strict=True):
        update(graph, parameter, gradient)
    graph.output("loss", loss)
    return simplify(graph)


def wanted_layouts(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that are wanted transposed, by label."""
    ops = [value.op for value in graph.inputs if isinstance(value.op, Input)]
    return {op.label: op.type.shape for op in ops if op.permutation}


def transposes(graph: Graph) -> int:
    return sum(isinstance(value.op, Transpose) for value in graph.live())


def stored_arrays(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """An array for each input of a graph without permutations."""
    rng = np.random.default_rng(seed)
    ops = [value.op for value in graph.inputs if isinstance(value.op, Input)]
    return {op.label: (0.05 * rng.random(op.type.shape)).astype(np.float32) for op in ops}


def assert_same_results(graph: Graph, other: Graph) -> None:
    """Both graphs make the same of arrays as they are stored, but for the order in which products are added."""
    arrays = stored_arrays(graph)
    wanted, got = interpret(graph, arrays), interpret(other, arrays)
    assert list(got) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("update", [sgd, adam])
@pytest.mark.parametrize("batch", [1, 32, 128])
def test_short_rows_are_kept_transposed_with_their_state(update: Update, batch: int) -> None:
    graph = mlp(update, batch)
    chosen = choose_layouts(graph)
    chosen.verify()
    labels = ["W2"] if update is sgd else ["W2", "W2/mean", "W2/square"]
    assert wanted_layouts(chosen) == dict.fromkeys(labels, (10, 128))
    assert transposes(chosen) == 0
    assert_same_results(graph, chosen)
    assert [out.donor is None for out in chosen.outputs] == [out.donor is None for out in graph.outputs]


def test_products_read_the_parameter_along_its_long_axis() -> None:
    chosen = choose_layouts(mlp(sgd))
    products = {
        (value.shape, value.op.transpose_a, value.op.transpose_b)
        for value in chosen.live()
        if isinstance(value.op, Matmul) and (10 in value.shape or value.inputs[1].shape == (10, 128))
    }
    assert products == {((32, 10), False, True), ((32, 128), False, False), ((10, 128), True, False)}


def test_a_penalty_on_the_parameter_needs_no_transpose() -> None:
    graph = mlp(sgd, decay=0.1)
    chosen = choose_layouts(graph)
    assert wanted_layouts(chosen) == {"W2": (10, 128)} and transposes(chosen) == 0
    assert_same_results(graph, chosen)


@pytest.mark.parametrize("sizes", [(784, 128, 32), (784, 128, 64), (20, 30, 10), (4, 128, 128)])
def test_shapes_without_need_are_left_alone(sizes: tuple[int, int, int]) -> None:
    graph = mlp(sgd, sizes=sizes)
    assert choose_layouts(graph) is graph


def test_what_is_short_depends_on_the_vectors() -> None:
    graph = mlp(sgd, sizes=(784, 128, 10))
    assert wanted_layouts(choose_layouts(graph, lanes=8)) == {"W2": (10, 128)}
    assert choose_layouts(graph, lanes=4) is graph


def test_no_choice_that_would_leave_a_transpose() -> None:
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (32, 128)))
    kernel = graph.input("W", TensorType(F32, (128, 10)), "parameter")
    graph.output("y", graph.apply(Matmul(), x, kernel))
    graph.output("flat", graph.apply(Reshape((1280,)), kernel))
    graph = simplify(graph)
    assert choose_layouts(graph) is graph


def test_callers_arrays_keep_their_layout() -> None:
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (32, 128)))
    mask = graph.input("mask", TensorType(F32, (128, 10)))
    kernel = graph.input("W", TensorType(F32, (128, 10)), "parameter")
    graph.output("y", graph.apply(Matmul(), x, kernel * mask))
    graph = simplify(graph)
    assert choose_layouts(graph) is graph


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_broadcast_operands_turn_as_well(data: st.DataObject) -> None:
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (3, 40)))
    kernel = graph.input("W", TensorType(F32, (40, 6)), "parameter")
    value = kernel
    for number in range(data.draw(st.integers(1, 4))):
        shape = data.draw(st.sampled_from([(), (1,), (6,), (1, 6), (40, 1), (1, 1)]))
        value = value * graph.input(f"factor{number}", TensorType(F32, shape)) + kernel
    graph.output("y", graph.apply(Matmul(), x, kernel))
    graph.output("W", value, kernel)
    graph = simplify(graph)
    chosen = choose_layouts(graph)
    chosen.verify()
    assert wanted_layouts(chosen) == {"W": (6, 40)} and transposes(chosen) == 0
    assert_same_results(graph, chosen)
