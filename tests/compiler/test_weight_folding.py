"""Folding into weights: what is left of affine maps after a contraction, what stays apart, and that values stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradloom as gl
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, Value, building
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.types import F64, TensorType
from gradloom.formats import darknet

CHANNELS = 4

Terms = dict[str, Value]
Build = Callable[[Value, Terms], Value]


def parameter(graph: Graph, label: str, *shape: int) -> Value:
    return graph.input(label, TensorType(F64, shape), "parameter")


def convolved(graph: Graph) -> Value:
    """A convolution in two groups: its kernel's last axis is that of the filters all the same."""
    x = graph.input("x", TensorType(F64, (2, 5, 6, 4)))
    return graph.apply(Conv2D((2, 1), ((1, 1), (0, 1)), groups=2), x, parameter(graph, "k", 3, 2, 2, CHANNELS))


def multiplied(graph: Graph) -> Value:
    return graph.apply(Matmul(), graph.input("x", TensorType(F64, (2, 3, 6))), parameter(graph, "k", 6, CHANNELS))


def multiplied_transposed(graph: Graph) -> Value:
    x = graph.input("x", TensorType(F64, (3, 6, 5)))
    return graph.apply(Matmul(True, True), x, parameter(graph, "k", 3, CHANNELS, 6))


CONTRACTIONS = (convolved, multiplied, multiplied_transposed)


def build(contraction: Callable[[Graph], Value], rest: Build) -> Graph:
    """A contraction, and what `rest` makes of it with parameters of one number per channel or one number in all."""
    graph = Graph("predict")
    with building(graph):
        terms = {name: parameter(graph, name, CHANNELS) for name in ("mean", "factor", "beta", "bias")}
        terms |= {"row": parameter(graph, "row", 1, CHANNELS), "number": parameter(graph, "number", 1)}
        graph.output("y", rest(contraction(graph), terms))
    return graph


