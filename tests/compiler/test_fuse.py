"""Fusion: what becomes one kernel, what must not, and that each decision has a reason."""

import itertools
import sys
import threading
from collections.abc import Callable, Sequence

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import check
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Constant, Graph, Group, Input, Value
from gradloom.compiler.ops.base import Contraction, Elementwise, Reduction, Scatter
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.movement import Reshape
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.passes.fuse import DEEPEST, Decision, fuse
from gradloom.compiler.passes.groups import DEEPEST_KERNEL, check_groups
from gradloom.compiler.passes.reading import storage
from gradloom.compiler.types import BF16, F32, TensorType
from gradloom.testing import graphs
from mlp_step import label, lowered

# Any graph.


@settings(max_examples=200, derandomize=True, database=None)
@given(graphs(max_nodes=28), st.booleans())
def test_groups_compute_all_that_outputs_need(drawn: tuple[Graph, dict[str, np.ndarray]], enabled: bool) -> None:
    graph, _ = drawn
    fused, _ = fuse(graph, enabled)
    in_memory = {v for v in fused.live() if isinstance(v.op, Input | Constant)}
    made = [value for group in fused.groups for value in group.results]
    assert len(made) == len(set(made)), "a value is stored by one group only"
    in_memory.update(made)
    for group in fused.groups:
        members = set(group.members)
        assert set(group.results) <= members
        assert len(members) == len(group.members)
        assert list(group.members) == sorted(group.members, key=lambda member: member.number)
        for member in group.members:
            for operand in member.inputs:
                assert operand in members or storage(operand) in in_memory, f"{member!r} lacks {operand!r}"
        if enabled:
            check_one_anchor(group)
    for output in fused.outputs:
        assert storage(output.value) in in_memory


def check_one_anchor(group: Group) -> None:
    """A contraction or scatter has its kernel to itself; reductions of one kernel run over one set of axes."""
    anchors = [v for v in group.members if isinstance(v.op, Contraction | Scatter)]
    reductions = [v for v in group.members if isinstance(v.op, Reduction)]
    if group.kind in ("contraction", "scatter"):
        assert len(anchors) == 1 and not reductions
    else:
        assert not anchors
    assert bool(reductions) == (group.kind in ("rows", "reduce"))
    assert len({(v.inputs[0].shape, v.op.attributes["axes"]) for v in reductions}) <= 1


@settings(max_examples=200, derandomize=True, database=None)
@given(graphs(max_nodes=28))
def test_groups_need_each_other_in_no_circle(drawn: tuple[Graph, dict[str, np.ndarray]]) -> None:
    fused, _ = fuse(drawn[0])
    maker = {value: group for group in fused.groups for value in group.results}
    needs = networkx.DiGraph()
    for group in fused.groups:
        members = set(group.members)
        for operand in {storage(operand) for member in members for operand in member.inputs} - members:
            if operand in maker:
                needs.add_edge(maker[operand].name + str(id(maker[operand])), group.name + str(id(group)))
    assert networkx.is_directed_acyclic_graph(needs)


@settings(max_examples=60, derandomize=True, database=None)
@given(graphs(max_nodes=28))
def test_fusion_leaves_the_graph_and_stores_no_more_than_without(
    drawn: tuple[Graph, dict[str, np.ndarray]],
) -> None:
    graph, arrays = drawn
    fused, decisions = fuse(graph)
    plain, none = fuse(graph, enabled=False)
    for name, value in interpret(graph, arrays).items():
        np.testing.assert_array_equal(interpret(fused, arrays)[name], value)
    assert sum(len(group.results) for group in fused.groups) <= sum(len(group.results) for group in plain.groups)
    assert not none
    assert all(decision.reason and decision.node.graph is fused for decision in decisions)
    assert_told(fused, decisions)


