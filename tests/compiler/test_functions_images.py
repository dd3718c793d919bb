"""Statistics of channels, batch normalization and upsampling, against NumPy in double precision."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import run, run_program
from function_runner import run as evaluated
from function_runner import sample
from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.passes.fuse import fuse
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.pipeline import Options, compile_graph
from gradloom.compiler.program import Program
from gradloom.compiler.types import F32, F64, DType, TensorType

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(seed=seeds, axes=st.sampled_from([0, -1, (0, 1, 2), (1, 2), None]), keepdims=st.booleans())
def test_moments(seed: int, axes: Any, keepdims: bool) -> None:
    x = 3 * sample(seed, 2, 5, 4, 3) + 1
    mean, variance = evaluated(lambda v: list(ops.moments(v, axes, keepdims)), x)
    np.testing.assert_allclose(mean, x.mean(axes, keepdims=keepdims), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, x.var(axes, keepdims=keepdims), rtol=1e-11)


@settings(max_examples=30)
@given(seed=seeds, offset=st.sampled_from([1e3, -1e4, 1e5]))
def test_moments_far_from_zero(seed: int, offset: float) -> None:
    """In float32, E[x²] − E[x]² would have no correct digit here."""
    x = (sample(seed, 8, 6, 6, 3) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    mean, variance = evaluated(lambda v: list(ops.moments(v, (0, 1, 2))), x)
    assert mean.dtype == variance.dtype == np.float32
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=3e-7)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 16777217.0])
def test_equal_elements_have_no_variance(value: float) -> None:
    mean, variance = evaluated(lambda v: list(ops.moments(v, (0, 1))), np.full((7, 11, 3), value, np.float32))
    assert mean.tolist() == [np.float32(value)] * 3 and variance.tolist() == [0.0] * 3


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least one element"):
        evaluated(lambda v: ops.moments(v, 0)[0], np.zeros((0, 3)))


def moments_graph(shape: tuple[int, ...], dtype: DType, axes: Any = (0, 1, 2)) -> Graph:
    graph = Graph("moments")
    x = graph.input("x", TensorType(dtype, shape))
    for name, value in zip(("mean", "variance"), ops.moments(x, axes), strict=True):
        graph.output(name, value)
    return graph


@pytest.fixture(scope="module", params=[F32, F64], ids=str)
def compiled_moments(request: pytest.FixtureRequest) -> tuple[Graph, Program]:
    graph = moments_graph((64, 32, 32, 2), request.param)
    return graph, compile_graph(graph, Options(cores=2))


@pytest.mark.parametrize(
    "outliers",
    [(0, 0, 0), (0, 0), (0, slice(2)), 0, slice(2), slice(3), slice(4), slice(8), slice(32), (-1, -1, -1)],
    ids=str,
)
@pytest.mark.parametrize("center", [1e3, -1e6])
def test_moments_of_data_with_outliers(compiled_moments: tuple[Graph, Program], outliers: Any, center: float) -> None:
    """Wherever they lie: one element, a row, rows, an image, as many as the sample has, half of all."""
    graph, program = compiled_moments
    dtype = graph.inputs[0].dtype.numpy
    x = center + 0.1 * sample(0, 64, 32, 32, 2)
    x[outliers] = 0
    x = x.astype(dtype)
    exact = x.astype(np.longdouble)
    expected = {"mean": exact.mean((0, 1, 2)), "variance": exact.var((0, 1, 2))}
    unit = np.finfo(dtype).eps
    found = run_program(program, graph, {"x": x}, threads=2)
    np.testing.assert_allclose(found["mean"], expected["mean"].astype(float), rtol=50 * unit)
    # As many roundings as lie in a row, in chains of 256 and one of these, times what the sample may be off.
    np.testing.assert_allclose(found["variance"], expected["variance"].astype(float), rtol=1000 * unit)


@settings(max_examples=50)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
    axes=st.sets(st.integers(0, 2), min_size=1),
    seed=seeds,
)
def test_the_sample_is_a_sixteenth_and_hardly_more(shape: tuple[int, ...], axes: set[int], seed: int) -> None:
    """No less, whatever the shape, since the sample bounds what outliers cost."""
    reduced = tuple(sorted(axis for axis in axes if axis < len(shape))) or (0,)
    graph = moments_graph(shape, F64, reduced)
    count = np.prod([shape[axis] for axis in reduced])
    sizes = {
        int(np.prod([value.inputs[0].shape[axis] for axis in reduced]))
        for value in graph.live()
        if isinstance(value.op, Sum)
    }
    seen = min(sizes) if len(sizes) > 1 else 1
    assert max(sizes) == count and len(sizes) <= 2
    assert count / 16 <= seen <= max(1, count / 8)
    x = 1e4 + sample(seed, *shape)
    found = interpret(graph, {"x": x})
    np.testing.assert_allclose(found["mean"], x.mean(reduced), rtol=1e-12)
    np.testing.assert_allclose(found["variance"], x.var(reduced), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 0, 1), (3, 4, 5)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_moments_of_what_is_not_finite(place: tuple[int, ...], value: float) -> None:
    """No moment of such a channel is finite, and the others feel nothing."""
    graph = moments_graph((4, 5, 6, 3), F32)
    x = sample(0, 4, 5, 6, 3).astype(np.float32)
    exact = x.astype(float)
    x[(*place, 1)] = value
    with np.errstate(invalid="ignore"):
        results = (interpret(graph, {"x": x}), run(graph, {"x": x}))
    for found in results:
        assert not np.isfinite(found["mean"][1]) and np.isnan(found["variance"][1])
        np.testing.assert_allclose(found["mean"][::2], exact.mean((0, 1, 2))[::2], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["variance"][::2], exact.var((0, 1, 2))[::2], rtol=1e-4)


def test_large_elements_do_not_overflow_the_sample() -> None:
    x = np.full((64, 64, 4, 1), 3e37, np.float32)
    mean, variance = evaluated(lambda v: list(ops.moments(v, (0, 1, 2))), x)
    assert mean.tolist() == [np.float32(3e37)] and variance.tolist() == [0.0]


def test_both_moments_come_from_one_pass() -> None:
    """One kernel reads all of the data, beside one that reads the sample; normalization is the second that does."""
    graph = Graph()
    x = graph.input("x", TensorType(F32, (4, 32, 32, 16)))
    mean, variance = ops.moments(x, (0, 1, 2))
    graph.output("mean", mean)
    graph.output("normal", ops.batch_normalization(x, mean, variance, -1))
    groups = fuse(simplify(graph))[0].groups
    summed = [
        {math.prod(value.inputs[0].shape) for value in group.members if isinstance(value.op, Sum)} for group in groups
    ]
    assert [sizes for sizes in summed if sizes] == [{x.type.size // 16}, {x.type.size}]
    results = [result.type for group in groups for result in group.results]
    assert [result for result in results if result.size >= x.type.size // 16] == [x.type]


def moment_by_two_passes(x: Value) -> tuple[Value, Value]:
    mean = ops.mean(x, (0, 1, 2))
    return mean, ops.mean(ops.square(x - mean), (0, 1, 2))


def normalized(x: Value, scale: Value, offset: Value, moments: Any) -> Value:
    mean, variance = moments(x)
    return ops.batch_normalization(x, mean, variance, -1, offset, scale, epsilon=1e-3)


@settings(max_examples=10)
@given(seed=seeds)
def test_gradients_of_normalization_are_those_of_two_passes(seed: int) -> None:
    x, scale, offset, weight = (
        sample(seed, 3, 4, 2, 5),
        sample(seed + 1, 5),
        sample(seed + 2, 5),
        sample(seed, 3, 4, 2, 5),
    )

    def both(x: Value, scale: Value, offset: Value, weight: Value) -> list[Value]:
        found = []
        for moments in (lambda v: ops.moments(v, (0, 1, 2)), moment_by_two_passes):
            total = ops.sum(normalized(x, scale, offset, moments) * weight)
            first = gradients([total], [x, scale, offset])
            found += [*first, *gradients([ops.sum(ops.square(first[0]))], [x, scale])]
        return found

    found = evaluated(both, x, scale, offset, weight)
    for got, expected in zip(found[:5], found[5:], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def test_a_normalized_batch_does_not_feel_its_offset_and_scale() -> None:
    """∂/∂x along 1 and along x − mean vanish where epsilon is 0."""
    x, weight = sample(0, 4, 3, 3, 2), sample(1, 4, 3, 3, 2)

    def gradient(x: Value, weight: Value) -> Value:
        result = ops.batch_normalization(x, *ops.moments(x, (0, 1, 2)), axis=-1, epsilon=0.0)
        return gradients([ops.sum(result * weight)], [x])[0]

    found = evaluated(gradient, x, weight)
    np.testing.assert_allclose(found.sum((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose((found * x).sum((0, 1, 2)), 0, atol=1e-12)


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize(("use_offset", "use_scale"), [(True, True), (True, False), (False, True), (False, False)])
def test_batch_normalization(axis: int, use_offset: bool, use_scale: bool) -> None:
    x = sample(0, 3, 4, 5)
    count = x.shape[axis]
    mean, variance, offset, scale = sample(1, count), sample(2, count) ** 2, sample(3, count), sample(4, count)

    def normal(x: Value, mean: Value, variance: Value, offset: Value, scale: Value) -> Value:
        return ops.batch_normalization(
            x, mean, variance, axis, offset if use_offset else None, scale if use_scale else None, epsilon=0.01
        )

    last = np.moveaxis(x, axis, -1)
    expected = (last - mean) / np.sqrt(variance + 0.01) * (scale if use_scale else 1) + (offset if use_offset else 0)
    found = evaluated(normal, x, mean, variance, offset, scale)
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, axis), rtol=1e-10, atol=1e-12)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="vectors of 5 elements"):
        evaluated(lambda x, m: ops.batch_normalization(x, m, m, -1), sample(0, 3, 5), sample(0, 3))
    with pytest.raises(ShapeError, match="vectors of 5 elements"):
        evaluated(lambda x, m: ops.batch_normalization(x, m, m, -1, offset=1.0), sample(0, 3, 5), sample(0, 5))


def test_upsampling_repeats_pixels() -> None:
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    found = evaluated(lambda x: ops.upsample(x, (3, 2)), x)
    assert found.shape == (1, 6, 4, 2)
    for row, column in np.ndindex(6, 4):
        assert np.array_equal(found[0, row, column], x[0, row // 3, column // 2])
    pixels = evaluated(lambda x: gradients([ops.sum(ops.upsample(x, 2))], [x])[0], x)
    assert np.array_equal(pixels, np.full_like(x, 4))
    with pytest.raises(ShapeError, match="batch, height"):
        evaluated(lambda x: ops.upsample(x, 2), sample(0, 2, 2, 2))
