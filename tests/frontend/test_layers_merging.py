"""Merging layers: what they compute, their functions, and refused shapes."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers
from gradloom.compiler.errors import ShapeError
from interpreted import evaluate

RNG = np.random.default_rng(0)
ARRAYS = [RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 1, 4), (2, 3, 1))]

KINDS: list[tuple[Any, Any, Any]] = [
    (layers.Add, layers.add, np.add),
    (layers.Multiply, layers.multiply, np.multiply),
    (layers.Maximum, layers.maximum, np.maximum),
    (layers.Minimum, layers.minimum, np.minimum),
]


@pytest.mark.parametrize(("kind", "function", "reference"), KINDS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_elementwise(kind: Any, function: Any, reference: Any, count: int) -> None:
    expected = reduce(reference, ARRAYS[:count])
    for merge in (kind(), function):
        result = evaluate(lambda *values, merge=merge: merge(list(values)), *ARRAYS[:count])
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    shapes = [(None, *array.shape[1:]) for array in ARRAYS[:count]]
    assert kind().compute_output_shape(shapes) == (None, *expected.shape[1:])


def test_average_and_subtract() -> None:
    for merge in (layers.Average(), layers.average):
        result = evaluate(lambda *values, merge=merge: merge(list(values)), *ARRAYS)
        np.testing.assert_allclose(result, sum(ARRAYS) / 3, rtol=1e-5, atol=1e-6)
    for merge in (layers.Subtract(), layers.subtract):
        result = evaluate(lambda *values, merge=merge: merge(list(values)), *ARRAYS[:2])
        np.testing.assert_allclose(result, ARRAYS[0] - ARRAYS[1], rtol=1e-6)


@pytest.mark.parametrize(("kind", "function", "reference"), [*KINDS, (layers.Subtract, layers.subtract, np.subtract)])
@pytest.mark.parametrize("swapped", [False, True])
def test_tensors_of_less_axes_are_the_same_for_each_of_the_first_ones(
    kind: Any, function: Any, reference: Any, swapped: bool
) -> None:
    """Keras's rule: axes are added behind the batch, not before it."""
    rng = np.random.default_rng(1)
    images, vectors = rng.normal(size=(3, 4, 5, 3)), rng.normal(size=(3, 3))
    pair = [array.astype(np.float32) for array in ((vectors, images) if swapped else (images, vectors))]
    expected = reference(*(array.reshape(3, 1, 1, 3) if array.ndim == 2 else array for array in pair))
    for merge in (kind(), function):
        result = evaluate(lambda *values, merge=merge: merge(list(values)), *pair)
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert kind().compute_output_shape([(None, *array.shape[1:]) for array in pair]) == (None, 4, 5, 3)


def test_the_average_of_bytes_is_no_byte() -> None:
    x = np.array([[250, 1]], np.uint8)
    result = evaluate(lambda *values: layers.Average()(list(values)), x, x - 1)
    np.testing.assert_array_equal(result, np.float32([[249.5, 0.5]]))
    assert result.dtype == np.float32


@pytest.mark.parametrize("axis", [-1, 1, -2])
def test_concatenate(axis: int) -> None:
    x = ARRAYS[0]
    for merge in (layers.Concatenate(axis), lambda values: layers.concatenate(values, axis)):
        result = evaluate(lambda *values, merge=merge: merge(list(values)), x, 2 * x)
        np.testing.assert_array_equal(result, np.concatenate([x, 2 * x], axis))


@pytest.mark.parametrize(
    ("merge", "shapes", "message"),
    [
        (layers.Add, [(4, 4, 3), (4, 4, 2)], r"'add' \(Add\): Expected shapes that broadcast. "
         r"Received: \[\(None, 4, 4, 3\), \(None, 4, 4, 2\)\]  \[call of 'add' on 'x0' \(None, 4, 4, 3\), "
         r"'x1' \(None, 4, 4, 2\); .*test_layers_merging.py:\d+\]"),
        (layers.Multiply, [(3,), (4, 4)], r"Expected shapes that broadcast. Received: \[\(None, 3\), \(None, 4, 4\)\]"),
        (layers.Subtract, [(4,), (4,), (4,)], "Expected two tensors"),
        (layers.Subtract, [(4,)], "Expected 2 tensors or more"),
        (layers.Concatenate, [(4, 3), (5, 2)], "Expected shapes that differ along axis 2 alone"),
        (layers.Concatenate, [(4,), (5, 2)], "Expected tensors of one rank, which have axis -1"),
    ],
)  # fmt: skip
def test_refused_shapes_name_layer_shapes_and_line(merge: Any, shapes: Any, message: str) -> None:
    inputs = [gl.Input(shape, name=f"x{place}") for place, shape in enumerate(shapes)]
    with pytest.raises(ShapeError, match=message):
        merge()(inputs)


def test_one_tensor_is_no_list() -> None:
    with pytest.raises(ShapeError, match=r"'add' \(Add\): Expected a list of tensors. Received: \(None, 3\)"):
        layers.Add()(gl.Input((3,)))
    with pytest.raises(ShapeError, match="Expected one tensor. Received: shapes"):
        layers.Dense(2)([gl.Input((3,)), gl.Input((3,))])


def test_a_merge_is_checked_at_each_call() -> None:
    merge = layers.Add()
    merge([gl.Input((3,)), gl.Input((3,))])
    with pytest.raises(ShapeError, match="Expected shapes that broadcast"):
        merge([gl.Input((3,)), gl.Input((4,))])


def test_config_round_trip() -> None:
    for layer in (layers.Add(name="sum"), layers.Concatenate(axis=1)):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
