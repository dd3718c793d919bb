"""The pipeline: stages computed once, kernels shared by structure, keys that hold what code depends on."""

import dataclasses
import gc
import itertools
from typing import Any

import numpy as np
import pytest

from compiled import assert_close, run_program
from gradloom.compiler import ops, options, pipeline, schedule
from gradloom.compiler.choices import Choice, Choices, Departure
from gradloom.compiler.errors import MemoryLimitError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.kernels.lowering import Lowered, Task
from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.loops.structure import structure
from gradloom.compiler.options import Options, cache_key
from gradloom.compiler.program import Call
from gradloom.compiler.provenance import Provenance, layer_scope
from gradloom.compiler.types import F32, F64, TensorType
from mlp_step import lowered as mlp_lowered
from mlp_step import train_graph


def graph_of(shape: tuple[int, ...] = (4, 40), scale: float = 2.0, layer: str = "", name: str = "y") -> Graph:
    graph = Graph("small")
    with building(graph), layer_scope(layer or "layer"):
        graph.output(name, ops.tanh(graph.input("x", TensorType(F32, shape)) * scale))
    return graph


def key(graph: Graph, **chosen: Any) -> str:
    return cache_key(graph, Options(**chosen))


# Keys.


def test_the_key_is_the_same_for_the_same_graph() -> None:
    assert key(graph_of()) == key(graph_of())
    assert len(key(graph_of())) == 64


@pytest.mark.parametrize(
    "other",
    [
        graph_of(shape=(40, 4)),
        graph_of(scale=2.0000002),
        graph_of(scale=-2.0),
    ],
    ids=["shape", "last digit", "sign"],
)
def test_the_key_changes_with_the_graph(other: Graph) -> None:
    assert key(other) != key(graph_of())


def test_the_key_tells_zeros_and_nans_apart() -> None:
    values = (0.0, -0.0, float("nan"), float("inf"), 1e-45)
    keys = {key(graph_of(scale=value)) for value in values}
    assert len(keys) == len(values)


def test_the_key_changes_with_roles_donors_and_permutations() -> None:
    def build(role: str = "state", permutation: tuple[int, ...] = (), donate: bool = True) -> Graph:
        graph = Graph("step")
        x = graph.input("x", TensorType(F32, (5, 5)), role, permutation)
        graph.output("x2", ops.tanh(x), x if donate else None)
        return graph

    keys = {key(build()), key(build(role="parameter")), key(build(permutation=(1, 0))), key(build(donate=False))}
    assert len(keys) == 4


def test_the_key_does_not_change_with_provenance_and_names() -> None:
    """Neither with layers nor with the lines of the user's file."""
    graph = graph_of(layer="one")
    other = graph_of(layer="two")
    assert key(graph) == key(graph_of(name="z")), "what results are called changes no code"
    assert any(graph.provenance[a] != other.provenance[b] for a, b in zip(graph.values, other.values, strict=True))
    assert key(graph) == key(other)
    for value in other.values:
        other.provenance[value] = frozenset([Provenance("layer", "model.py:123")])
    assert key(graph) == key(other)


def test_the_key_changes_with_every_option() -> None:
    changed: dict[str, Any] = {"cores": 3, "simplify": False, "fuse": False, "memory_limit": 10**9, "timed": True}
    changed |= {"block_cost": 16, "parallel_bytes": 0}
    changed["choices"] = Choices((Departure("matmul", Choice("definition"), "definition"),))
    changed["target"] = dataclasses.replace(Target.host(), l2=12345)
    fields = {field.name for field in dataclasses.fields(Options)}
    assert set(changed) == fields, "an option that is not in the key would be taken from the cache of another"
    keys = {key(graph_of(), **{name: value}) for name, value in changed.items()} | {key(graph_of())}
    assert len(keys) == len(fields) + 1


