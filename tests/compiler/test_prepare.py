"""The prepare split: both parts together compute what the whole does, and no work on weights alone is left over."""

from __future__ import annotations

import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler import ops
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, building
from gradloom.compiler.ops.elementwise import Exp
from gradloom.compiler.passes.prepare import PREPARED, as_stored, split_prepare
from gradloom.compiler.program import Argument
from gradloom.compiler.types import F32, TensorType


def normalized() -> Graph:
    graph = Graph("predict")
    with building(graph):
        x = graph.input("x", TensorType(F32, (5, 4)))
        mean, variance = (graph.input(name, TensorType(F32, (4,)), "state") for name in ("mean", "variance"))
        gamma = graph.input("gamma", TensorType(F32, (4,)), "parameter")
        graph.output("y", ops.relu((x - mean) * (ops.rsqrt(variance + 0.1) * gamma)))
    return graph


def arrays(graph: Graph) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        v.op.label: rng.uniform(0.5, 2, v.shape).astype(v.dtype.numpy) for v in graph.inputs if isinstance(v.op, Input)
    }


def test_both_parts_compute_what_the_whole_does() -> None:
    graph = normalized()
    prepare, main = split_prepare(graph)
    assert prepare is not None
    given = arrays(graph)
    prepared = interpret(prepare, {v.op.label: given[v.op.label] for v in prepare.inputs if isinstance(v.op, Input)})
    roles = {v.op.label: v.op.role for v in main.inputs if isinstance(v.op, Input)}
    assert [label for label, role in roles.items() if role == PREPARED] == list(prepared)
    got = interpret(main, {label: {**given, **prepared}[label] for label in roles})
    np.testing.assert_array_equal(got["y"], interpret(graph, given)["y"])


def test_prepared_results_lie_as_the_other_program_reads_them() -> None:
    graph = Graph("prepare")
    graph.output("w", graph.apply(Exp(), graph.input("v", TensorType(F32, (2, 3, 8)), "parameter")))
    argument = Argument("w", TensorType(F32, (3, 2, 8)), PREPARED, permutation=(1, 0, 2), panel=4)
    stored = as_stored(graph, [argument])
    assert stored.outputs[0].value.shape == argument.stored_shape
    given = arrays(graph)
    expected = interpret(graph, given)["w"].transpose(1, 0, 2)
    panels = np.stack([expected[..., :4], expected[..., 4:]])
    np.testing.assert_array_equal(interpret(stored, given)["w"], panels)


def test_what_is_prepared_is_not_computed_again() -> None:
    prepare, main = split_prepare(normalized())
    assert prepare is not None
    assert "sqrt" in {value.op.name for value in prepare.values}
    assert "sqrt" not in {value.op.name for value in main.live()}
    assert {"gamma", "variance"}.isdisjoint(v.op.label for v in main.inputs if isinstance(v.op, Input))


def test_a_view_of_a_parameter_is_no_work() -> None:
    graph = Graph("predict")
    with building(graph):
        x = graph.input("x", TensorType(F32, (5, 4)))
        graph.output("y", x @ ops.transpose(graph.input("w", TensorType(F32, (3, 4)), "parameter")))
    assert split_prepare(graph) == (None, graph)


def test_a_step_that_changes_its_parameters_is_left_whole() -> None:
    graph = Graph("train")
    with building(graph):
        w = graph.input("w", TensorType(F32, (3,)), "parameter")
        graph.output("w", ops.exp(w) * graph.input("x", TensorType(F32, (3,))), w)
    assert split_prepare(graph) == (None, graph)


@pytest.mark.parametrize("change", ["set_weights", "fit"])
def test_new_weights_are_prepared_anew(change: str) -> None:
    """A prediction after new weights is that of a model that never had others."""
    x, y = np.random.default_rng(0).random((6, 5)).astype(np.float32), np.arange(6) % 2
    model = gl.Sequential([gl.Input((5,)), gl.layers.Dense(3), gl.layers.BatchNormalization(), gl.layers.Dense(2)])
    model.compile("sgd", gl.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.predict(x)
    if change == "fit":
        model.fit(x, y, verbose=0)
    else:
        model.set_weights([weight + 0.5 for weight in model.get_weights()])
    fresh = gl.Sequential([gl.Input((5,)), gl.layers.Dense(3), gl.layers.BatchNormalization(), gl.layers.Dense(2)])
    fresh.set_weights(model.get_weights())
    assert not np.array_equal(model.predict(x), before)
    np.testing.assert_array_equal(model.predict(x), fresh.predict(x))


def test_a_result_is_brought_into_order_before_the_next_one_is_computed() -> None:
    graph = Graph("prepare")
    for name in ("a", "b"):
        graph.output(name, graph.apply(Exp(), graph.input(f"v{name}", TensorType(F32, (2, 3)), "parameter")))
    arguments = [Argument(name, TensorType(F32, (3, 2)), PREPARED, permutation=(1, 0)) for name in ("a", "b")]
    order = [value.op.name for value in as_stored(graph, arguments).values if value.inputs]
    assert order == ["exp", "transpose", "exp", "transpose"]