def assert_told(fused: Graph, decisions: list[Decision]) -> None:
    """Assert that decisions to fuse hold, and that each kernel is connected by them."""
    made = [(decision.node, decision.partner) for decision in decisions if decision.fused]
    together = {pair for group in fused.groups for pair in itertools.product(group.members, repeat=2)}
    assert {*made} <= together
    for group in fused.groups:
        told = networkx.Graph()
        told.add_nodes_from(group.members)
        told.add_edges_from(pair for pair in made if {*pair} <= {*group.members})
        # Of a reshape, which has no memory of its own, nothing is decided.
        told.add_edges_from((m, o) for m in group.members if isinstance(m.op, Reshape) for o in m.inputs)
        told.add_edges_from((m, o) for m in group.members for o in m.inputs if isinstance(o.op, Reshape))
        told = told.subgraph(group.members)
        assert networkx.is_connected(told), f"{group}: {list(networkx.connected_components(told))}"


# Small ones.


def groups_of(graph: Graph) -> list[tuple[str, list[str]]]:
    """Kinds and ops of the groups."""
    fused, _ = fuse(graph)
    return [(group.kind, [member.op.name for member in group.members]) for group in fused.groups]


def build(*shapes: tuple[int, ...]) -> tuple[Graph, list[Value]]:
    graph = Graph("small")
    return graph, [graph.input(f"x{n}", TensorType(F32, shape)) for n, shape in enumerate(shapes)]


def test_an_elementwise_chain_is_one_kernel() -> None:
    graph, (x, y) = build((4, 300), (4, 300))
    graph.output("z", ops.exp(ops.tanh(ops.exp(x) + y) * 2.0))
    assert [kind for kind, _ in groups_of(graph)] == ["map"]


def test_a_reader_at_other_positions_stays_apart() -> None:
    graph, (x,) = build((40, 40))
    y = ops.exp(x)
    graph.output("z", y + ops.transpose(y))
    fused, decisions = fuse(graph)
    assert len(fused.groups) == 2
    refused = [decision for decision in decisions if not decision.fused]
    assert [decision.reason for decision in refused] == ["it reads the kernel's result at other positions than its own"]
    assert "stays apart from" in str(refused[0])


@pytest.mark.parametrize("shape", [(5, 2), (6, 40)])
def test_a_gather_reads_results_from_memory(shape: tuple[int, ...]) -> None:
    """Which rows it reads is known when it runs: they may be any, and not the kernel's own."""
    for function in (ops.softmax, lambda x: ops.relu(ops.matmul(x, ops.transpose(x))), ops.exp):
        graph, (x,) = build(shape)
        y = function(x)
        graph.output("y", y)
        graph.output("z", ops.take(y, np.zeros(shape[0], np.int32), axis=0))
        low = pipeline.lower(graph)
        assert len(low.fused.groups) == 2
        (refused,) = (decision for decision in low.decisions if not decision.fused)
        assert refused.reason == "it reads the kernel's result at other positions than its own"
        check(graph, {"x0": np.random.default_rng(0).normal(size=shape).astype(np.float32)})


def test_a_joining_that_would_close_a_circle_is_refused() -> None:
    graph, (x,) = build((40, 40))
    y = ops.exp(x)
    graph.output("z", ops.tanh(ops.tanh(ops.matmul(y, y)) * y))
    fused, decisions = fuse(graph)
    assert [group.kind for group in fused.groups] == ["map", "contraction"]
    assert any("another operand needs a kernel that needs this one" in decision.reason for decision in decisions)


def test_products_of_one_operand_stay_apart_and_their_sum_joins_one() -> None:
    graph, (x, a, b) = build((40, 30), (30, 50), (30, 50))
    graph.output("z", ops.matmul(x, a) + ops.matmul(x, b))
    assert groups_of(graph) == [("contraction", ["matmul"]), ("contraction", ["matmul", "add"])]