def test_the_key_changes_with_every_field_of_the_target() -> None:
    host = Target.host()
    keys = {key(graph_of(), target=host)}
    for field in dataclasses.fields(Target):
        value = getattr(host, field.name)
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value + "x"
        keys.add(key(graph_of(), target=dataclasses.replace(host, **{field.name: other})))
    assert len(keys) == len(dataclasses.fields(Target)) + 1


def test_the_key_changes_with_the_version_of_generated_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(graph_of())
    monkeypatch.setattr(options, "code_version", lambda: "another")
    assert key(graph_of()) != before


# Stages.


def test_stages_are_computed_once_and_leave_the_graph() -> None:
    graph = graph_of()
    text = str(graph)
    low = pipeline.lower(graph)
    for stage in ("simplified", "fused", "decisions", "scheduled", "memory", "steps", "kernels", "arguments"):
        assert getattr(low, stage) is getattr(low, stage), stage
    assert str(graph) == text
    low.simplified.verify()
    low.fused.verify()


def test_without_simplification_the_graph_stays() -> None:
    graph = Graph("sum")
    x = graph.input("x", TensorType(F32, (4,)))
    graph.output("y", x + 0.0 * x)
    assert pipeline.lower(graph, Options(simplify=False)).simplified == graph


def test_nothing_is_generated_before_it_is_asked_for() -> None:
    before = codegen.compilations
    low = pipeline.lower(graph_of())
    assert low.memory.arena_bytes == 0 and low.steps
    assert codegen.compilations == before
    low.program()
    assert codegen.compilations == before + 1


@pytest.mark.parametrize("level", host_levels())
def test_llvm_and_assembly(level: str) -> None:
    low = pipeline.lower(graph_of(), Options(Target.named(level)))
    text = low.llvm()
    assert "define" in text and low.kernels[0].name in text
    assert f"<{low.options.target.lanes} x float>" in text
    assembly = low.assembly()
    assert low.kernels[0].name in assembly and "ret" in assembly


def test_fused_and_scheduled_print() -> None:
    low = mlp_lowered()
    assert 'kernel "hidden/matmul+add+maximum" contraction' in str(low.fused)
    assert "parallel for" in str(low.scheduled)
    assert "arena" in str(low.memory)


def test_the_program_describes_itself() -> None:
    low = mlp_lowered()
    program = low.program()
    assert program.schedule == tuple(map(str, low.steps))
    assert program.arena_bytes == low.memory.arena_bytes
    assert {argument.name for argument in program.arguments if argument.written} == {
        output.name for output in low.fused.outputs
    }
    assert program.max_threads == max(item.blocks for item in low.steps if isinstance(item, Call))


def test_a_small_program_runs_on_one_thread() -> None:
    assert pipeline.compile_graph(graph_of()).max_threads == 1


