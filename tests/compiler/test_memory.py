"""Memory planning: what is alive at the same time never overlaps, and the peak is told before anything runs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler import ops, pipeline
from gradloom.compiler.errors import MemoryLimitError
from gradloom.compiler.ir import Graph, Group, building
from gradloom.compiler.loops.grammar import Block, Buffer, Expr, Kernel, VType
from gradloom.compiler.memory import SHARED_FROM, MemoryPlan, plan_memory
from gradloom.compiler.program import ALIGNMENT, Argument, Pointer
from gradloom.compiler.schedule import Launch, Schedule
from gradloom.compiler.types import F32, I64, U8, TensorType
from gradloom.testing import graphs
from mlp_step import lowered, train_graph

Lifetime = tuple[int, int, int]  # first call, last call, bytes


def schedule_of(lifetimes: list[Lifetime], calls: int, scratch: int = 0) -> Schedule:
    """Calls that touch buffers of these lifetimes, and an argument."""
    argument = Buffer("argument", TensorType(F32, (10,)))
    buffers = [Buffer(f"b{n}", TensorType(U8, (size,))) for n, (_, _, size) in enumerate(lifetimes)]
    begin, end = (Expr("var", VType(I64), (), name) for name in ("begin", "end"))
    own = (Buffer("scratch", TensorType(U8, (scratch,)), "scratch"),) if scratch else ()
    launches = []
    for call in range(calls):
        # A buffer is touched by the first and the last call of its life, and may be by those between.
        touched = [b for b, (first, last, _) in zip(buffers, lifetimes, strict=True) if call in (first, last)]
        kernel = Kernel(f"k{call}", (argument, *touched), own, 1, begin, end, Block())
        launches.append(Launch(kernel, Group(f"k{call}", "map", (), ()), kernel.buffers, {}))
    return Schedule([Argument("argument", argument.type)], launches, {argument: Pointer("argument", 0)}, [])


@st.composite
def lifetimes(draw: Any) -> tuple[list[Lifetime], int]:
    calls = draw(st.integers(1, 12))
    drawn = []
    for _ in range(draw(st.integers(0, 15))):
        first = draw(st.integers(0, calls - 1))
        size = draw(st.one_of(st.integers(0, 300), st.integers(SHARED_FROM, 60000)))
        drawn.append((first, draw(st.integers(first, calls - 1)), size))
    return drawn, calls


@settings(max_examples=300)
@given(lifetimes())
def test_what_is_alive_together_does_not_overlap(drawn: tuple[list[Lifetime], int]) -> None:
    plan = plan_memory(schedule_of(*drawn))
    check_plan(plan)
    assert sorted((slot.first, slot.last, slot.nbytes) for slot in plan.slots.values()) == sorted(drawn[0])


def check_plan(plan: MemoryPlan) -> None:
    slots = list(plan.slots.values())
    for n, one in enumerate(slots):
        assert one.offset % ALIGNMENT == 0
        assert one.offset >= 0 and one.offset + one.nbytes <= plan.arena_bytes
        for other in slots[:n]:
            together = one.first <= other.last and other.first <= one.last
            apart = one.offset + one.nbytes <= other.offset or other.offset + other.nbytes <= one.offset
            assert apart or not together, (one, other)
    assert plan.arena_bytes % ALIGNMENT == 0


@settings(max_examples=300)
@given(lifetimes())
def test_the_peak_is_that_of_all_calls(drawn: tuple[list[Lifetime], int]) -> None:
    alive, calls = drawn
    plan = plan_memory(schedule_of(alive, calls))
    totals = [sum(size for first, last, size in alive if first <= call <= last) for call in range(calls)]
    if alive:
        at, live = plan.peak()
        assert totals[at] == max(totals) == sum(slot.nbytes for slot in live)
        assert [slot.nbytes for slot in live] == sorted((slot.nbytes for slot in live), reverse=True)
    assert plan.arena_bytes >= max(totals, default=0)


@settings(max_examples=300)
@given(lifetimes())
def test_the_arena_is_close_to_the_peak(drawn: tuple[list[Lifetime], int]) -> None:
    """No larger than without sharing; and where lifetimes don't cross, no larger than the largest."""
    alive, calls = drawn
    plan = plan_memory(schedule_of(alive, calls))
    aligned = [-(-size // ALIGNMENT) * ALIGNMENT for _, _, size in alive]
    assert plan.arena_bytes <= sum(aligned)
    chain = [(n, n, size + SHARED_FROM) for n, (_, _, size) in enumerate(alive)]
    if chain:
        shared = plan_memory(schedule_of(chain, len(chain)))
        assert shared.arena_bytes == max(-(-size // ALIGNMENT) * ALIGNMENT for _, _, size in chain)


def test_small_buffers_share_with_nobody() -> None:
    """To use the memory of a few bytes again would cost a barrier."""
    plan = plan_memory(schedule_of([(0, 0, 100), (1, 1, 100)], 2))
    assert plan.arena_bytes == 256
    plan = plan_memory(schedule_of([(0, 0, SHARED_FROM), (1, 1, SHARED_FROM)], 2))
    assert plan.arena_bytes == SHARED_FROM


def test_scratch_is_that_of_the_hungriest_kernel() -> None:
    assert plan_memory(schedule_of([], 2, scratch=100)).scratch_bytes == 128
    assert plan_memory(schedule_of([], 2)).scratch_bytes == 0


def test_arguments_and_constants_take_no_room_in_the_arena() -> None:
    assert plan_memory(schedule_of([], 3)).arena_bytes == 0


def test_a_limit_that_is_exceeded_names_the_peak() -> None:
    schedule = schedule_of([(0, 1, 10000), (1, 2, 20000), (2, 2, 50)], 3, scratch=100)
    needed = plan_memory(schedule).arena_bytes + 128 + 40
    plan_memory(schedule, limit=needed)
    with pytest.raises(MemoryLimitError) as error:
        plan_memory(schedule, limit=needed - 1)
    text = str(error.value)
    assert f"memory_limit={needed - 1} bytes" in text and f"needs {needed}" in text
    assert "the peak is in kernel 'k1', held by b1 of 20000, b0 of 10000 bytes" in text


def test_a_limit_below_the_arguments_says_so() -> None:
    with pytest.raises(MemoryLimitError, match="it has no intermediate results"):
        plan_memory(schedule_of([], 1), limit=39)


def test_the_limit_holds_before_anything_is_compiled() -> None:
    from gradloom.compiler.llvm import codegen

    graph = train_graph()
    before = codegen.compilations
    with pytest.raises(MemoryLimitError, match="hidden"):
        pipeline.compile_graph(graph, pipeline.Options(memory_limit=100_000))
    assert codegen.compilations == before
    pipeline.lower(graph, pipeline.Options(memory_limit=10_000_000)).memory  # noqa: B018


def test_a_data_set_of_open_length_does_not_count() -> None:
    """Its size is known when the program runs."""
    low = lowered()
    parameters = 4 * (784 * 128 + 128 + 128 * 10 + 10)
    needed = low.memory.arena_bytes + low.memory.scratch_bytes + parameters + 4096
    pipeline.lower(train_graph(), pipeline.Options(cores=2, memory_limit=needed)).memory  # noqa: B018


@settings(max_examples=60, derandomize=True, database=None)
@given(graphs(max_nodes=28), st.booleans())
def test_plans_of_random_graphs(drawn: tuple[Graph, dict[str, np.ndarray]], fuse: bool) -> None:
    low = pipeline.lower(drawn[0], pipeline.Options(cores=2, fuse=fuse))
    check_plan(low.memory)
    for at, launch in enumerate(low.scheduled.launches):
        for buffer in launch.buffers:
            if buffer not in low.scheduled.places:
                slot = low.memory.slots[buffer]
                assert slot.first <= at <= slot.last and slot.nbytes == buffer.nbytes


def test_a_plan_prints_its_buffers_and_the_peak() -> None:
    graph = Graph("chain")
    with building(graph):
        x = graph.input("x", TensorType(F32, (64, 64)))
        graph.output("y", ops.matmul(ops.matmul(ops.matmul(x, x), x), x))
    text = str(pipeline.lower(graph).memory)
    assert "arena 32768 bytes" in text and "peak in call 1" in text
