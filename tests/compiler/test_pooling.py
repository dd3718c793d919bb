"""Pooling against windows written out: maxima with ties and NaN, sums, counts of real elements, compiled windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_same, check, run_program
from function_runner import run
from gradloom.compiler import ops, pipeline
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ops.pooling import MaxPool, MaxPoolGrad, MaxPoolSelect, SumPool, SumPoolGrad
from gradloom.compiler.types import F32, TensorType
from op_cases import types

Place = tuple[int, int, int, int]


@dataclass(frozen=True)
class Pooled:
    """Windows over images with few different elements, so that maxima are tied."""

    window: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    x: np.ndarray

    @property
    def attributes(self) -> tuple[Any, ...]:
        return self.window, self.strides, self.padding

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[1], self.x.shape[2]

    def windows(self) -> Iterator[tuple[Place, list[Place]]]:
        """Each place of the result with the places of its window, in order, padding left out."""
        batch, height, width, channels = self.x.shape
        counts = []
        for axis, size in enumerate(self.size):
            before, after = self.padding[axis]
            counts.append(len(range(-before, size + after - self.window[axis] + 1, self.strides[axis])))
        for b, row, column, c in np.ndindex(batch, counts[0], counts[1], channels):
            top, left = row * self.strides[0] - self.padding[0][0], column * self.strides[1] - self.padding[1][0]
            yield (
                (b, row, column, c),
                [
                    (b, h, w, c)
                    for h in range(max(top, 0), min(top + self.window[0], height))
                    for w in range(max(left, 0), min(left + self.window[1], width))
                ],
            )


@st.composite
def poolings(draw: st.DrawFn, nan: bool = True) -> Pooled:
    window = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    strides = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    padding = [(draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))) for size in window]
    size = [draw(st.integers(max(1, window[n] - sum(padding[n])), window[n] + 4)) for n in range(2)]
    channels = draw(st.sampled_from([1, 3, 17]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(-2, 3, (2, *size, channels)).astype(np.float32)
    if nan and draw(st.booleans()):
        x[rng.random(x.shape) < 0.1] = np.nan
        x[rng.random(x.shape) < 0.1] = -np.inf
    return Pooled(window, strides, (padding[0], padding[1]), x)


def shape_of_result(p: Pooled) -> tuple[int, ...]:
    last = max(place for place, _ in p.windows())
    return tuple(at + 1 for at in last)


@settings(max_examples=60)
@given(poolings())
def test_maxima_and_their_derivatives(p: Pooled) -> None:
    rng = np.random.default_rng(0)
    shape = shape_of_result(p)
    dy, z = rng.integers(1, 9, shape).astype(np.float32), rng.integers(1, 9, p.x.shape).astype(np.float32)
    peak, select, gradient = np.zeros_like(dy), np.zeros_like(dy), np.zeros_like(p.x)
    for place, window in p.windows():
        elements = [p.x[at] for at in window]
        if any(np.isnan(elements)):
            peak[place] = np.nan
            continue
        peak[place] = max(elements)
        first = window[elements.index(max(elements))]
        select[place] = z[first]
        gradient[first] += dy[place]

    def all_three(x: Value, dy: Value, z: Value) -> list[Value]:
        apply = x.graph.apply
        pool, grad, pick = MaxPool(*p.attributes), MaxPoolGrad(*p.attributes), MaxPoolSelect(*p.attributes)
        return [apply(pool, x), apply(grad, x, dy), apply(pick, x, z)]

    found = run(all_three, p.x, dy, z)
    for got, expected in zip(found, (peak, gradient, select), strict=True):
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=60)
@given(poolings(nan=False))
def test_sums_means_and_their_derivatives(p: Pooled) -> None:
    shape = shape_of_result(p)
    dy = np.random.default_rng(0).integers(1, 9, shape).astype(np.float32)
    total, count, gradient = np.zeros_like(dy), np.zeros_like(dy), np.zeros_like(p.x)
    for place, window in p.windows():
        total[place], count[place] = sum(p.x[at] for at in window), len(window)
        for at in window:
            gradient[at] += dy[place]

    def all_three(x: Value, dy: Value) -> list[Value]:
        sums = x.graph.apply(SumPool(*p.attributes), x)
        spread = x.graph.apply(SumPoolGrad(p.size, *p.attributes), dy)
        return [sums, spread, ops.average_pool(x, p.window, p.strides, p.padding)]

    found = run(all_three, p.x, dy)
    np.testing.assert_array_equal(found[0], total)
    np.testing.assert_array_equal(found[1], gradient)
    np.testing.assert_allclose(found[2], total / count, rtol=1e-6)


@settings(max_examples=8)
@given(poolings())
def test_compiled_windows(p: Pooled) -> None:
    graph = Graph("pool")
    x = graph.input("x", TensorType(F32, p.x.shape))
    dy = graph.input("dy", TensorType(F32, shape_of_result(p)))
    results = {
        "max": graph.apply(MaxPool(*p.attributes), x),
        "grad": graph.apply(MaxPoolGrad(*p.attributes), x, dy),
        "select": graph.apply(MaxPoolSelect(*p.attributes), x, x),
        "sum": graph.apply(SumPool(*p.attributes), x),
        "spread": graph.apply(SumPoolGrad(p.size, *p.attributes), dy),
    }
    for name, value in results.items():
        graph.output(name, value)
    arrays = {"x": p.x, "dy": np.random.default_rng(0).normal(size=dy.shape).astype(np.float32)}
    expected = interpret(graph, arrays)
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
    found = run_program(program, graph, arrays)
    for name in results:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert_same(run_program(program, graph, arrays, threads=2), found)


def test_windows_that_leave_the_image_nowhere_ask_for_no_bounds() -> None:
    """Without padding, a maximum is loads and maxima: no select, no comparison."""
    graph = Graph("pool")
    x = graph.input("x", TensorType(F32, (2, 8, 8, 32)))
    graph.output("y", graph.apply(MaxPool((2, 2), (2, 2)), x))
    graph.output("z", graph.apply(SumPool((2, 2), (2, 2)), x))
    text = "\n".join(str(kernel) for kernel in pipeline.lower(graph, pipeline.Options()).kernels)
    assert "max(" in text and "select" not in text and "<=" not in text


def test_a_pool_is_fused_with_what_follows_and_reads_memory() -> None:
    graph = Graph("pool")
    x = graph.input("x", TensorType(F32, (2, 5, 5, 16)))
    normal = ops.exp(x) * 2.0
    graph.output("y", ops.relu(graph.apply(SumPool((3, 3), (1, 1), ((1, 1), (1, 1))), normal) - 1.0))
    assert len(pipeline.lower(graph, pipeline.Options()).fused.groups) == 2
    check(graph, {"x": np.random.default_rng(0).normal(size=x.shape).astype(np.float32)})


REFUSED: list[tuple[Op, str, type[Exception], str]] = [
    (MaxPool((0, 2)), "f32[2,5,5,4]", ShapeError, "less padding than the window"),
    (MaxPool((2, 2), (0, 1)), "f32[2,5,5,4]", ShapeError, "strides and dilation >= 1"),
    (MaxPool((2, 2), (1, 1), ((2, 0), (0, 0))), "f32[2,5,5,4]", ShapeError, "no window holds padding alone"),
    (MaxPool((6, 2)), "f32[2,5,5,4]", ShapeError, r"window 6 .*height 5"),
    (MaxPool((2, 2)), "f32[5,5,4]", ShapeError, "batch, height, width, channels"),
    (MaxPool((2, 2)), "bool[2,5,5,4]", DTypeError, "Expected numbers"),
    (MaxPool((1, 1)), "f32[2,0,5,4]", ShapeError, "at least one pixel"),
    (MaxPoolGrad((2, 2)), "f32[2,5,5,4] f32[2,4,5,4]", ShapeError, r"Expected the type f32\[2,4,4,4\]"),
    (MaxPoolGrad((2, 2)), "i32[2,5,5,4] i32[2,4,4,4]", DTypeError, "one float dtype"),
    (MaxPoolSelect((2, 2)), "f32[2,5,5,4] f32[2,4,4,4]", ShapeError, "one shape"),
    (SumPool((2, 2), (1, 1), ((0, 0), (0, -1))), "f32[2,5,5,4]", ShapeError, "padding >= 0"),
    (SumPoolGrad((5, 5), (2, 2)), "f32[2,5,4,4]", ShapeError, r"Expected the type f32\[2,4,4,4\]"),
]


@pytest.mark.parametrize(("op", "operands", "error", "message"), REFUSED, ids=lambda part: str(part))
def test_an_ill_typed_pool_is_refused(op: Op, operands: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        op.type_of(*types(operands))
    assert "Received" in str(caught.value)


def test_windows_lie_side_by_side_by_default() -> None:
    x = np.arange(16, dtype=np.int32).reshape(1, 4, 4, 1)
    assert run(lambda x: ops.max_pool(x, 2), x).ravel().tolist() == [5, 7, 13, 15]
    mean = run(lambda x: ops.average_pool(x, (2, 4)), x)
    assert mean.dtype == np.float32 and mean.ravel().tolist() == [3.5, 11.5]


def test_padding_of_same_counts_for_nothing() -> None:
    x = -1 - np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    assert run(lambda x: ops.max_pool(x, 2, padding="same"), x).ravel().tolist() == [-1, -3, -7, -9]
    assert run(lambda x: ops.average_pool(x, 2, padding="same"), x).ravel().tolist() == [-3, -4.5, -7.5, -9]
