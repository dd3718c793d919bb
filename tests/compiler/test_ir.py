"""The graph IR: interning, provenance, typing errors, rebuilding, equality, verification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.errors import DTypeError, ShapeError, VerificationError
from gradloom.compiler.ir import Graph, Input, Value, current_graph
from gradloom.compiler.ops.arithmetic import Add
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.elementwise import Exp
from gradloom.compiler.provenance import Provenance, layer_scope
from gradloom.compiler.types import F32, I32, TensorType
from gradloom.testing import graphs

pytestmark = pytest.mark.smoke


def f32(*shape: int) -> TensorType:
    return TensorType(F32, shape)


def test_equal_nodes_are_one() -> None:
    graph = Graph()
    x, y = graph.input("x", f32(3)), graph.input("y", f32(3))
    assert x + y is x + y
    assert x + y is not y + x
    assert graph.input("x", f32(3)) is x
    assert graph.constant(2.0, "f32") is graph.constant(2.0, "f32")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float32(0.0), np.float32(-0.0)),
        (np.float32(1), np.float64(1)),
        (np.float32(1), np.ones(1, np.float32)),
        (np.uint32(0x7FC00000).view(np.float32), np.uint32(0x7FC00001).view(np.float32)),
    ],
)
def test_constants_are_told_apart_by_bits_and_type(one: np.ndarray, other: np.ndarray) -> None:
    graph = Graph()
    assert graph.constant(one) is not graph.constant(other)
    assert graph.constant(one) is graph.constant(one)


def test_a_node_that_two_layers_make_knows_both() -> None:
    graph = Graph()
    x = graph.input("x", f32(3))
    with layer_scope("outer"), layer_scope("first"):
        first = ops.tanh(x)
    with layer_scope("second"):
        assert ops.tanh(x) is first
    assert {origin.layer for origin in graph.provenance[first]} == {"outer/first", "second"}
    assert all(origin.source.startswith(f"{__file__}:") for origin in graph.provenance[first])


def test_provenance_is_no_part_of_identity() -> None:
    def build(layer: str) -> Graph:
        graph = Graph()
        with layer_scope(layer):
            graph.output("y", ops.exp(graph.input("x", f32(3))))
        return graph

    assert build("one") == build("two")
    assert hash(build("one")) == hash(build("two"))


def test_a_refused_node_says_where_it_was_asked_for() -> None:
    graph = Graph()
    x, w = graph.input("x", f32(32, 784)), graph.input("w", f32(128, 10))
    with layer_scope("dense"), pytest.raises(ShapeError) as caught:
        graph.apply(Matmul(), x, w)
    message = str(caught.value)
    assert "matmul(f32[32,784], f32[128,10])" in message
    assert "[dense, " in message and f"{__file__}:" in message
    before = len(graph.values)
    with pytest.raises(DTypeError, match=r"add\(f32\[32,784\], i32\[\]\)"):
        graph.apply(Add(), x, graph.input("n", TensorType(I32, ())))
    assert len(graph.values) == before + 1  # the input, and no add


def test_operands_of_another_graph_are_refused() -> None:
    x, y = Graph("one").input("x", f32(3)), Graph("two").input("y", f32(3))
    with pytest.raises(VerificationError, match="'one'"):
        x.graph.apply(Add(), x, y)


def test_inputs_have_labels_of_their_own() -> None:
    graph = Graph("one")
    x = graph.input("x", f32(3))
    assert graph.input("x", f32(3)) is x
    for other in (lambda: graph.input("x", f32(4)), lambda: graph.input("x", f32(3), "parameter")):
        with pytest.raises(
            VerificationError, match=r"'one': Expected inputs of different labels. Received: another 'x'"
        ):
            other()
    assert graph.inputs == [x]


def test_a_captured_array_takes_no_label_of_an_argument() -> None:
    graph = Graph()
    arrays = [np.full(500, number, np.float32) for number in range(3)]
    argument = graph.input("captured_1", f32(500))
    captured = [graph.capture(array) for array in (*arrays, *arrays)]
    assert captured[:3] == captured[3:] and len({argument, *captured}) == 4
    np.testing.assert_array_equal(list(graph.captured.values()), arrays)


def test_a_donor_has_the_type_of_its_output() -> None:
    graph = Graph()
    x = graph.input("x", f32(3))
    with pytest.raises(VerificationError, match="cannot be written onto"):
        graph.output("y", ops.sum(x), x)


def test_rebuilding_drops_dead_nodes_and_keeps_inputs() -> None:
    graph = Graph("g")
    x, unused = graph.input("x", f32(3)), graph.input("unused", f32(2))
    ops.exp(x)
    with layer_scope("layer"):
        result = ops.tanh(x)
    graph.output("y", result, x)
    copy, new = graph.rebuild()
    assert [value.op.name for value in copy.values] == ["input", "input", "tanh"]
    assert copy == graph and copy.values is not graph.values
    assert copy.provenance[new[result]] == graph.provenance[result]
    assert copy.outputs[0].donor is new[x]
    assert new[unused].op == Input("unused", f32(2))
    copy.verify()


def test_equality_sees_names_donors_and_roles() -> None:
    def build(name: str = "g", output: str = "y", donor: bool = False, role: str = "argument") -> Graph:
        graph = Graph(name)
        x = graph.input("x", f32(3), role)
        graph.output(output, ops.exp(x), x if donor else None)
        return graph

    assert build() == build()
    for different in (build(name="h"), build(output="z"), build(donor=True), build(role="state")):
        assert different != build()


def test_users_are_the_live_readers() -> None:
    graph = Graph()
    x = graph.input("x", f32(3))
    square, dead = x * x, ops.exp(x)
    result = ops.tanh(square)
    graph.output("y", result)
    users = graph.users()
    assert users[x] == [square] and users[square] == [result] and users[result] == []
    assert dead not in users


def test_verification_finds_a_wrong_type() -> None:
    graph = Graph()
    x = graph.input("x", f32(3))
    y = ops.tanh(ops.exp(x))
    graph.output("y", y)
    graph.verify()
    y.inputs[0].type = f32(4)
    with pytest.raises(VerificationError, match=r"has type f32\[4\], but its op infers f32\[3\]\naround it:\n%0"):
        graph.verify()


def test_verification_finds_an_operand_that_comes_later() -> None:
    graph = Graph()
    x = graph.input("x", f32(3))
    y, z = ops.exp(x), ops.tanh(x)
    y.inputs = (z,)
    with pytest.raises(VerificationError, match="does not come before"):
        graph.verify()


def test_verification_finds_a_foreign_output() -> None:
    graph, other = Graph(), Graph()
    graph.output("y", other.input("x", f32(3)))
    with pytest.raises(VerificationError, match="output 'y'"):
        graph.verify()


def test_a_symbolic_value_has_no_truth_and_a_length_only_with_axes() -> None:
    graph = Graph()
    x = graph.input("x", f32(3, 2))
    with pytest.raises(TypeError, match="where"):
        bool(x > 0.0)
    assert len(x) == 3 and [row.shape for row in x] == [(2,)] * 3
    with pytest.raises(TypeError, match="rank 0"):
        len(graph.input("s", f32()))
    assert x.ndim == 2 and repr(x) == "%0: f32[3,2] = input"


def test_scopes_end_with_their_blocks() -> None:
    with pytest.raises(RuntimeError), layer_scope("broken"):
        raise RuntimeError
    graph = Graph()
    x = graph.input("x", f32(3))
    assert {origin.layer for origin in graph.provenance[x]} == {""}
    assert current_graph() is None
    assert str(Provenance("dense", "train.py:3")) == "dense, train.py:3"


@given(graphs())
def test_random_graphs_verify_and_rebuild_to_equal_ones(case: tuple[Graph, dict[str, np.ndarray]]) -> None:
    graph, _ = case
    graph.verify()
    copy, new = graph.rebuild()
    copy.verify()
    assert copy == graph and hash(copy) == hash(graph)
    assert copy.rebuild()[0] == graph
    for old, image in new.items():
        assert (image.op, image.type) == (old.op, old.type)


@given(graphs(), st.data())
def test_applying_a_node_again_finds_it(case: tuple[Graph, dict[str, np.ndarray]], data: st.DataObject) -> None:
    graph, _ = case
    value: Value = data.draw(st.sampled_from(graph.values))
    count = len(graph.values)
    assert graph.apply(value.op, *value.inputs) is value
    assert len(graph.values) == count


def test_copying_a_node_onto_operands_of_the_same_types_infers_nothing(monkeypatch):
    graph = Graph()
    x = graph.input("x", TensorType(F32, (2, 3)))
    y = graph.apply(Exp(), x)
    graph.output("y", y)
    other = Graph()
    wider = other.input("x", TensorType(F32, (4, 3)))
    assert other.copy(y, wider).shape == (4, 3)

    def refuse(*operands):
        raise AssertionError("inferred anew")

    monkeypatch.setattr(Exp, "infer", refuse)
    assert Graph().copy(x).type == x.type
    assert graph.rebuild()[0] == graph
