"""Symbolic tensors: open shapes, recorded calls of functions and operators, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradloom as gl
from gradloom.compiler.errors import ShapeError


def applied(make: Any, *arrays: np.ndarray) -> Any:
    """What `make` of symbolic tensors is for these arrays, by a model that is compiled."""
    inputs = [gl.Input(array.shape[1:], dtype=str(array.dtype)) for array in arrays]
    return gl.Model(inputs, make(*inputs)).predict(list(arrays))


def test_input() -> None:
    x = gl.Input((28, 28), name="image", dtype="uint8")
    assert (x.shape, x.dtype.numpy_name, x.name, x.ndim) == ((None, 28, 28), "uint8", "image", 3)
    assert isinstance(x, gl.KerasTensor)
    assert gl.Input((3,), batch_size=7).shape == gl.Input(batch_shape=(7, 3)).shape == (7, 3)
    assert gl.Input(()).shape == (None,)
    with pytest.raises(ValueError, match="Expected either shape or batch_shape"):
        gl.Input()
    with pytest.raises(ValueError, match="Expected shape of input .* with sizes ≥ 0"):
        gl.Input((-1,))


@given(st.integers(1, 7), st.integers(1, 5))
def test_operators_and_functions_are_those_of_numpy_for_every_batch_size(samples: int, features: int) -> None:
    x = np.random.default_rng(samples).normal(size=(samples, features)).astype(np.float32)

    def f(v: Any, ops: Any) -> Any:
        y = (2 * v + 1) / (abs(v) + 0.5) - v**2
        return ops.concatenate([ops.maximum(-y, v), v[:, :1] @ np.ones((1, 2), np.float32)], axis=1)

    np.testing.assert_allclose(applied(lambda v: f(v, gl.ops), x), f(x, np), rtol=1e-4, atol=1e-5)


def test_open_sizes_are_followed_through_shapes() -> None:
    x = gl.Input((4, 6))
    assert gl.ops.transpose(x, (1, 0, 2)).shape == (4, None, 6)
    assert gl.ops.reshape(x, (-1, 12)).shape == (None, 12)
    assert gl.ops.concatenate([x, x], axis=0).shape == (None, 4, 6)
    assert gl.ops.sum(x, axis=0).shape == (4, 6)
    assert gl.ops.sum(x).shape == ()
    assert gl.ops.shape(x) == (None, 4, 6)
    assert [part.shape for part in gl.ops.split(x, 3, axis=2)] == [(None, 4, 2)] * 3
    assert gl.ops.cast(x, "int32").dtype.numpy_name == "int32"
    with pytest.raises(ShapeError, match="Expected shapes that broadcast"):
        x + gl.ops.concatenate([x, x], axis=0)


def test_custom_gradients_are_recorded() -> None:
    @gl.ops.custom_gradient
    def double(x: Any) -> Any:
        return x * 2.0, lambda upstream: upstream * 0.0

    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(applied(double, x), 2 * x)


def test_variables_take_part_and_are_weights_of_the_model() -> None:
    scale = gl.Variable(np.float32([1, 2]), path="scale")
    x = gl.Input((2,))
    model = gl.Model(x, scale * x + x * scale)
    assert model.trainable_variables == [scale]
    np.testing.assert_array_equal(model.predict(np.ones((1, 2))), [[2, 4]])
    scale.assign([3, 4])
    np.testing.assert_array_equal(model.predict(np.ones((1, 2))), [[6, 8]])


def test_errors_name_the_tensors_their_open_shapes_and_the_line() -> None:
    x, y = gl.Input((4,), name="x"), gl.Input((3,), name="y")
    with pytest.raises(
        ShapeError, match=r"call of 'add' on 'x' \(None, 4\), 'y' \(None, 3\); .*test_symbolic.py:\d+\]"
    ):
        gl.ops.add(x, y)


def test_a_symbolic_tensor_is_no_number() -> None:
    x = gl.Input((4,), name="x")
    with pytest.raises(TypeError, match="has no truth value"):
        bool(x > 0)
    with pytest.raises(TypeError, match="Expected a tensor whose first size is known to iterate over"):
        list(x)
    with pytest.raises(TypeError, match=r"Symbolic tensor 'x' of shape \(None, 4\): Expected it as an argument"):
        gl.layers.Lambda(lambda v: v + 1 if False else gl.compiler.ops.add(v, x))(gl.Input((4,)))