def test_what_a_reduction_needs_joins_it_unless_it_is_needed_in_memory_besides() -> None:
    graph, (x,) = build((90, 50))
    graph.output("total", ops.sum(ops.exp(x), axis=0))
    assert [kind for kind, _ in groups_of(graph)] == ["reduce"]
    graph, (x,) = build((90, 50))
    y = ops.exp(x)
    graph.output("total", ops.sum(y, axis=0))
    graph.output("y", y)
    fused, decisions = fuse(graph)
    assert [group.kind for group in fused.groups] == ["map", "reduce"]
    assert any(decision.reason == "what feeds it is needed in memory besides" for decision in decisions)


def test_rows_keep_what_feeds_them() -> None:
    graph, (x,) = build((90, 50))
    y = ops.exp(x)
    graph.output("total", ops.sum(y, axis=1))
    graph.output("y", y)
    assert [kind for kind, _ in groups_of(graph)] == ["rows"]


def test_a_reduction_over_columns_needs_the_one_before_it_in_memory() -> None:
    graph, (x,) = build((1, 40))
    once = graph.apply(Sum((0,)), x)
    graph.output("twice", graph.apply(Sum((0,)), ops.broadcast_to(once, (1, 40))))
    fused, decisions = fuse(graph)
    assert [group.kind for group in fused.groups] == ["reduce", "reduce"]
    assert [decision.reason for decision in decisions] == [
        "it needs what the kernel has reduced",
        "so cheap that each kernel computes it anew",
    ]


def test_small_neighbours_share_a_kernel_unless_one_reads_the_other_elsewhere() -> None:
    graph, (x, y) = build((8, 8), (8, 8))
    graph.output("a", ops.exp(x))
    graph.output("b", ops.tanh(y))
    assert groups_of(graph) == [("map", ["exp", "tanh"])]
    graph, (x, y) = build((8, 8), (8, 8))
    a = ops.exp(x)
    graph.output("a", a)
    graph.output("b", ops.tanh(ops.transpose(a)))
    assert len(groups_of(graph)) == 2


def test_cheap_results_are_computed_again_by_their_readers() -> None:
    """The mask of a ReLU is not stored: where it is needed, the activation tells it."""
    graph, (x, w) = build((50, 60), (60, 70))
    y = ops.relu(ops.matmul(x, w))
    graph.output("y", y)
    graph.output("g", ops.where(ops.greater(y, 0.0), ops.matmul(x * 2.0, w), 0.0))
    fused, _ = fuse(graph)
    stored = {value.op.name for group in fused.groups for value in group.results}
    assert "greater" not in stored


def test_what_is_computed_again_does_not_grow_along_a_chain() -> None:
    def largest_group(steps: int) -> int:
        graph, (x, kept) = build((4, 2048), (4, 2048))
        for n in range(steps):
            heavy = ops.tanh(x * (n + 1.0))
            graph.output(f"heavy{n}", heavy)
            kept = heavy + ops.flip(kept, 1)
            graph.output(f"read{n}", ops.exp(ops.flip(kept, 0)))
        return max(len(group.members) for group in fuse(graph)[0].groups)

    assert largest_group(24) == largest_group(12)


# Long chains: kernels are emitted by calls as deep as a chain goes.

STEPS: list[Callable[[Value, Value], Value]] = [
    lambda y, x: ops.tanh(y),
    lambda y, x: ops.tanh(y) + x,
    lambda y, x: x - y,
    lambda y, x: -y,
    lambda y, x: ops.flip(y, 1),
    lambda y, x: ops.reshape(ops.transpose(y), x.shape),
    lambda y, x: ops.reshape(ops.reshape(y, (3, 2, 4)), x.shape),
    lambda y, x: ops.concatenate([y[:3], x[3:]], axis=0),
    lambda y, x: y - ops.mean(y, axis=1, keepdims=True),
    lambda y, x: y - ops.mean(y, axis=0),
    lambda y, x: ops.tanh(ops.matmul(x, ops.matmul(ops.transpose(x), y))),
    lambda y, x: ops.cast(ops.cast(y, BF16), F32),
]
"""Ways from a tensor of shape (6, 4) to the next of a chain."""

