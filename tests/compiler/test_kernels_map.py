"""Elementwise kernels: blocks with partial vectors at the end, broadcasting, gathers and other movements."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import Arrays, assert_close, assert_same, check, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.kernels.lowering import MOST_BLOCKS, block_unit
from gradloom.compiler.options import BLOCK_COST
from gradloom.compiler.types import BOOL, F32, I32, I64, U8, TensorType
from gradloom.runtime.executable import Executable


def graph_of(shape: tuple[int, ...]) -> Graph:
    graph = Graph("map")
    with building(graph):
        graph.output("y", ops.tanh(graph.input("x", TensorType(F32, shape))))
    return graph


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("beyond", [-17, -1, 0, 1, 3, 16, 19])
@pytest.mark.parametrize("flat", [True, False])
def test_nothing_is_written_behind_the_end(blocks: int, beyond: int, flat: bool) -> None:
    """Sizes on both sides of a whole number of blocks; the memory behind the result stays as it was."""
    unit = unit_of(flat)
    size = blocks * unit + beyond
    graph = graph_of((1, size) if flat else (size,))
    rng = np.random.default_rng(size)
    x = rng.normal(size=size).astype(np.float32)
    for guard in (64, 4 * unit):
        room = np.full(size + guard, 7, np.float32)
        shape = graph.outputs[0].value.shape
        result = room[:size].reshape(shape)
        Executable(pipeline.compile_graph(graph)).run({"x": x.reshape(shape), "y": result})
        np.testing.assert_allclose(room[:size], np.tanh(x), rtol=1e-6)
        assert (room[size:] == 7).all()


def unit_of(flat: bool) -> int:
    """How many elements a block of the kernel takes."""
    size = 16 * BLOCK_COST
    (launch,) = pipeline.lower(graph_of((1, size) if flat else (size,))).scheduled.launches
    (partition,) = {footprint.partition for footprint in launch.footprints.values()}
    return min(partition.unit, BLOCK_COST) if partition is not None else BLOCK_COST


@given(st.integers(1, 5000), st.sampled_from([1, 2, 3, 8, 16, 64]), st.floats(0.1, 1e6))
@settings(derandomize=True, database=None)
def test_blocks_are_equal_where_no_core_gets_more_by_that(count: int, cores: int, cost: float) -> None:
    machine = replace(pipeline.machine_for(pipeline.Options()), cores=cores)
    unit = block_unit(machine, count, cost)
    least = min(count, max(math.ceil(count / MOST_BLOCKS), math.ceil(machine.block_cost / max(cost, 1))))

    def share(unit: int) -> int:
        return math.ceil(math.ceil(count / unit) / cores) * unit

    most = math.ceil(count / least)
    equal = [n for n in range(most // 2 + 1, most + 1) if count % n == 0 and share(count // n) <= share(least)]
    assert unit == (count // max(equal) if equal else least)
    assert share(unit) <= share(least)


SHAPES = [(), (1,), (5,), (17,), (3, 1), (1, 33), (3, 17), (2, 1, 5), (4, 3, 16), (2, 3, 1, 20)]


@settings(max_examples=60, derandomize=True, database=None)
@given(st.data())
def test_broadcasts_and_movements(data: Any) -> None:
    graph, arrays = Graph("moves"), {}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    with building(graph):
        pool: list[Value] = []
        for n, shape in enumerate(data.draw(st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4))):
            pool.append(graph.input(f"x{n}", TensorType(F32, shape)))
            arrays[f"x{n}"] = rng.normal(size=shape).astype(np.float32)
        for _ in range(data.draw(st.integers(1, 6))):
            y = move(data, data.draw(st.sampled_from(pool[-3:])))
            fitting = [x for x in pool if fits(x, y) and np.prod(np.broadcast_shapes(x.shape, y.shape)) <= 5000]
            if fitting:
                y = ops.tanh(y) + data.draw(st.sampled_from(fitting))
            pool.append(y)
        for n, value in enumerate(pool[-2:]):
            graph.output(f"y{n}", value)
    check(graph, arrays)


def fits(x: Value, y: Value) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(x.shape), reversed(y.shape), strict=False))


def move(data: Any, x: Value) -> Value:
    kind = data.draw(st.sampled_from(["none", "transpose", "flip", "pad", "slice", "reshape", "concatenate", "take"]))
    if not x.ndim or kind == "none" or x.type.size > 3000:
        return x
    axis = data.draw(st.integers(0, x.ndim - 1))
    if kind == "transpose":
        return ops.transpose(x, data.draw(st.permutations(range(x.ndim))))
    if kind == "flip":
        return ops.flip(x, axis)
    if kind == "pad":
        return ops.pad(x, [(1, 2) if n == axis else (0, 0) for n in range(x.ndim)])
    if kind == "slice":
        return x[tuple(slice(None, None, 2) if n == axis else slice(None) for n in range(x.ndim))]
    if kind == "reshape":
        return ops.reshape(x, (x.shape[0], -1) if data.draw(st.booleans()) else (-1,))
    if kind == "concatenate":
        return ops.concatenate([x, x * 0.5], axis=axis)
    return ops.take(x, np.array([0, x.shape[0] - 1, 0], np.int32), axis=0)


def test_dtypes_side_by_side() -> None:
    """Bytes, bools, both integers and floats in one kernel, over partial and whole vectors."""
    for size in (1, 5, 16, 31, 64, 100):
        graph = Graph("dtypes")
        with building(graph):
            u = graph.input("u", TensorType(U8, (3, size)))
            i = graph.input("i", TensorType(I32, (3, size)))
            w = graph.input("w", TensorType(I64, (3, size)))
            f = graph.input("f", TensorType(F32, (3, size)))
            m = graph.input("m", TensorType(BOOL, (3, size)))
            both = ops.logical_and(m, ops.greater(f, 0.0))
            graph.output("new b", ops.logical_or(both, ops.equal(i, ops.cast(u, "int32"))))
            graph.output("new i", ops.where(both, i, ops.cast(w, "int32")))
            graph.output("new w", w * ops.cast(i, "int64"))
            graph.output("new u", u + ops.cast(both, "uint8"))
            graph.output("new f", ops.cast(w, "float32") * f + ops.cast(u, "float32"))
        rng = np.random.default_rng(size)
        arrays: Arrays = {
            "u": rng.integers(0, 256, (3, size)).astype(np.uint8),
            "i": rng.integers(-200, 200, (3, size)).astype(np.int32),
            "w": rng.integers(-(2**40), 2**40, (3, size)),
            "f": rng.normal(size=(3, size)).astype(np.float32),
            "m": rng.integers(0, 2, (3, size)).astype(bool),
        }
        program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
        got = run_program(program, graph, arrays)
        assert_close(got, interpret(graph, arrays), graph)
        assert_same(run_program(program, graph, arrays, 2), got)
