"""Layers of images against NumPy: convolution, pooling, padding, upsampling."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_images import conv, pool

import gradloom as gl
from gradloom import layers
from gradloom.compiler.errors import ShapeError
from interpreted import evaluate

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def images(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, height, width, channels)).astype(np.float32)


def assert_shape_is_known(layer: Any, x: np.ndarray, y: np.ndarray) -> None:
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])


@given(
    st.integers(5, 8),
    st.integers(5, 8),
    pairs,
    pairs,
    st.sampled_from(["valid", "same", "VALID"]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
)
@settings(max_examples=40)
def test_convolution(
    height: int,
    width: int,
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    dilation: int,
    groups: int,
    use_bias: bool,
) -> None:
    x = images(height, width, 2 * groups)
    layer = layers.Conv2D(
        3 * groups,
        size,
        strides,
        padding,
        dilation_rate=dilation,
        groups=groups,
        activation="relu",
        use_bias=use_bias,
        bias_initializer="random_normal",
    )
    y = evaluate(layer, x)
    kernel, *bias = layer.get_weights()
    assert kernel.shape == (*size, 2, 3 * groups) and len(bias) == use_bias
    expected = conv(x, kernel, strides, padding.lower(), (dilation, dilation), groups) + (bias[0] if bias else 0)
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)
    assert_shape_is_known(layer, x, y)


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_depthwise_convolution_is_one_of_as_many_groups_as_channels(multiplier: int, padding: str) -> None:
    x = images(6, 5, 4)
    layer = layers.DepthwiseConv2D(3, 2, padding, multiplier, bias_initializer="ones")
    y = evaluate(layer, x)
    kernel, bias = layer.get_weights()
    assert kernel.shape == (3, 3, 4, multiplier) and bias.shape == (4 * multiplier,)
    expected = conv(x, kernel.reshape(3, 3, 1, 4 * multiplier), (2, 2), padding, groups=4) + 1
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert_shape_is_known(layer, x, y)


@given(st.integers(3, 8), st.integers(3, 8), pairs, st.none() | pairs, st.sampled_from(["valid", "same"]))
@settings(max_examples=30)
def test_pooling(height: int, width: int, size: tuple[int, int], strides: tuple[int, int] | None, padding: str) -> None:
    x = images(height, width, 3)
    for kind, reduce in ((layers.MaxPooling2D, np.nanmax), (layers.AveragePooling2D, np.nanmean)):
        layer = kind(size, strides, padding)
        y = evaluate(layer, x)
        np.testing.assert_allclose(y, pool(x, size, strides or size, padding, reduce), rtol=1e-5, atol=1e-6)
        assert_shape_is_known(layer, x, y)


@pytest.mark.parametrize("keepdims", [False, True])
def test_global_pooling(keepdims: bool) -> None:
    x = images(4, 5, 3)
    for kind, reduce in ((layers.GlobalMaxPooling2D, np.max), (layers.GlobalAveragePooling2D, np.mean)):
        layer = kind(keepdims=keepdims)
        y = evaluate(layer, x)
        np.testing.assert_allclose(y, reduce(x, axis=(1, 2), keepdims=keepdims), rtol=1e-5, atol=1e-6)
        assert_shape_is_known(layer, x, y)


@pytest.mark.parametrize(
    ("padding", "around"),
    [(1, ((1, 1), (1, 1))), ((2, 0), ((2, 2), (0, 0))), (((1, 2), (0, 3)), ((1, 2), (0, 3)))],
)
def test_zero_padding(padding: Any, around: Any) -> None:
    x = images(3, 4, 2)
    layer = layers.ZeroPadding2D(padding)
    y = evaluate(layer, x)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), *around, (0, 0))))
    assert_shape_is_known(layer, x, y)


def test_upsampling_repeats_pixels() -> None:
    x = images(2, 3, 2)
    layer = layers.UpSampling2D((3, 2))
    y = evaluate(layer, x)
    np.testing.assert_array_equal(y, x.repeat(3, axis=1).repeat(2, axis=2))
    assert_shape_is_known(layer, x, y)


def test_bytes_are_converted() -> None:
    x = np.full((1, 2, 2, 1), 200, np.uint8)
    layer = layers.Conv2D(1, 2, kernel_initializer="ones")
    np.testing.assert_array_equal(evaluate(layer, x), [[[[800.0]]]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv2D(0, 3), "Layer 'conv2d': Expected filters as a positive integer. Received: filters=0"),
        (lambda: layers.Conv2D(4, (3, 3, 3)), r"Expected kernel_size as one integer ≥ 1, or two.*\(3, 3, 3\)"),
        (lambda: layers.Conv2D(4, 3, strides=0), "Expected strides as one integer ≥ 1, or two. Received: strides=0"),
        (lambda: layers.Conv2D(4, 3, padding="full"), 'Expected padding="valid" or "same". Received: padding=\'full\''),
        (lambda: layers.Conv2D(4, 3, data_format="channels_first"), 'Expected data_format="channels_last"'),
        (lambda: layers.Conv2D(4, 3, groups=3), "Expected filters that groups divide. Received: filters=4, groups=3"),
        (lambda: layers.ZeroPadding2D(-1), "Expected padding as one integer ≥ 0"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), r"\(\(top, bottom\), \(left, right\)\)"),
        (lambda: layers.UpSampling2D(interpolation="bilinear"), 'Expected interpolation="nearest"'),
        (lambda: layers.MaxPooling2D(2.5), "Expected pool_size"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_integers_may_be_numpys(kind: Any) -> None:
    one, two, three = kind(1), kind(2), kind(3)
    for layer in (
        layers.Conv2D(two, three, (two, one), groups=two, dilation_rate=(one, one)),
        layers.DepthwiseConv2D((three, one), two, depth_multiplier=two),
        layers.ZeroPadding2D(one),
        layers.ZeroPadding2D(((one, two), (one, two))),
        layers.UpSampling2D(two),
        layers.MaxPooling2D(two, (one, two)),
        layers.BatchNormalization(axis=np.int64(3)),
        layers.Concatenate(axis=np.int64(1)),
    ):
        again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
        assert json.dumps(again.get_config()) == json.dumps(layer.get_config())
    assert gl.Input(kind(5)).shape == (None, 5) and gl.Input((kind(5), two)).shape == (None, 5, 2)
    assert layers.Conv2D(two, three).kernel_size == (3, 3) and type(layers.Conv2D(two, three).filters) is int
    for make in (lambda: layers.Conv2D(True, 3), lambda: layers.Conv2D(2, True), lambda: layers.ZeroPadding2D(True)):
        with pytest.raises(ValueError, match="Expected"):
            make()


def test_images_of_another_rank_or_channels_name_the_layer_and_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"'conv2d' \(Conv2D\): Expected an input of rank 4. Received: shape \(2, 5\)"):
        evaluate(layers.Conv2D(1, 1), np.zeros((2, 5), np.float32))
    layer = layers.Conv2D(1, 1)
    layer.build((None, 4, 4, 3))
    with pytest.raises(ShapeError, match=r"axis -1 must have size 3. Received: shape \(2, 4, 4, 2\)"):
        evaluate(layer, images(4, 4, 2))
    with pytest.raises(ShapeError, match=r"Expected channels that groups=2 divide. Received: shape \(None, 4, 4, 3\)"):
        layers.Conv2D(4, 1, groups=2).build((None, 4, 4, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv2D(4, (3, 1), 2, "same", None, (1, 1), 2, "relu", False, "he_normal", name="c"),
        lambda: layers.DepthwiseConv2D(3, 1, "same", 2, dilation_rate=2),
        lambda: layers.ZeroPadding2D(((1, 0), (1, 0))),
        lambda: layers.UpSampling2D(3),
        lambda: layers.MaxPooling2D(3, 2, "same"),
        lambda: layers.AveragePooling2D((2, 1)),
        lambda: layers.GlobalAveragePooling2D(keepdims=True),
        lambda: layers.GlobalMaxPooling2D(),
    ],
)
def test_config_round_trip(make: Any) -> None:
    layer = make()
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_shapes_of_images_of_any_size() -> None:
    x = gl.Input((None, None, 3))
    y = layers.MaxPooling2D()(layers.Conv2D(8, 3, padding="same")(x))
    assert y.shape == (None, None, None, 8)
    assert layers.GlobalAveragePooling2D()(y).shape == (None, 8)
