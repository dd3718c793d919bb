"""The rewriting engine: what it keeps, what it reports, and which rules it refuses."""

import numpy as np
import pytest

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.ir import Graph, Group, Value
from gradloom.compiler.ops.arithmetic import Add, Multiply, Subtract
from gradloom.compiler.ops.elementwise import Convert, Exp, Negative
from gradloom.compiler.passes.rewrite import Draft, rewrite, rule_on
from gradloom.compiler.provenance import Provenance, layer_scope
from gradloom.compiler.types import F32, F64, TensorType

VECTOR = TensorType(F32, (4,))


@rule_on(Negative)
def drop_double_negative(graph: Draft, value: Value) -> Value | None:
    """−(−x) → x"""
    (x,) = value.inputs
    return x.inputs[0] if isinstance(x.op, Negative) else None


@rule_on(Add)
def swap(graph: Draft, value: Value) -> Value | None:
    """x + y → y + x, for ever"""
    x, y = value.inputs
    return graph.apply(Add(), y, x)


@rule_on(Exp)
def widen(graph: Draft, value: Value) -> Value | None:
    """exp(x) → a value of another type"""
    return graph.apply(Convert(F64), value)


@rule_on(Multiply)
def square_of_difference(graph: Draft, value: Value) -> Value | None:
    """x · x → (x − 0) · (x + 0) if nobody else reads x: only to see who counts as a reader"""
    x, y = value.inputs
    if x is not y or graph.shared(x):
        return None
    zero = graph.constant(np.float32(0))
    return graph.apply(Multiply(), graph.apply(Subtract(), x, zero), graph.apply(Add(), x, zero))


def negatives(count: int) -> tuple[Graph, Value, Value]:
    """A chain of sign changes from x on, and its end."""
    graph = Graph("chain")
    x = end = graph.input("x", VECTOR)
    for _ in range(count):
        end = graph.apply(Negative(), end)
    graph.output("y", end)
    return graph, x, end


@pytest.mark.parametrize("count", [1, 2, 3, 4, 31])
def test_chain_comes_to_rest(count: int) -> None:
    graph, x, end = negatives(count)
    before = str(graph)
    result = rewrite(graph, [drop_double_negative])
    assert len(result.graph.values) == 1 + count % 2
    assert [firing.rule for firing in result.firings] == ["drop_double_negative"] * len(result.firings)
    assert bool(result.firings) == (count > 1)
    assert result.image[end] is result.graph.outputs[0].value
    assert result.image[x] is result.graph.inputs[0]
    assert str(graph) == before, "the graph that came in has changed"
    result.graph.verify()


def test_inputs_outputs_and_donors_stay() -> None:
    graph = Graph("step")
    unused, state = graph.input("unused", VECTOR), graph.input("state", VECTOR, "state")
    twice = graph.apply(Negative(), graph.apply(Negative(), state))
    graph.output("state", twice, state)
    graph.output("copy", twice)
    rewritten = rewrite(graph, [drop_double_negative]).graph
    assert [value.op for value in rewritten.inputs] == [unused.op, state.op]
    assert [(out.name, out.donor) for out in rewritten.outputs] == [("state", rewritten.inputs[1]), ("copy", None)]
    assert all(out.value is rewritten.inputs[1] for out in rewritten.outputs)


def test_provenance_is_united() -> None:
    graph = Graph("two layers")
    x = graph.input("x", VECTOR)
    with layer_scope("first"):
        once = graph.apply(Negative(), x)
        y = graph.apply(Exp(), graph.apply(Negative(), once))
    with layer_scope("second"):
        z = graph.apply(Exp(), x)
    graph.output("y", y)
    graph.output("z", z)
    rewritten = rewrite(graph, [drop_double_negative]).graph
    assert rewritten.outputs[0].value is rewritten.outputs[1].value
    assert {origin.layer for origin in rewritten.provenance[rewritten.outputs[0].value]} == {"first", "second"}


def test_new_nodes_come_from_the_node_they_replace() -> None:
    graph = Graph("square")
    x = graph.input("x", VECTOR)
    y = graph.apply(Multiply(), x, x, provenance=[Provenance("dense", "model.py:7")])
    graph.output("y", y)
    rewritten = rewrite(graph, [square_of_difference]).graph
    made = [value for value in rewritten.values if value is not rewritten.inputs[0]]
    assert len(made) == 4
    assert all(rewritten.provenance[value] == {Provenance("dense", "model.py:7")} for value in made)


def test_a_second_reader_makes_a_value_shared() -> None:
    graph = Graph("square")
    x = graph.input("x", VECTOR)
    graph.output("y", graph.apply(Multiply(), x, x))
    graph.output("x", x)
    assert not rewrite(graph, [square_of_difference]).firings


def test_rules_that_never_rest_are_named() -> None:
    graph = Graph("sum")
    graph.output("y", graph.apply(Add(), graph.input("x", VECTOR), graph.input("z", VECTOR)))
    with pytest.raises(VerificationError, match="'sum'.*swap"):
        rewrite(graph, [swap])


def test_a_rule_must_keep_the_type() -> None:
    graph = Graph("exp")
    graph.output("y", graph.apply(Exp(), graph.input("x", VECTOR)))
    with pytest.raises(VerificationError, match="rule widen"):
        rewrite(graph, [widen])


def test_a_fused_graph_is_refused() -> None:
    graph, _, end = negatives(2)
    graph.groups = (Group("k", "map", (end,), (end,)),)
    with pytest.raises(VerificationError, match="not fused"):
        rewrite(graph, [drop_double_negative])