def test_the_same_graph_compiles_to_the_same_code() -> None:
    graph = train_graph()
    one, other = (pipeline.compile_graph(graph, Options(cores=2)) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("stage", ["scheduled", "kernels", "memory", "steps"])
@pytest.mark.parametrize("at", [0, 3])
def test_stages_are_made_anew_after_an_interrupt(stage: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = train_graph(4)
    low = pipeline.lower(graph, Options(cores=2))
    expected = [str(kernel) for kernel in pipeline.lower(graph, Options(cores=2)).kernels]
    calls = itertools.count()
    lower = schedule.lower_contraction

    def interrupted(task: Task) -> list[Lowered]:
        if not task.outline and next(calls) == at:
            raise KeyboardInterrupt
        return lower(task)

    monkeypatch.setattr(schedule, "lower_contraction", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ = [*low.scheduled.launches] if stage == "scheduled" else str(getattr(low, stage)) + str(len(low.kernels))
    assert [str(kernel) for kernel in low.kernels] == expected
    assert len(low.steps) > len(low.scheduled.launches) == len(low.kernel_names)
    assert low.memory.arena_bytes


# Kernels of equal structure.


def apart(functions: list[Any], shape: tuple[int, ...] = (3, 20)) -> tuple[Graph, pipeline.Lowering]:
    """Each function on an input of its own, as kernels of their own."""
    graph = Graph("apart")
    with building(graph):
        for n, function in enumerate(functions):
            x: Value = graph.input(f"x{n}", TensorType(F32, shape))
            graph.output(f"y{n}", function(x))
    return graph, pipeline.lower(graph, Options(simplify=False, fuse=False))


def test_kernels_of_one_structure_are_compiled_once() -> None:
    graph, low = apart([ops.tanh] * 5)
    assert len(low.scheduled.launches) == 5 and len(low.kernels) == 1
    rng = np.random.default_rng(0)
    arrays = {f"x{n}": rng.normal(size=(3, 20)).astype(np.float32) for n in range(5)}
    assert_close(run_program(low.program(), graph, arrays), interpret(graph, arrays), graph)


def test_layers_of_one_shape_share_their_kernels() -> None:
    graph = Graph("deep")
    with building(graph):
        x = graph.input("x", TensorType(F32, (8, 32)))
        for n in range(6):
            with layer_scope(f"layer{n}"):
                w = graph.input(f"w{n}", TensorType(F32, (32, 32)), "parameter")
                x = ops.relu(ops.matmul(x, w) + graph.input(f"b{n}", TensorType(F32, (32,)), "parameter"))
        graph.output("y", x)
    low = pipeline.lower(graph)
    assert len(low.scheduled.launches) == 6 and len(low.kernels) == 1
    rng = np.random.default_rng(0)
    arrays = {v.op.attributes["label"]: rng.normal(size=v.shape).astype(np.float32) * 0.3 for v in graph.inputs}
    assert_close(run_program(low.program(), graph, arrays), interpret(graph, arrays), graph)


def test_kernels_that_are_named_like_what_they_compute_are_told_apart() -> None:
    """Names of kernels come from ops, and so do words in their text."""
    functions = [ops.floor, ops.ceil, ops.round, ops.sqrt, ops.absolute, ops.negative]
    functions += [lambda x, op=op: op(x, axis=1) for op in (ops.max, ops.min, ops.sum, ops.prod)]
    graph, low = apart(functions)
    assert len(low.kernels) == len(functions)
    rng = np.random.default_rng(0)
    arrays = {f"x{n}": rng.uniform(0.5, 9, (3, 20)).astype(np.float32) for n in range(len(functions))}
    assert_close(run_program(low.program(), graph, arrays), interpret(graph, arrays), graph)


def test_kernels_that_differ_in_a_literal_or_a_size_are_told_apart() -> None:
    values = (1.0, 1.0000001, -1.0, 0.0, -0.0)
    _, low = apart([lambda x, value=value: x * value for value in values])
    assert len(low.kernels) == len(values)
    graph = Graph("sizes")
    for size in (15, 16, 17, 32):
        graph.output(f"y{size}", ops.tanh(graph.input(f"x{size}", TensorType(F32, (3, size)))))
        graph.output(f"z{size}", ops.tanh(graph.input(f"w{size}", TensorType(F64, (3, size)))))
    assert len(pipeline.lower(graph, Options(fuse=False)).kernels) == 8


def test_structure_is_that_of_the_kernel_alone() -> None:
    """Names of buffers and of the kernel do not matter; which buffer is which does."""
    _, low = apart([ops.tanh, ops.tanh])
    first, second = (launch.kernel for launch in low.scheduled.launches)
    assert structure(first) == structure(second)
    assert structure(first) == structure(dataclasses.replace(first, name="other"))
    graph = Graph("operands")
    with building(graph):
        x, y = (graph.input(name, TensorType(F32, (3, 20))) for name in "xy")
        graph.output("d", x - y * y)
    (launch,) = pipeline.lower(graph).scheduled.launches
    swapped = dataclasses.replace(launch.kernel, buffers=launch.kernel.buffers[::-1])
    assert structure(swapped) != structure(launch.kernel)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        pipeline.compile_graph(graph_of())
        assert gc.isenabled() is enabled
        with pytest.raises(MemoryLimitError):
            pipeline.compile_graph(train_graph(4), Options(memory_limit=0))
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