Parts = list[tuple[Callable[[Value, Value], Value], int]]


def chains(steps: Sequence[Callable[[Value, Value], Value]] = STEPS) -> st.SearchStrategy[Parts]:
    return st.lists(st.tuples(st.sampled_from(steps), st.integers(1, 60)), min_size=1, max_size=5)


def chain(parts: Parts) -> Graph:
    graph, (x, y) = build((6, 4), (6, 4))
    for step, times in parts:
        for _ in range(times):
            y = step(y, x)
    graph.output("y", y)
    return graph


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(chains(), st.booleans(), st.booleans())
def test_no_kernel_has_a_deep_chain(parts: Parts, simplify: bool, enabled: bool) -> None:
    fused = pipeline.lower(chain(parts), pipeline.Options(simplify=simplify, fuse=enabled)).fused
    check_groups(fused)
    for group in fused.groups:
        depth: dict[Value, int] = {}
        for member in group.members:
            below = [depth[operand] for operand in member.inputs if operand in depth]
            # Reshapes of reshapes are one step.
            again = isinstance(member.op, Reshape) and isinstance(member.inputs[0].op, Reshape)
            depth[member] = max(below, default=0) + (not again)
        assert max(depth.values()) <= DEEPEST_KERNEL


@settings(max_examples=12, derandomize=True, database=None, deadline=None)
@given(chains(STEPS[:-1]))  # What is rounded to bf16 may be off by far more.
def test_long_chains_are_computed(parts: Parts) -> None:
    rng = np.random.default_rng(0)
    check(chain(parts), {name: rng.normal(size=(6, 4)).astype(np.float32) for name in ("x0", "x1")}, scale=100)


def test_a_long_chain_needs_no_deep_recursion() -> None:
    """Whatever the thread does that asks for a kernel: the limit of recursion is left alone, and suffices."""
    limit, lowered = sys.getrecursionlimit(), []

    def lower(step: Callable[[Value, Value], Value], frames: int = 400) -> None:
        if frames:
            lower(step, frames - 1)
        else:
            lowered.append(len(pipeline.lower(chain([(step, 300)]), pipeline.Options(simplify=False)).kernels))

    deep = [threading.Thread(target=lower, args=(step,)) for step in STEPS]
    for thread in deep:
        thread.start()
    for thread in deep:
        thread.join()
    assert len(lowered) == len(STEPS) and sys.getrecursionlimit() == limit


def test_a_chain_that_goes_on_in_another_kernel_says_so() -> None:
    graph, (x,) = build((6, 4))
    for _ in range(DEEPEST + 1):
        x = ops.tanh(x)
    graph.output("y", x)
    fused, decisions = fuse(graph)
    assert [len(group.members) for group in fused.groups] == [DEEPEST, 1]
    assert decisions[-1].reason == f"the kernel computes {DEEPEST} nodes one inside of another already"


def test_without_fusion_every_node_is_a_kernel() -> None:
    graph, (x, w) = build((50, 60), (60, 70))
    graph.output("y", ops.relu(ops.reshape(ops.matmul(x, w), (10, 5, 70)) + 1.0))
    fused, _ = fuse(graph, enabled=False)
    assert [group.kind for group in fused.groups] == ["contraction", "map", "map"]


# The train step.


def group_of(step: Graph, wanted: str) -> Group:
    """The group that makes the output `wanted`."""
    (value,) = (storage(output.value) for output in step.outputs if output.name == wanted)
    (group,) = (group for group in step.groups if value in group.results)
    return group


@pytest.fixture(scope="module")
def step() -> Graph:
    return lowered().fused


