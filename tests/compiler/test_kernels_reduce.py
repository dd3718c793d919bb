"""Reduction kernels: every set of axes, every dtype, sizes around vector widths, and what is computed from them."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_close, assert_same, check, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.ops.reductions import Max, Min, Prod, Sum
from gradloom.compiler.types import BF16, BOOL, DTYPES, F32, F64, U8, DType, TensorType

REDUCTIONS = {"sum": Sum, "prod": Prod, "max": Max, "min": Min}


def array_of(dtype: DType, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.is_float:
        return rng.uniform(-1.5, 1.5, shape).astype(dtype.numpy)
    return rng.integers(0 if dtype in (U8, BOOL) else -3, 2 if dtype == BOOL else 4, shape).astype(dtype.numpy)


@pytest.mark.parametrize(
    "shape", [(), (7,), (3, 20), (20, 3), (3, 1, 18), (2, 5, 4), (2, 3, 2, 17), (2, 0, 3), (0, 3, 0, 2)], ids=str
)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_every_set_of_axes(shape: tuple[int, ...], fuse: bool) -> None:
    """All reductions over all sets of axes in one program: leading, trailing, middle and mixed ones."""
    graph = Graph("axes")
    arrays = {}
    for dtype in (F32, F64) if len(shape) < 4 else (F32,):
        x = graph.input(str(dtype), TensorType(dtype, shape))
        arrays[str(dtype)] = array_of(dtype, shape)
        for count in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), count):
                for name, op in REDUCTIONS.items():
                    result = graph.apply(op(axes), x)
                    graph.output(f"{dtype} {name} {axes}", result)
                    with building(graph):
                        graph.output(f"{dtype} {name} {axes} epilogue", ops.tanh(result) * 2.0)
    for level in host_levels() if fuse else host_levels()[-1:]:
        program = pipeline.compile_graph(graph, pipeline.Options(Target.named(level), 2, fuse=fuse))
        got = run_program(program, graph, arrays)
        assert_close(got, interpret(graph, arrays), graph)
        assert_same(run_program(program, graph, arrays, 2), got)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != BF16], ids=str)
def test_sizes_around_vector_widths(dtype: DType) -> None:
    """Along the last axis and along the first, for every reduction that takes the dtype."""
    graph = Graph("sizes")
    arrays = {}
    for shape in itertools.chain(
        itertools.product([0, 3], [0, 1, 15, 16, 17, 33, 65, 257]),
        itertools.product([33, 257], [1, 17, 65]),
    ):
        label = f"x{shape}"
        x = graph.input(label, TensorType(dtype, shape))
        arrays[label] = array_of(dtype, shape, shape[0] + shape[1])
        for name, op in REDUCTIONS.items():
            if dtype != BOOL or op in (Max, Min):
                for axes in ((0,), (1,), (0, 1)):
                    graph.output(f"{name} {shape} {axes}", graph.apply(op(axes), x))
    program = pipeline.compile_graph(graph)
    assert_close(run_program(program, graph, arrays), interpret(graph, arrays), graph)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_at_every_place(axis: int, special: float) -> None:
    """A NaN anywhere makes the extremum NaN, wherever it falls in vectors and tails."""
    graph = Graph("special")
    shape = (35, 35)
    x = graph.input("x", TensorType(F32, shape))
    for name, op in REDUCTIONS.items():
        graph.output(name, graph.apply(op((axis,)), x))
    array = array_of(F32, shape)
    np.fill_diagonal(array, special)
    check(graph, {"x": array})


def test_dtype_of_integers_wraps() -> None:
    graph = Graph("wraps")
    x = graph.input("x", TensorType(U8, (70, 40)))
    for axes in ((0,), (1,), (0, 1)):
        graph.output(f"sum{axes}", graph.apply(Sum(axes), x))
        graph.output(f"prod{axes}", graph.apply(Prod(axes), x))
    check(graph, {"x": np.random.default_rng(0).integers(0, 256, (70, 40)).astype(np.uint8)})


FEEDS = ("plain", "square", "exp", "broadcast", "transpose", "matmul", "relu")


@settings(max_examples=30, derandomize=True, database=None)
@given(st.data())
def test_reductions_with_what_feeds_them_and_what_reads_them(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 16, 17, 40]), min_size=1, max_size=4)))
    while np.prod(shape) > 20000:
        shape = shape[1:]
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))))
    graph = Graph("fed")
    x = graph.input("x", TensorType(F32, shape))
    arrays = {"x": array_of(F32, shape, data.draw(st.integers(0, 99)))}
    with building(graph):
        fed = feed(data.draw(st.sampled_from(FEEDS)), x)
        first = data.draw(st.sampled_from(sorted(REDUCTIONS)))
        reduced = graph.apply(REDUCTIONS[first](axes), fed)
        other = graph.apply(Sum(axes), fed * fed)
        bias = graph.input("bias", reduced.type)
        arrays["bias"] = array_of(F32, bias.shape, 1)
        if data.draw(st.booleans()):
            graph.output("fed", fed)
        if data.draw(st.booleans()):
            graph.output("reduced", reduced)
        graph.output("updated", bias - 0.1 * (reduced + other), bias if data.draw(st.booleans()) else None)
    check(graph, arrays)


def feed(kind: str, x: Value) -> Value:
    """Something of the shape of x, made from it."""
    if kind == "square":
        return x * x
    if kind == "exp":
        return ops.exp(x)
    if kind == "relu":
        return ops.relu(x - 0.5)
    if kind == "broadcast":
        return ops.broadcast_to(ops.max(x, axis=0, keepdims=True), x.shape) * 0.5
    if kind == "transpose":
        return ops.reshape(ops.transpose(x) * 2.0, x.shape)
    if kind == "matmul" and x.ndim >= 2:
        return ops.matmul(x, ops.matmul(ops.swapaxes(x, -1, -2), x)) * 0.01
    return x


@pytest.mark.parametrize("count", [256, 257, 512, 100_001])
def test_no_chain_of_additions_is_long(count: int) -> None:
    """Equal elements are the worst case of one chain: every rounding goes the same way."""
    graph = Graph("chains")
    x = graph.input("x", TensorType(F32, (count, 5)))
    graph.output("sum", graph.apply(Sum((0,)), x))
    graph.output("max", graph.apply(Max((0,)), x))
    array = np.full((count, 5), 0.1, np.float32)
    array[-1] = [0.2, 0.1, 1.0, 0.1, 0.3]
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
    found = run_program(program, graph, {"x": array})
    longest = min(count, 256) + -(-count // 256)
    np.testing.assert_allclose(found["sum"], array.astype(float).sum(0), rtol=longest * np.finfo(np.float32).eps / 2)
    np.testing.assert_array_equal(found["max"], array.max(0))
    assert_same(run_program(program, graph, {"x": array}, 2), found)
