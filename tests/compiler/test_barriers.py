"""Barriers: between two of them no thread touches bytes that another writes, in whatever order the threads run.

The oracle knows nothing of footprints and partitions: it executes the loop IR of two consecutive steps and notes the
bytes that each block touches. Of n threads, all interleavings between two barriers are covered by comparing what each
of them touches there.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compiled import assert_close, assert_same, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, building
from gradloom.compiler.program import Barrier, Call, Step
from gradloom.compiler.types import F32, I32, OPEN, U8, TensorType
from gradloom.testing import graphs
from loop_tracer import Memory, Touched, Trace, arguments_memory, merged, trace_step
from mlp_step import lowered
from small_blocks import SMALL_BLOCKS

THREADS = (2, 3, 4, 7)


def conflicts(steps: Sequence[Step], traces: Sequence[Trace], threads: int) -> list[str]:
    """Where two of `threads` threads meet without a barrier between them, over the consecutive steps of `traces`."""
    segments: list[list[tuple[Call, list[Touched]]]] = [[]]
    for trace in traces:
        calls = iter(trace)
        for item in steps:
            if isinstance(item, Barrier):
                segments.append([])
            else:
                segments[-1].append(next(calls))
    found = []
    for number, segment in enumerate(segments):
        reads, writes = [], []
        for thread in range(threads):
            mine = [
                touched
                for call, blocks in segment
                for touched in blocks[call.blocks * thread // threads : call.blocks * (thread + 1) // threads]
            ]
            reads.append(merged([touched.reads for touched in mine]))
            writes.append(merged([touched.writes for touched in mine]))
        for one in range(threads):
            for other in range(threads):
                for space, mask in writes[one].items():
                    for kind, masks in (("reads", reads[other]), ("writes", writes[other])):
                        if one != other and space in masks and (mask & masks[space]).any():
                            at = int(np.flatnonzero(mask & masks[space])[0])
                            found.append(f"segment {number}: {one} writes, {other} {kind} byte {at} of {space}")
    return found


def traced(low: pipeline.Lowering, arrays: Mapping[str, np.ndarray], count: int = 2) -> tuple[Memory, list[Trace]]:
    held = arguments_memory(low, arrays)
    return held, [trace_step(low, held, step) for step in range(count)]


def check(graph: Graph, arrays: Mapping[str, np.ndarray], **options: int) -> pipeline.Lowering:
    """Assert that two steps have no conflict, and that the traced blocks compute what the interpreter does."""
    low = pipeline.lower(graph, pipeline.Options(**options))  # type: ignore[arg-type]
    after, traces = traced(low, arrays)
    for threads in THREADS:
        assert not conflicts(low.steps, traces, threads), f"{threads} threads\n{low.fused}"
    if all(output.donor is None for output in graph.outputs):
        expected = interpret(graph, arrays)
        got = {}
        for number, argument in enumerate(low.arguments):
            if argument.role == "result":
                held = after.spaces[number].view(argument.type.dtype.numpy)
                got[argument.name] = held.reshape(argument.type.shape)
        assert_close(got, expected, graph)
    return low


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(graphs(max_nodes=16), st.sampled_from([1, 2, 4]))
def test_random_graphs_leave_no_conflict(drawn: tuple[Graph, dict[str, np.ndarray]], cores: int) -> None:
    graph, arrays = drawn
    assume(200 < sum(value.type.size for value in graph.live()) < 20000)
    check(graph, arrays, cores=cores, **SMALL_BLOCKS)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=60, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(graphs(max_nodes=20), st.sampled_from([1, 2, 4]), st.booleans())
def test_bits_do_not_depend_on_the_number_of_threads(
    drawn: tuple[Graph, dict[str, np.ndarray]], cores: int, fuse: bool
) -> None:
    graph, arrays = drawn
    program = pipeline.compile_graph(graph, pipeline.Options(cores=cores, fuse=fuse, **SMALL_BLOCKS))
    first = run_program(program, graph, arrays)
    assert_close(first, interpret(graph, arrays), graph)
    for threads in (2, 3):
        assert_same(run_program(program, graph, arrays, threads), first, graph)


def network(batch: int, inputs: int, hidden: int, classes: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """A train step of two layers on rows of a data set, with momentum for one of the weights."""
    graph = Graph("step")
    shapes = {"w1": (inputs, hidden), "b1": (hidden,), "w2": (classes, hidden), "b2": (classes,)}
    with building(graph):
        x = graph.input("x", TensorType(U8, (OPEN, inputs)), "data")
        y = graph.input("y", TensorType(I32, (OPEN,)), "data")
        rows = graph.input("rows", TensorType(I32, (batch,)), "indices")
        params = {name: graph.input(name, TensorType(F32, shape), "parameter") for name, shape in shapes.items()}
        batch_x = ops.cast(ops.take(x, rows, axis=0), F32) / 255.0
        h = ops.relu(ops.matmul(batch_x, params["w1"]) + params["b1"])
        scores = ops.matmul(h, ops.transpose(params["w2"])) + params["b2"]
        losses = ops.sparse_categorical_crossentropy(ops.take(y, rows, axis=0), scores, from_logits=True)
        loss = ops.mean(losses)
        for (name, value), gradient in zip(params.items(), gradients([loss], list(params.values())), strict=True):
            graph.output(name, value - 0.1 * gradient, value)
        total = graph.input("total", TensorType(F32, ()), "state")
        graph.output("total", total + loss, total)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {
        "x": rng.integers(0, 256, (20, inputs)).astype(np.uint8),
        "y": rng.integers(0, classes, 20).astype(np.int32),
        "rows": rng.integers(0, 20, 2 * batch).astype(np.int32),
        "total": np.zeros((), np.float32),
    }
    return graph, arrays


NETWORKS = [(8, 12, 128, 10), (32, 9, 64, 10), (1, 20, 128, 10), (5, 7, 33, 3), (16, 6, 20, 17)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("sizes", NETWORKS, ids=str)
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_train_step_leaves_no_conflict(sizes: tuple[int, int, int, int], cores: int) -> None:
    graph, arrays = network(*sizes)
    check(graph, arrays, cores=cores, **SMALL_BLOCKS)


@pytest.mark.parametrize("sizes", NETWORKS[:3], ids=str)
def test_every_barrier_of_a_train_step_is_needed(sizes: tuple[int, int, int, int]) -> None:
    graph, arrays = network(*sizes)
    low = pipeline.lower(graph, pipeline.Options(cores=2))
    _, traces = traced(low, arrays)
    places = [place for place, item in enumerate(low.steps) if isinstance(item, Barrier)]
    assert places
    for place in places:
        without = [item for at, item in enumerate(low.steps) if at != place]
        assert any(conflicts(without, traces, threads) for threads in THREADS)


@pytest.mark.usefixtures("small_blocks")
def test_the_simulation_sees_conflicts() -> None:
    """What one thread writes and another reads is found, also across the end of a step."""
    graph = Graph("chain")
    w = graph.input("w", TensorType(F32, (70, 70)), "state")
    graph.output("w", ops.tanh(ops.matmul(ops.tanh(ops.matmul(w, w)), ops.matmul(w, w))), w)
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(70, 70)).astype(np.float32)}
    low = check(graph, arrays, cores=4, **SMALL_BLOCKS)
    _, traces = traced(low, arrays)
    bare = [item for item in low.steps if isinstance(item, Call)]
    assert len(bare) < len(low.steps)
    assert conflicts(bare, traces[:1], 2), "without barriers, threads meet within a step"
    # With all barriers but those before the first call, the end of a step meets the begin of the next one.
    places = [at for at, item in enumerate(low.steps) if isinstance(item, Barrier)]
    assert all(
        conflicts([item for at, item in enumerate(low.steps) if at != place], traces, 2)
        or conflicts([item for at, item in enumerate(low.steps) if at != place], traces, 4)
        for place in places
    )


@pytest.mark.usefixtures("small_blocks")
def test_a_reshape_divides_memory_as_it_lies_there() -> None:
    """Two kernels divide one buffer into as many blocks of as many rows, but of rows of unlike length."""
    graph = Graph("reshaped")
    with building(graph):
        x = graph.input("x", TensorType(F32, (8, 40)))
        y = ops.softmax(ops.exp(x))
        half = ops.reshape(y, (16, 20))[:8]
        graph.output("y", y)
        graph.output("z", ops.matmul(ops.softmax(half), ops.transpose(half)))
    check(graph, {"x": np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)}, cores=2, **SMALL_BLOCKS)


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 2), (32, 2), (128, 2)])
def test_sgd_needs_two_barriers_a_step(batch_size: int, expected: int) -> None:
    """One before the scores, which need all hidden units; one before the gradients, which need all samples."""
    steps = lowered(batch_size).steps
    assert sum(isinstance(item, Barrier) for item in steps) == expected


def test_calls_name_the_kernels_and_where_their_arguments_lie() -> None:
    low = lowered()
    names = {kernel.name: kernel for kernel in low.kernels}
    calls = [item for item in low.steps if isinstance(item, Call)]
    assert len(calls) == len(low.scheduled.launches)
    for call, launch in zip(calls, low.scheduled.launches, strict=True):
        assert len(call.arguments) == len(names[call.kernel].buffers) == len(launch.kernel.buffers)
        assert call.blocks == launch.kernel.blocks
