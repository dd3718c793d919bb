"""Every layer, compiled in a small functional model of odd sizes, against the interpreter: a prediction and a step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers, ops, step_graphs
from gradloom.compiler.interpreter import interpret
from interpreted import evaluate

SAMPLES, BATCH = 5, 3

Tail = Callable[[Any], Any]


def beside(x: Any) -> list[Any]:
    """The tensor and another one of its shape."""
    return [x, layers.Conv2D(4, 3, padding="same")(x)]


def normalized_upsampled_and_reshaped(x: Any) -> Any:
    x = layers.BatchNormalization()(layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.UpSampling2D((2, 3))(layers.LeakyReLU(negative_slope=0.1)(x))
    _, height, width, channels = x.shape
    return layers.Reshape((height * width, channels))(x)


def reshaped_normalized_and_convolved(x: Any) -> Any:
    _, height, width, channels = x.shape
    x = layers.BatchNormalization()(layers.Reshape((height * width, channels))(x))
    x = layers.UpSampling2D(2)(layers.Reshape((width, height, channels))(x))
    return layers.BatchNormalization(scale=False)(layers.Conv2D(3, 3, activation="tanh")(x))


def residual(x: Any) -> Any:
    y = layers.Conv2D(2, 1, use_bias=False)(x)
    y = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(y))
    y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
    return layers.Add()([x, layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(y))])


def shared(x: Any) -> Any:
    layer = layers.Conv2D(4, 3, padding="same", activation="relu")
    return layer(layer(x))


def nested(x: Any) -> Any:
    inside = gl.Input(x.shape[1:])
    return gl.Model(inside, layers.MaxPooling2D(2)(layers.BatchNormalization()(inside)))(x)


CASES: dict[str, Tail] = {
    "conv2d": lambda x: layers.Conv2D(7, 3)(x),
    "conv2d 1x1": lambda x: layers.Conv2D(17, 1, use_bias=False, activation="relu")(x),
    "conv2d strides": lambda x: layers.Conv2D(6, (3, 2), strides=(2, 3), padding="same")(x),
    "conv2d strides, valid": lambda x: layers.Conv2D(6, 3, strides=2)(x),
    "conv2d dilation": lambda x: layers.Conv2D(3, (2, 3), dilation_rate=(3, 2), padding="same")(x),
    "conv2d groups": lambda x: layers.Conv2D(6, 3, groups=2, padding="same", activation="sigmoid")(x),
    "depthwise_conv2d": lambda x: layers.DepthwiseConv2D(3, padding="same")(x),
    "depthwise_conv2d strides": lambda x: layers.DepthwiseConv2D((2, 3), strides=2, depth_multiplier=3)(x),
    "zero_padding2d": lambda x: layers.ZeroPadding2D(((1, 2), (0, 3)))(x),
    "zero_padding2d, conv2d": lambda x: layers.Conv2D(5, 3, strides=2)(layers.ZeroPadding2D(((1, 0), (1, 0)))(x)),
    "batch_normalization": lambda x: layers.BatchNormalization(momentum=0.9)(x),
    "batch_normalization axis": lambda x: layers.BatchNormalization(axis=1, center=False)(x),
    "max_pooling2d": lambda x: layers.MaxPooling2D(2)(x),
    "max_pooling2d same": lambda x: layers.MaxPooling2D((3, 2), strides=(2, 1), padding="same")(x),
    "average_pooling2d": lambda x: layers.AveragePooling2D((2, 3))(x),
    "average_pooling2d same": lambda x: layers.AveragePooling2D(3, strides=2, padding="same")(x),
    "global_average_pooling2d": lambda x: layers.GlobalAveragePooling2D()(x),
    "global_max_pooling2d": lambda x: layers.GlobalMaxPooling2D(keepdims=True)(x),
    "add": lambda x: layers.Add()(beside(x)),
    "subtract": lambda x: layers.Subtract()(beside(x)),
    "multiply": lambda x: layers.Multiply()(beside(x)),
    "maximum": lambda x: layers.Maximum()(beside(x)),
    "minimum": lambda x: layers.Minimum()(beside(x)),
    "average": lambda x: layers.Average()([*beside(x), layers.ReLU()(x)]),
    "concatenate": lambda x: layers.Concatenate()(beside(x)),
    "concatenate axis": lambda x: layers.Concatenate(axis=1)(beside(x)),
    "up_sampling2d": lambda x: layers.UpSampling2D((3, 2))(x),
    "up_sampling2d, conv2d": lambda x: layers.Conv2D(3, 3, padding="same")(layers.UpSampling2D(2)(x)),
    "dropout": lambda x: layers.Dropout(0.4)(x),
    "lambda": lambda x: layers.Lambda(lambda v: ops.square(v) - ops.mean(v, axis=(1, 2), keepdims=True))(x),
    "reshape": lambda x: layers.Reshape((-1, 2))(x),
    "flatten, dense": lambda x: layers.Dense(11, activation="tanh")(layers.Flatten()(x)),
    "activation": lambda x: layers.Activation("softplus")(x),
    "leaky_relu": lambda x: layers.LeakyReLU()(x),
    "relu": lambda x: layers.ReLU(max_value=1.0, negative_slope=0.2)(x),
    "softmax": lambda x: layers.Softmax()(x),
    "rescaling": lambda x: layers.Rescaling(0.5, offset=-1.0)(x),
    "normalized, upsampled and reshaped": normalized_upsampled_and_reshaped,
    "reshaped, normalized and convolved": reshaped_normalized_and_convolved,
    "a residual block": residual,
    "a shared layer": shared,
    "a nested model": nested,
}


def model_of(tail: Tail) -> gl.Model:
    """A convolution, through whose weights the gradient of the tail is seen, and the tail."""
    image = gl.Input((7, 9, 3))
    return gl.Model(image, tail(layers.Conv2D(4, (2, 3))(image)))


def randomized(model: gl.Model) -> None:
    """Give every weight another value than its first one, which may hide what it does."""
    rng = np.random.default_rng(1)
    model.set_weights([weight + rng.uniform(0.05, 0.3, weight.shape) for weight in model.get_weights()])


@pytest.mark.parametrize("name", CASES)
def test_a_prediction(name: str) -> None:
    """With a last batch that is not full."""
    model = model_of(CASES[name])
    randomized(model)
    x = np.random.default_rng(0).normal(size=(SAMPLES, 7, 9, 3)).astype(np.float32)
    found = model.predict(x, batch_size=BATCH, verbose=0)
    expected = evaluate(model, x)
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_a_train_step(name: str) -> None:
    """All weights, moving statistics and the loss after one step with momentum."""
    model = model_of(CASES[name])
    randomized(model)
    model.compile(gl.optimizers.SGD(0.05, momentum=0.9), "mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 7, 9, 3)).astype(np.float32)
    y = rng.normal(size=(BATCH, *model.output_shape[1:])).astype(np.float32)
    before = model.get_weights()
    step = step_graphs.train_step(model, BATCH, model._data_types("train_graph", "float32"))
    rows = np.arange(BATCH, dtype=np.int32)
    expected = interpret(step.graph, {**step.arguments(), "x": x, "y": y, "rows": rows})
    labels = {variable.path: step.trace.label(variable) for variable in step.trace.assigned}

    history = model.fit(x, y, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
    assert history.history["loss"] == [pytest.approx(float(expected["loss/total"]) / BATCH, rel=1e-4)]
    assert set(labels) >= {weight.path for weight in model.trainable_weights}
    assert not np.allclose(expected[labels["conv2d/kernel"]], before[0]), "no gradient passes the layer"
    for weight, old in zip(model.weights, before, strict=True):
        new = expected[labels[weight.path]] if weight.path in labels else old
        scale = max(np.abs(new - old).max(), 1e-3)
        np.testing.assert_allclose(weight.numpy() - old, new - old, rtol=1e-3, atol=1e-3 * scale, err_msg=weight.path)


def test_every_layer_is_in_the_table() -> None:
    public = {getattr(layers, name) for name in layers.__all__}
    wanted = {one for one in public if inspect.isclass(one) and issubclass(one, layers.Layer)} - {layers.Layer}
    assert {type(layer) for tail in CASES.values() for layer in model_of(tail).layers} >= wanted


def test_several_inputs_and_outputs() -> None:
    left, right = gl.Input((5, 3, 2), name="left"), gl.Input((5, 3, 1), name="right")
    both = layers.Concatenate()([left, right])
    images = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(both))
    numbers = layers.Dense(2)(layers.GlobalMaxPooling2D()(layers.Multiply()([images, right])))
    model = gl.Model([left, right], [images, numbers])
    randomized(model)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(SAMPLES, *tensor.shape[1:])).astype(np.float32) for tensor in (left, right)]
    found = model.predict(data, batch_size=BATCH, verbose=0)
    for place, result in enumerate(found):
        expected = evaluate(lambda a, b, place=place: model([a, b])[place], *data)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