def arrays(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = (value for value in graph.inputs if isinstance(value.op, Input))
    return {value.op.label: rng.uniform(0.5, 2, value.shape).astype(value.dtype.numpy) for value in inputs}


def in_parts(graph: Graph, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What prepare graph and main graph compute together."""
    prepare, main = split_prepare(graph)
    known = dict(given)
    for part in (prepare, main):
        if part is not None:
            labels = [value.op.label for value in part.inputs if isinstance(value.op, Input)]
            known |= interpret(part, {label: known[label] for label in labels})
    return {output.name: known[output.name] for output in graph.outputs}


def main_ops(graph: Graph) -> list[str]:
    """The ops of the graph that is run for each prediction, in order."""
    return [value.op.name for value in split_prepare(graph)[1].live() if value.inputs]


def normalized(y: Value, terms: Terms) -> Value:
    return (y - terms["mean"]) * terms["factor"] + terms["beta"]


@pytest.mark.parametrize("contraction", CONTRACTIONS)
def test_normalization_leaves_one_addition(contraction: Callable[[Graph], Value]) -> None:
    graph = build(contraction, lambda y, terms: ops.relu(normalized(y + terms["bias"], terms)))
    folded = fold_into_weights(graph)
    folded.verify()
    assert main_ops(folded) == [contraction(Graph()).op.name, "add", "maximum"]
    given = arrays(graph)
    np.testing.assert_allclose(in_parts(folded, given)["y"], interpret(graph, given)["y"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [darknet.BatchNormalization, gl.layers.BatchNormalization])
def test_a_shape_around_the_channels_is_no_hindrance(layer: type[gl.layers.Layer]) -> None:
    """Of a matrix product that is seen as a map of one pixel, as Darknet's connected layers are."""
    x = gl.Input((6,))
    y = layer()(gl.layers.Reshape((1, 1, 4))(gl.layers.Dense(4)(x)))
    assert main_ops(fold_into_weights(gl.Model(x, y).predict_graph(2))) == ["matmul", "add", "reshape"]


STEPS: dict[str, Build] = {
    "add": lambda y, terms: y + terms["bias"],
    "add to": lambda y, terms: terms["bias"] + y,
    "subtract": lambda y, terms: y - terms["mean"],
    "multiply": lambda y, terms: y * terms["factor"],
    "multiply row": lambda y, terms: terms["row"] * y,
    "multiply number": lambda y, terms: y * terms["number"],
    "divide": lambda y, terms: y / terms["beta"],
    "divide by literal": lambda y, terms: y / 3.0,
    "add literals": lambda y, terms: y + np.arange(1.0, CHANNELS + 1),
}


@given(st.sampled_from(CONTRACTIONS), st.lists(st.sampled_from(sorted(STEPS)), max_size=6))
def test_affine_chains_keep_their_value(contraction: Callable[[Graph], Value], steps: list[str]) -> None:
    def chain(y: Value, terms: Terms) -> Value:
        for step in steps:
            y = STEPS[step](y, terms)
        return ops.exp(y * 0.01)

    graph = build(contraction, chain)
    folded = fold_into_weights(graph)
    folded.verify()
    left = Counter(main_ops(folded))
    assert left["multiply"] == left["divide"] == left["subtract"] == 0
    assert left["add"] <= 1
    given = arrays(graph)
    np.testing.assert_allclose(in_parts(folded, given)["y"], interpret(graph, given)["y"], rtol=1e-12)


def along_rows(y: Value, terms: Terms) -> Value:
    """A factor for each column of a map [batch, height, width = 4, channels = 4], not for each channel."""
    return y * ops.reshape(terms["factor"], (CHANNELS, 1))


def square_map(graph: Graph) -> Value:
    x = graph.input("x", TensorType(F64, (2, 4, 4, 3)))
    return graph.apply(Conv2D(), x, parameter(graph, "k", 1, 1, 3, CHANNELS))


UNTOUCHED: dict[str, tuple[Callable[[Graph], Value], Build]] = {
    "another axis": (square_map, along_rows),
    "read by others": (convolved, lambda y, terms: y * terms["factor"] + ops.exp(y)),
    "twice by one": (convolved, lambda y, terms: y * y),
    "a factor that is data": (convolved, lambda y, terms: y * ops.sum(y.graph.inputs[-2])),
    "a larger result": (
        lambda graph: graph.apply(Matmul(), graph.input("x", TensorType(F64, (1, 6))), parameter(graph, "k", 6, 1)),
        lambda y, terms: y * terms["factor"],
    ),
    "a divisor": (convolved, lambda y, terms: terms["factor"] / y),
    "no fixed weights": (
        lambda graph: graph.apply(
            Matmul(), graph.input("x", TensorType(F64, (2, 6))), graph.input("w", TensorType(F64, (6, CHANNELS)))
        ),
        normalized,
    ),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_not_folded(case: str) -> None:
    graph = build(*UNTOUCHED[case])
    folded, given = fold_into_weights(graph), arrays(graph)
    assert Counter(value.op for value in folded.live()) == Counter(value.op for value in graph.live())
    np.testing.assert_array_equal(interpret(folded, given)["y"], interpret(graph, given)["y"])


def test_each_contraction_is_computed_once() -> None:
    """A result that is read twice is built once, with all that was folded before."""
    graph = build(convolved, lambda y, terms: ops.exp(z := normalized(y, terms)) * z)
    assert main_ops(fold_into_weights(graph)) == ["conv2d", "add", "exp", "multiply"]


def test_a_step_that_changes_its_weights_is_left_as_it_is() -> None:
    graph = build(convolved, normalized)
    weights = next(value for value in graph.inputs if value.op.attributes["label"] == "k")
    graph.output("k", weights * 0.5, weights)
    assert fold_into_weights(graph) is graph


def test_layers_stay_known() -> None:
    x = gl.Input((4, 4, 3))
    y = gl.layers.BatchNormalization(name="normal")(gl.layers.Conv2D(4, 1, name="convolution")(x))
    folded = fold_into_weights(gl.Model(x, y).predict_graph(1))
    layers = {value.op.name: {origin.layer for origin in folded.provenance[value]} for value in folded.values}
    assert layers["conv2d"] == {"convolution"}
    assert layers["add"] == layers["multiply"] == {"normal"}


def residual_block(normalization: type[gl.layers.Layer]) -> gl.Model:
    x = gl.Input((6, 6, 8))
    y = gl.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    return gl.Model(x, gl.layers.Add()([x, gl.layers.LeakyReLU(0.1)(normalization()(y))]))


@pytest.mark.parametrize("normalization", [darknet.BatchNormalization, gl.layers.BatchNormalization])
def test_a_residual_block_is_one_kernel_whose_epilogue_scales_nothing(normalization: type[gl.layers.Layer]) -> None:
    prepare, main = split_prepare(fold_into_weights(residual_block(normalization).predict_graph(2)))
    assert prepare is not None
    (kernel,) = pipeline.lower(main).fused.groups
    assert kernel.kind == "contraction"
    # The one product left is the slope's, by a literal.
    assert [node.op.name for node in kernel.members] == ["conv2d", "add", "greater_equal", "multiply", "select", "add"]
    assert {node.op.label: node.op.role for node in main.inputs if isinstance(node.op, Input)} == {
        "x": "argument",
        "prepared/0": "prepared",
        "prepared/1": "prepared",
    }
    assert sorted(output.value.shape for output in prepare.outputs) == [(3, 3, 8, 8), (8,)]


@pytest.mark.parametrize("normalization", [darknet.BatchNormalization, gl.layers.BatchNormalization])
def test_predictions_follow_the_weights(normalization: type[gl.layers.Layer]) -> None:
    model, rng = residual_block(normalization), np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 6, 8)).astype(np.float32)
    for _ in range(2):
        model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
        graph = model.predict_graph(3)
        arrays = {variable.path: variable.value for variable in model.weights}
        expected = interpret(graph, {"x": x, **arrays})["predictions"]
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_functions_of_arrays_are_rounded_as_written() -> None:
    """Folding is asked for by a model's predictions alone: x·(w·c) would be 0 here, as w·c underflows."""
    w = gl.Variable(np.full((300, 300), 1e-30, np.float32))
    f = gl.function(lambda x: (x @ w) * np.float32(1e-20))
    result = f(np.full((2, 300), 1e30, np.float32))
    np.testing.assert_allclose(result, 300e-20, rtol=1e-5)
