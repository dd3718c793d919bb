"""Statistics of channels, batch normalization and upsampling, against NumPy in double precision."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function_runner import run, sample
from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.types import F32, TensorType

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(seed=seeds, axes=st.sampled_from([0, -1, (0, 1, 2), (1, 2), None]), keepdims=st.booleans())
def test_moments(seed: int, axes: Any, keepdims: bool) -> None:
    x = 3 * sample(seed, 2, 5, 4, 3) + 1
    mean, variance = run(lambda v: list(ops.moments(v, axes, keepdims)), x)
    np.testing.assert_allclose(mean, x.mean(axes, keepdims=keepdims), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(variance, x.var(axes, keepdims=keepdims), rtol=1e-11)


@settings(max_examples=30)
@given(seed=seeds, offset=st.sampled_from([1e3, -1e4, 1e5]))
def test_moments_far_from_zero(seed: int, offset: float) -> None:
    """In float32, E[x²] − E[x]² would have no correct digit here."""
    x = (sample(seed, 8, 6, 6, 3) + offset).astype(np.float32)
    exact = x.astype(np.float64)
    mean, variance = run(lambda v: list(ops.moments(v, (0, 1, 2))), x)
    assert mean.dtype == variance.dtype == np.float32
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=3e-7)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 16777217.0])
def test_equal_elements_have_no_variance(value: float) -> None:
    mean, variance = run(lambda v: list(ops.moments(v, (0, 1))), np.full((7, 11, 3), value, np.float32))
    assert mean.tolist() == [np.float32(value)] * 3 and variance.tolist() == [0.0] * 3


def test_moments_of_nothing_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least one element"):
        run(lambda v: ops.moments(v, 0)[0], np.zeros((0, 3)))


def test_both_moments_come_from_one_pass() -> None:
    """No sum waits for another."""
    graph = Graph()
    x = graph.input("x", TensorType(F32, (4, 8, 8, 16)))
    for name, value in zip(("mean", "variance"), ops.moments(x, (0, 1, 2)), strict=True):
        graph.output(name, value)
    depth: dict[Value, int] = {}
    for value in graph.live():
        depth[value] = max((depth[v] for v in value.inputs), default=0) + isinstance(value.op, Sum)
    assert max(depth.values()) == 1


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

    found = run(both, x, scale, offset, weight)
    for got, expected in zip(found[:5], found[5:], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


def test_a_normalized_batch_does_not_feel_its_offset_and_scale() -> None:
    """∂/∂x along 1 and along x − mean vanish where epsilon is 0."""
    x, weight = sample(0, 4, 3, 3, 2), sample(1, 4, 3, 3, 2)

    def gradient(x: Value, weight: Value) -> Value:
        result = ops.batch_normalization(x, *ops.moments(x, (0, 1, 2)), axis=-1, epsilon=0.0)
        return gradients([ops.sum(result * weight)], [x])[0]

    found = run(gradient, x, weight)
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
    found = run(normal, x, mean, variance, offset, scale)
    np.testing.assert_allclose(found, np.moveaxis(expected, -1, axis), rtol=1e-10, atol=1e-12)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="vectors of 5 elements"):
        run(lambda x, m: ops.batch_normalization(x, m, m, -1), sample(0, 3, 5), sample(0, 3))
    with pytest.raises(ShapeError, match="vectors of 5 elements"):
        run(lambda x, m: ops.batch_normalization(x, m, m, -1, offset=1.0), sample(0, 3, 5), sample(0, 5))


def test_upsampling_repeats_pixels() -> None:
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    found = run(lambda x: ops.upsample(x, (3, 2)), x)
    assert found.shape == (1, 6, 4, 2)
    for row, column in np.ndindex(6, 4):
        assert np.array_equal(found[0, row, column], x[0, row // 3, column // 2])
    pixels = run(lambda x: gradients([ops.sum(ops.upsample(x, 2))], [x])[0], x)
    assert np.array_equal(pixels, np.full_like(x, 4))
    with pytest.raises(ShapeError, match="batch, height"):
        run(lambda x: ops.upsample(x, 2), sample(0, 2, 2, 2))
