"""Activations against NumPy in float64."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gradloom import activations
from interpreted import evaluate

erf = np.vectorize(math.erf, otypes=[np.float64])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


REFERENCES = {
    "linear": lambda x: x,
    "relu": lambda x: np.where(x > 0, x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "selu": lambda x: (
        1.0507009873554804934 * np.where(x > 0, x, 1.6732632423543772848 * (np.exp(np.minimum(x, 0)) - 1))
    ),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "tanh": np.tanh,
    "exponential": np.exp,
}

SHAPES = array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)


@pytest.mark.parametrize("name", REFERENCES)
@given(data=st.data())
@settings(max_examples=15)
def test_activation(name, data):
    x = data.draw(arrays(np.float32, data.draw(SHAPES), elements=st.floats(-20, 20, width=32)))
    y = evaluate(activations.get(name), x)
    assert y.shape == x.shape and y.dtype == np.float32
    np.testing.assert_allclose(y, REFERENCES[name](x.astype(np.float64)), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("max_value", [None, 1.5])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_relu_with_all_its_arguments(slope, max_value, threshold):
    x = np.linspace(-3, 3, 25, dtype=np.float32)
    expected = np.where(x >= threshold, x, slope * (x - threshold))
    if max_value is not None:
        expected = np.minimum(expected, max_value)
    # Where x is the threshold itself, both sides count as right: Keras's text and its code differ there.
    apart = x != threshold
    y = evaluate(lambda v: activations.relu(v, slope, max_value, threshold), x)
    np.testing.assert_allclose(y[apart], expected[apart], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_relu_passes_nan_on(threshold):
    assert np.isnan(evaluate(lambda v: activations.relu(v, threshold=threshold), np.array([np.nan], np.float32))).all()


def test_gelu_approximated():
    x = np.linspace(-3, 3, 25, dtype=np.float32)
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(evaluate(lambda v: activations.gelu(v, True), x), expected, rtol=1e-5, atol=1e-6)


def test_softmax_along_another_axis():
    x = np.arange(12, dtype=np.float32).reshape(3, 4) ** 1.5
    np.testing.assert_allclose(evaluate(lambda v: activations.softmax(v, axis=0), x), softmax(x.T).T, rtol=1e-5)


def test_names_and_callables():
    assert activations.get("relu") is activations.relu
    assert activations.get(None) is activations.linear
    assert activations.get(activations.tanh) is activations.tanh
    assert activations.serialize(activations.relu) == "relu"
    with pytest.raises(ValueError, match=r"Unknown activation\. Did you mean 'relu'.*Received: 'rleu'"):
        activations.get("rleu")
    with pytest.raises(TypeError, match="Received: 7"):
        activations.get(7)