def forward_product(step: Graph) -> Group:
    (group,) = (
        group
        for group in step.groups
        if group.kind == "contraction" and any(label(v) == "hidden/bias" for m in group.members for v in inputs_of(m))
    )
    return group


def inputs_of(member: Value) -> list[Value]:
    return [operand for operand in member.inputs if isinstance(operand.op, Input)]


def test_no_buffer_between_product_bias_and_relu(step: Graph) -> None:
    group = forward_product(step)
    assert [m.op.name for m in group.members if not m.op.name.startswith(("gather", "conv", "resh", "mult"))] == [
        "matmul",
        "add",
        "maximum",
    ]
    assert [value.op.name for value in group.results] == ["maximum"]


def test_the_batch_is_read_in_the_prologue_of_products(step: Graph) -> None:
    """Row gather, conversion of bytes and scaling are computed where an element is loaded: no batch in memory."""
    readers = [
        group for group in step.groups if any(label(v) == "x" for member in group.members for v in inputs_of(member))
    ]
    assert readers == [forward_product(step), group_of(step, "hidden/kernel")]
    for group in readers:
        assert {"gather", "convert", "multiply", "matmul"} <= {member.op.name for member in group.members}
    assert not any(value.shape[:1] == (32,) and value.type.size >= 32 * 784 for g in step.groups for value in g.results)


@pytest.mark.parametrize("layer", ["hidden", "scores"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_no_gradient_of_weights_is_stored(layer: str, optimizer: str) -> None:
    """The product that is a weight's gradient goes straight into the optimizer's update of the weight."""
    step = lowered(optimizer=optimizer).fused
    group = group_of(step, f"{layer}/kernel")
    assert group.kind == "contraction"
    (product,) = (member for member in group.members if isinstance(member.op, Matmul))
    assert product not in group.results
    states = {storage(output.value) for output in step.outputs}
    assert set(group.results) <= states, "the update leaves nothing but new state"
    if optimizer == "sgd":
        assert len(group.results) == 1


@pytest.mark.parametrize("layer", ["hidden", "scores"])
def test_no_gradient_of_biases_is_stored(step: Graph, layer: str) -> None:
    group = group_of(step, f"{layer}/bias")
    assert group.kind == "reduce"
    assert not any(isinstance(value.op, Reduction) for value in group.results)


def test_softmax_loss_and_their_gradient_are_one_kernel_of_rows(step: Graph) -> None:
    exponentials = [group for group in step.groups if any(member.op.name == "exp" for member in group.members)]
    (group,) = exponentials
    assert group.kind == "rows"
    assert sum(isinstance(member.op, Reduction) for member in group.members) >= 2
    wide = [value for value in group.results if value.shape == (32, 10)]
    assert len(wide) == 1, "of all that has an element for each class, only the gradient is stored"


def test_no_mask_is_stored(step: Graph) -> None:
    assert not any(value.dtype.kind == "bool" for group in step.groups for value in group.results)
    (masking,) = (g for g in step.groups if g.results[0].op.name == "select" and g.results[0].shape == (32, 128))
    assert masking.kind == "contraction" and "greater" in {member.op.name for member in masking.members}


def test_what_the_step_keeps_in_memory(step: Graph) -> None:
    """Activations and their gradients, and two numbers a sample for loss and metric."""
    states = {storage(output.value) for output in step.outputs}
    kept = sorted(value.shape for group in step.groups for value in group.results if value not in states)
    assert kept == [(32,), (32,), (32, 10), (32, 10), (32, 128), (32, 128)]


def test_decisions_say_what_was_fused_and_what_was_not(step: Graph) -> None:
    decisions = lowered().decisions
    made = [decision for decision in decisions if decision.fused]
    refused = [decision for decision in decisions if not decision.fused]
    assert made and refused
    assert all(decision.reason for decision in decisions)
    relu = [d for d in made if d.node.op.name == "maximum" and isinstance(d.node.op, Elementwise)]
    assert relu and all("joins" in str(d) for d in relu)
