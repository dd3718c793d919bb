"""Reduction of graphs that fail a check: the result still fails, reads back, and nothing of it can be left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler import ops, parse, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Constant, Graph, Input, Value, building
from gradloom.compiler.reducer import reduce
from gradloom.compiler.types import F32, TensorType
from gradloom.testing import graphs


def computed(graph: Graph) -> list[Value]:
    return [value for value in graph.live() if not isinstance(value.op, Input | Constant)]


def names(graph: Graph) -> list[str]:
    return [value.op.name for value in computed(graph)]


def chain(*steps: str, size: int = 6) -> Graph:
    graph = Graph("chain")
    with building(graph):
        value = graph.input("x", TensorType(F32, (size, 4)))
        for step in steps:
            value = getattr(ops, step)(value)
        graph.output("y", value)
    return graph


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_one_guilty_node_is_left_with_its_operands(drawn: tuple[Graph, object], data: st.DataObject) -> None:
    graph = drawn[0]
    guilty = data.draw(st.sampled_from(computed(graph)))
    ranks = [operand.ndim for operand in guilty.inputs]

    def fails(candidate: Graph) -> bool:
        candidate.verify()
        return any(
            value.op.name == guilty.op.name and [operand.ndim for operand in value.inputs] == ranks
            for value in computed(candidate)
        )

    reduced = reduce(graph, fails)
    assert fails(reduced)
    assert parse(str(reduced)) == reduced
    assert names(reduced) == [guilty.op.name]
    assert len(reduced.outputs) == 1
    (node,) = computed(reduced)
    assert {type(value.op) for value in node.inputs} <= {Input}
    assert len(reduced.inputs) <= max(1, len(ranks))


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_two_guilty_nodes_are_left_alone(drawn: tuple[Graph, object], data: st.DataObject) -> None:
    kinds = sorted(set(names(drawn[0])))
    guilty = {data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(kinds))}
    reduced = reduce(drawn[0], lambda candidate: guilty <= set(names(candidate)))
    assert sorted(names(reduced)) == sorted(guilty)


@settings(max_examples=30, deadline=None)
@given(graphs(), st.data())
def test_every_graph_that_is_tried_is_well_typed_and_runs(drawn: tuple[Graph, object], data: st.DataObject) -> None:
    """Whatever the check answers: reduction asks for no graph that could not be compiled."""
    seen: list[Graph] = []

    def fails(candidate: Graph) -> bool:
        seen.append(candidate)
        return len(seen) == 1 or data.draw(st.booleans())

    reduced = reduce(drawn[0], fails)
    assert any(reduced is candidate for candidate in seen)
    assert len(set(map(str, seen))) == len(seen)
    for candidate in seen:
        candidate.verify()
        assert candidate.outputs and parse(str(candidate)) == candidate


def test_sizes_shrink_as_far_as_the_check_and_the_ops_allow() -> None:
    graph = Graph("matmul")
    with building(graph):
        x, w = graph.input("x", TensorType(F32, (64, 784))), graph.input("w", TensorType(F32, (784, 10)))
        graph.output("y", ops.reshape(ops.matmul(x, w), (8, 8, 10)))

    def fails(candidate: Graph) -> bool:
        return any(value.op.name == "matmul" and value.shape[1] >= 3 for value in candidate.live())

    (product,) = computed(reduce(graph, fails))
    assert [operand.shape for operand in product.inputs] == [(1, 1), (1, 3)]

    def reshaped(candidate: Graph) -> bool:
        return {"reshape", "matmul"} <= set(names(candidate))

    assert {value.type.size for value in reduce(graph, reshaped).live()} == {1}


def test_what_lies_between_guilty_nodes_is_passed_by() -> None:
    graph = chain("exp", "tanh", "negative", "sigmoid", "log")

    def fails(candidate: Graph) -> bool:
        """exp and log of one value that depends on the other."""
        order = names(candidate)
        return order[:1] == ["exp"] and order[-1:] == ["log"] and len(candidate.inputs) == 1

    assert names(reduce(graph, fails)) == ["exp", "log"]


def test_outputs_donors_roles_and_constants_go() -> None:
    graph = Graph("step")
    with building(graph):
        w = graph.input("w", TensorType(F32, (4, 3)), role="parameter", permutation=(1, 0))
        new = w - ops.exp(w) * np.arange(12, dtype=np.float32).reshape(4, 3)
        graph.output("loss", ops.sum(ops.square(w)))
        graph.output("w", new, donor=w)

    reduced = reduce(graph, lambda candidate: "multiply" in names(candidate) and "subtract" in names(candidate))
    assert sorted(names(reduced)) == ["multiply", "subtract"]
    assert [output.donor for output in reduced.outputs] == [None] * len(reduced.outputs)
    assert {value.op for value in reduced.live() if isinstance(value.op, Constant)} == set()
    assert {(value.op.attributes["role"], value.op.attributes["permutation"]) for value in reduced.inputs} == {
        ("argument", ())
    }


def test_inputs_become_one_and_the_stage_is_forgotten() -> None:
    graph = Graph("sum")
    with building(graph):
        x, y = graph.input("x", TensorType(F32, (3,))), graph.input("y", TensorType(F32, (3,)))
        graph.output("z", ops.exp(x) + y)
    graph.stage, graph.inference = "forward", True
    reduced = reduce(graph, lambda candidate: "add" in names(candidate))
    assert (reduced.stage, reduced.inference) == ("", False)
    assert len(reduced.inputs) == 1
    kept = reduce(graph, lambda candidate: candidate.inference and "add" in names(candidate))
    assert (kept.stage, kept.inference) == ("forward", True)


def test_kernels_are_dropped_and_what_was_simplified_stays_so() -> None:
    graph = pipeline.lower(chain("exp", "tanh")).fused
    assert graph.groups and graph.stage == "fused"
    reduced = reduce(graph, lambda candidate: candidate.stage == "simplified")
    assert not reduced.groups and len(computed(reduced)) <= 1
    with pytest.raises(ValueError, match="without its kernels does not"):
        reduce(graph, lambda candidate: bool(candidate.groups))


def test_a_check_of_values_keeps_the_constant_that_it_needs() -> None:
    graph = chain("exp", "tanh")
    graph.output("z", graph.outputs[0].value / graph.constant(0.0, "f32"))

    def fails(candidate: Graph) -> bool:
        ones = {value.op.attributes["label"]: np.ones(value.shape, np.float32) for value in candidate.inputs}
        with np.errstate(all="ignore"):
            return any(np.isinf(array).any() for array in interpret(candidate, ones).values())

    reduced = reduce(graph, fails)
    assert names(reduced)[-1] == "divide" and len(computed(reduced)) <= 2
    assert [value.op.array for value in reduced.live() if isinstance(value.op, Constant)] == [0.0]


def test_captured_arrays_stay_with_their_inputs() -> None:
    graph = chain("exp")
    with building(graph):
        graph.output("z", graph.outputs[0].value + graph.capture(np.ones((1000, 6, 4), np.float32)))
    reduced = reduce(graph, lambda candidate: bool(candidate.captured) and "add" in names(candidate))
    assert names(reduced) == ["add"]
    assert list(reduced.captured) == [value.op.attributes["label"] for value in reduced.inputs if value.ndim == 3]
    assert reduce(graph, lambda candidate: "exp" in names(candidate)).captured == {}


def test_each_try_is_told_with_its_graph() -> None:
    tries: list[tuple[str, Graph, bool]] = []
    reduced = reduce(
        chain("exp", "tanh", "log"),
        lambda candidate: "tanh" in names(candidate),
        note=lambda step, candidate, fails: tries.append((step, candidate, fails)),
    )
    assert tries[0][0] == "the graph as it is"
    assert [candidate for _, candidate, fails in tries if fails][-1] is reduced
    assert all(fails is ("tanh" in names(candidate)) for _, candidate, fails in tries)
    assert any(not fails for _, _, fails in tries)


def test_out_of_time_the_smallest_so_far_is_returned() -> None:
    graph = chain("exp", "tanh", "log")
    assert reduce(graph, lambda candidate: True, seconds=0) == graph


def test_a_graph_that_does_not_fail_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a graph that fails the check. Received: 'chain', which does not"):
        reduce(chain("exp"), lambda candidate: False)
