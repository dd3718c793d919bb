"""bf16 in kernels: its rounding bit by bit, and products of pairs, as instructions and as what stands for them."""

import itertools
from dataclasses import replace
from functools import cached_property

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernel_runner import CompiledKernel

from compiled import run_program
from gradloom.compiler import ops, pipeline
from gradloom.compiler.errors import VerificationError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, building
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer
from gradloom.compiler.schedule import Schedule, schedule
from gradloom.compiler.types import BF16, F32, DType, TensorType

COUNT = 64
WIDTHS = list(itertools.product(host_levels(), (False, True)))


def conversion(source: DType, target: DType, level: str, vectors: bool) -> CompiledKernel:
    """A kernel that converts COUNT numbers."""
    b = Builder("conversion")
    x, y = (b.param(Buffer(name, TensorType(dtype, (COUNT,)))) for name, dtype in (("x", source), ("y", target)))
    lanes = Target.named(level).lanes if vectors else 1
    with b.vectorized(lanes), b.loop(0, COUNT, lanes) as loop:
        at = ix.lanes(loop.index, lanes)
        b.store(y, at, b.convert(b.load(x, at), target))
    return CompiledKernel(b.kernel(1), Target.named(level))


WIDENING = {width: conversion(BF16, F32, *width) for width in WIDTHS}
ROUNDING = {width: conversion(F32, BF16, *width) for width in WIDTHS}


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_every_bf16_becomes_f32_bit_by_bit(width: tuple[str, bool]) -> None:
    for bits in np.arange(2**16, dtype=np.uint16).reshape(-1, COUNT):
        x, y = bits.view(ml_dtypes.bfloat16), np.zeros(COUNT, np.float32)
        WIDENING[width](x, y)
        np.testing.assert_array_equal(y.view(np.uint32), x.astype(np.float32).view(np.uint32))


UPPER = st.integers(0, 2**16 - 1)
WORDS = (
    st.integers(0, 2**32 - 1)
    # Ties and their neighbours, denormals among them; infinities, and NaNs with any payload.
    | st.builds(lambda upper, lower: upper << 16 | lower, UPPER, st.sampled_from([0, 0x7FFF, 0x8000, 0x8001]))
    | st.builds(lambda sign, rest: sign << 31 | 0x7F800000 | rest, st.integers(0, 1), st.integers(0, 2**23 - 1))
)


@settings(max_examples=300, deadline=None)
@given(bits=hnp.arrays(np.uint32, COUNT, elements=WORDS, fill=st.nothing()))
def test_f32_is_rounded_to_bf16_bit_by_bit(bits: np.ndarray) -> None:
    x, y = bits.view(np.float32), np.zeros(COUNT, ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    for width in WIDTHS:
        ROUNDING[width](x, y)
        np.testing.assert_array_equal(y.view(np.uint16), expected.view(np.uint16), err_msg=str(width))


def test_there_is_no_arithmetic_on_bf16() -> None:
    b = Builder("sum")
    x = b.param(Buffer("x", TensorType(BF16, (1,))))
    b.store(x, 0, b.add(b.load(x, 0), b.load(x, 0)))
    with pytest.raises(VerificationError, match="Expected 'add' of converted values. Received: bf16"):
        CompiledKernel(b.kernel(1))


def zen4() -> Target:
    """A processor with the instruction for products of bf16."""
    features = "+avx512bf16,-prefer-256-bit"
    wide = {"lanes": 16, "registers": 32, "has_fma": True, "multiplies_bf16": True}
    return replace(Target.host(), level="x86-64-v4", cpu="znver4", features=features, **wide)  # type: ignore[arg-type]


class ForPairs(pipeline.Lowering):
    """Kernels as for a machine that multiplies pairs of bf16, which the present one does with other instructions."""

    @cached_property
    def scheduled(self) -> Schedule:
        machine = replace(pipeline.machine_for(self.options), multiplies_bf16=True)
        return schedule(self.fused, machine, self.options.choices)


def matmul(rows: int, depth: int, columns: int) -> Graph:
    graph = Graph("matmul")
    with building(graph):
        a, b = (
            graph.input(name, TensorType(BF16, shape))
            for name, shape in (("a", (rows, depth)), ("b", (depth, columns)))
        )
        graph.output("y", ops.matmul(a, b) + 1.0)
    return graph


def convolution(channels: int, filters: int, size: int, stride: int) -> Graph:
    graph = Graph("convolution")
    with building(graph):
        x = graph.input("x", TensorType(BF16, (2, 9, 7, channels)))
        k = graph.input("k", TensorType(BF16, (size, size, channels, filters)))
        graph.output("y", ops.conv(x, k, stride, padding="same"))
    return graph


PRODUCTS = [matmul(*sizes) for sizes in itertools.product((17, 33, 90), (2, 34), (1, 17, 80))]
PRODUCTS += [convolution(*sizes) for sizes in itertools.product((2, 20), (5, 48), (1, 3), (1, 2))]


@pytest.mark.parametrize("graph", PRODUCTS, ids=lambda graph: " ".join(str(value.type) for value in graph.inputs))
def test_products_of_pairs(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    arrays = {v.op.label: rng.normal(size=v.shape).astype(ml_dtypes.bfloat16) for v in graph.inputs}  # type: ignore[attr-defined]
    lowering = ForPairs(graph, pipeline.Options(cores=2))
    got, expected = run_program(lowering.program(), graph, arrays)["y"], interpret(graph, arrays)["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    assert "dot2(" in str(lowering.scheduled)


@pytest.mark.parametrize("graph", [matmul(64, 128, 128), convolution(32, 64, 3, 2)], ids=["matmul", "convolution"])
def test_pairs_are_multiplied_by_one_instruction_where_there_is_one(graph: Graph) -> None:
    text = pipeline.lower(graph, pipeline.Options(target=zen4(), cores=2)).assembly()
    products = [line for line in text.splitlines() if "vdpbf16ps" in line]
    assert products and all("%zmm" in line for line in products)
    plain = replace(zen4(), multiplies_bf16=False)
    assert "vdpbf16ps" not in pipeline.lower(graph, pipeline.Options(target=plain, cores=2)).assembly()
