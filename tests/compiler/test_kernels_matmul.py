"""Matrix product kernels: transposes, batches, sizes, prologues and epilogues against the interpreter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_close, assert_same, run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.types import F32, F64, I32, OPEN, U8, DType, TensorType

SIZES = st.sampled_from([0, 1, 2, 3, 5, 10, 15, 16, 17, 31, 33, 64, 65, 130])
PROLOGUES = ("none", "relu", "row", "rows of bytes", "transpose", "transposed batch", "concatenate", "expensive")
CACHES = st.sampled_from([1 << 20, 4096])
"""Sizes of an L2 cache: in the small one operands do not fit, so that blocks have several panels of columns."""
EPILOGUES = ("bias", "relu", "residual", "column", "scalar", "mask", "transposed use", "several", "softmax", "sum")


class Built:
    """A graph under construction with arrays for its inputs."""

    def __init__(self, dtype: DType, seed: int) -> None:
        self.graph = Graph("product")
        self.arrays: dict[str, np.ndarray] = {}
        self.dtype = dtype
        self.rng = np.random.default_rng(seed)

    def input(self, shape: tuple[int, ...], dtype: DType | None = None, role: str = "argument", high: int = 0) -> Value:
        """An argument; `high` bounds integers."""
        label, dtype = f"x{len(self.arrays)}", dtype or self.dtype
        closed = tuple(9 if size == OPEN else size for size in shape)
        array = self.rng.integers(0, high, closed) if high else self.rng.uniform(-1, 1, closed)
        self.arrays[label] = array.astype(dtype.numpy)
        return self.graph.input(label, TensorType(dtype, shape), role)

    def operand(self, shape: tuple[int, ...], prologue: str) -> Value:
        """An operand of a product that is computed from an argument."""
        if prologue == "relu":
            return ops.maximum(self.input(shape), 0.0)
        if prologue == "row":
            return ops.broadcast_to(self.input((*shape[:-2], 1, shape[-1])), shape)
        if prologue == "rows of bytes":
            data = self.input((OPEN, *shape[1:]), U8, "data", 256)
            rows = self.input((shape[0],), I32, high=9)
            return ops.cast(ops.take(data, rows, axis=0), self.dtype) / 255.0
        if prologue == "transpose":
            return ops.swapaxes(self.input((*shape[:-2], shape[-1], shape[-2])), -1, -2)
        if prologue == "transposed batch":
            return ops.transpose(self.input(shape[::-1]))
        if prologue == "concatenate":
            cut = shape[-1] // 2
            return ops.concatenate(
                [self.input((*shape[:-1], cut)), -self.input((*shape[:-1], shape[-1] - cut))], axis=-1
            )
        if prologue == "expensive":
            return ops.tanh(self.input(shape))
        return self.input(shape)

    def epilogue(self, name: str, y: Value) -> Value:
        """What is computed from a product, element by element or otherwise."""
        rows, columns = y.shape[-2:]
        if name == "bias":
            return y + self.input((columns,))
        if name == "relu":
            return ops.maximum(y, 0.0)
        if name == "residual":
            return y + self.input(y.shape)
        if name == "column":
            return y * self.input((rows, 1))
        if name == "scalar":
            return y * self.input(())
        if name == "mask":
            return ops.where(ops.greater(self.input(y.shape), 0.0), y, 0.0)
        if name == "transposed use":
            return ops.swapaxes(y, -1, -2) * 2.0
        if name == "several":
            self.graph.output(f"z{len(self.graph.outputs)}", y - 1.0)
            return y * y
        if name == "softmax":
            return ops.softmax(y) if columns else y
        return ops.sum(y, axis=0) + self.input(y.shape[1:])


@st.composite
def products(draw: Any) -> tuple[Graph, dict[str, np.ndarray]]:
    built = Built(draw(st.sampled_from([F32, F64])), draw(st.integers(0, 2**32 - 1)))
    m, n, k = draw(SIZES), draw(SIZES), draw(SIZES)
    batch = tuple(draw(st.lists(st.sampled_from([1, 2, 3]), max_size=2)))
    transpose_a, transpose_b = draw(st.booleans()), draw(st.booleans())
    with building(built.graph):
        operands = []
        for sizes, transpose in (((m, k), transpose_a), ((k, n), transpose_b)):
            leading = tuple(draw(st.sampled_from([1, size])) for size in batch[draw(st.integers(0, len(batch))) :])
            shape = (*leading, *(sizes[::-1] if transpose else sizes))
            operands.append(built.operand(shape, draw(st.sampled_from(PROLOGUES))))
        y = built.graph.apply(Matmul(transpose_a, transpose_b), *operands)
        if draw(st.booleans()):
            built.graph.output("product", y)
        for name in draw(st.lists(st.sampled_from(EPILOGUES), max_size=3)):
            if y.ndim >= 2:
                y = built.epilogue(name, y)
        built.graph.output("result", y)
    return built.graph, built.arrays


@pytest.mark.parametrize("share", range(2))
def test_products_equal_the_interpreter(share: int) -> None:
    @settings(max_examples=70, derandomize=True, database=None)
    @given(products(), st.sampled_from(host_levels()), st.sampled_from([1, 2, 4]), CACHES)
    def equal(drawn: tuple[Graph, dict[str, np.ndarray]], level: str, cores: int, l2: int) -> None:
        graph, arrays = drawn
        target = replace(Target.named(level), l2=l2)
        options = pipeline.Options(target, cores + share, simplify=not share)
        program = pipeline.compile_graph(graph, options)
        got = run_program(program, graph, arrays)
        assert_close(got, interpret(graph, arrays), graph)
        assert_same(run_program(program, graph, arrays, threads=2), got, graph)

    equal()


@settings(max_examples=30, derandomize=True, database=None)
@given(products(), st.integers(0, 1))
def test_bits_do_not_depend_on_cores_and_caches(drawn: tuple[Graph, dict[str, np.ndarray]], fuse: int) -> None:
    graph, arrays = drawn
    machines = [(1, 1 << 20), (2, 1 << 20), (5, 1 << 20), (1, 4096), (2, 4096)]
    programs = [
        pipeline.compile_graph(graph, pipeline.Options(replace(Target.host(), l2=l2), cores, fuse=bool(fuse)))
        for cores, l2 in machines
    ]
    first, *others = [run_program(program, graph, arrays) for program in programs]
    for other in others:
        assert_same(other, first, graph)


def test_panels_share_strips_of_rows_that_stay_in_the_cache() -> None:
    """A is larger than the cache: a block has several panels of columns, which are packed side by side."""
    graph = Graph("large")
    a, b = (graph.input(name, TensorType(F32, (256, 256))) for name in "ab")
    with building(graph):
        graph.output("y", ops.matmul(a, b))
    blocks = []
    for l2 in (1 << 20, 1 << 16):
        (launch,) = pipeline.lower(graph, pipeline.Options(replace(Target.host(), l2=l2), 2)).scheduled.launches
        (panels,) = launch.kernel.scratch
        assert panels.type.shape[0] * launch.kernel.blocks * panels.type.shape[2] == 256
        blocks.append(launch.kernel.blocks)
    assert blocks[0] > blocks[1] == 4


@settings(max_examples=30, derandomize=True, database=None)
@given(
    st.sampled_from([1, 3, 16, 32, 33, 100]), st.sampled_from([1, 10, 17, 64, 128, 130]), st.integers(1, 70), st.data()
)
def test_update_in_place(k: int, n: int, m: int, data: Any) -> None:
    """W − rate·(AᵀB) onto W, several steps in one call."""
    graph = Graph("update")
    rng = np.random.default_rng(k * n * m)
    a = graph.input("a", TensorType(F32, (k, m)))
    b = graph.input("b", TensorType(F32, (k, n)))
    w = graph.input("w", TensorType(F32, (m, n)), "parameter")
    rate = graph.input("rate", TensorType(F32, ()), "hyperparameter")
    momentum = data.draw(st.booleans())
    gradient = graph.apply(Matmul(True, False), a, b)
    arrays = {
        name: rng.uniform(-1, 1, s).astype(np.float32) for name, s in (("a", (k, m)), ("b", (k, n)), ("w", (m, n)))
    }
    arrays["rate"] = np.float32(0.1)
    with building(graph):
        if momentum:
            v = graph.input("v", TensorType(F32, (m, n)), "state")
            arrays["v"] = rng.uniform(-1, 1, (m, n)).astype(np.float32)
            gradient = v * 0.9 + gradient
            graph.output("v", gradient, v)
        graph.output("w", w - rate * gradient, w)
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
    assert not program.buffers and not program.notes
    expected = dict(arrays)
    for _ in range(3):
        expected |= interpret(graph, expected)
    got = run_program(program, graph, arrays, steps=3)
    assert_close(got, expected, graph)
    assert_same(run_program(program, graph, arrays, threads=2, steps=3), got)


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("units", [10, 128])
def test_rows_of_a_data_set_in_the_prologue(batch: int, units: int) -> None:
    """Gather, conversion and scaling are part of the product's loads, in several steps with rows of their own."""
    graph = Graph("gathered")
    rng = np.random.default_rng(0)
    data = graph.input("data", TensorType(U8, (OPEN, 4, 9)), "data")
    rows = graph.input("rows", TensorType(I32, (batch,)), "indices")
    w = graph.input("w", TensorType(F32, (36, units)), "parameter")
    with building(graph):
        x = ops.reshape(ops.cast(ops.take(data, rows, axis=0), F32) / 255.0, (batch, 36))
        graph.output("w", w + ops.matmul(ops.transpose(x), ops.relu(ops.matmul(x, w))) * 0.01, w)
    steps = 4
    arrays = {
        "data": rng.integers(0, 256, (50, 4, 9)).astype(np.uint8),
        "rows": rng.integers(0, 50, steps * batch).astype(np.int32),
        "w": rng.uniform(-1, 1, (36, units)).astype(np.float32),
    }
    expected = dict(arrays)
    for step in range(steps):
        expected |= {"rows": arrays["rows"][step * batch : (step + 1) * batch]}
        expected |= interpret(graph, expected)
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
    assert sum(slot.nbytes for slot in program.buffers) <= 4 * batch * units
    for threads in (1, 2):
        assert_close(run_program(program, graph, arrays, threads, steps), expected, graph)


def test_nan_beyond_the_end_of_a_vector_does_not_spread() -> None:
    """Prologues compute something on lanes that do not count: it must not reach the result."""
    graph = Graph("lanes")
    a = graph.input("a", TensorType(F32, (5, 19)))
    b = graph.input("b", TensorType(F32, (3, 19)))
    one = graph.constant(1.0, F32)
    with building(graph):
        # 1/0 and 0/0 in the lanes behind the last element.
        graph.output("y", graph.apply(Matmul(False, True), one / a, b / b))
    rng = np.random.default_rng(0)
    arrays = {"a": rng.uniform(1, 2, (5, 19)).astype(np.float32), "b": rng.uniform(1, 2, (3, 19)).astype(np.float32)}
    for level in host_levels():
        program = pipeline.compile_graph(graph, pipeline.Options(Target.named(level)))
        assert_close(run_program(program, graph, arrays), interpret(graph, arrays), graph)
