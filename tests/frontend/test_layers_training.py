"""Layers that do something else while they are trained: batch normalization and dropout; and Lambda."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import ShapeError
from interpreted import evaluate

X = np.random.default_rng(0).normal(3, 2, (8, 4, 4, 3)).astype(np.float32)


def normalized(x: np.ndarray, mean: Any, variance: Any, epsilon: float = 1e-3) -> np.ndarray:
    return (x - mean) / np.sqrt(variance + epsilon)


def applied(layer: Any, x: np.ndarray, training: bool) -> Any:
    return evaluate(lambda v: layer(v, training=training), x)


def test_batch_normalization_in_training() -> None:
    layer = layers.BatchNormalization(momentum=0.9)
    layer.build((None, 4, 4, 3))
    gamma, beta = np.float32([1, 2, 3]), np.float32([0, -1, 1])
    layer.set_weights([gamma, beta, np.zeros(3), np.ones(3)])
    mean, variance = X.astype(np.float64).mean(axis=(0, 1, 2)), X.astype(np.float64).var(axis=(0, 1, 2))
    y = applied(layer, X, training=True)
    np.testing.assert_allclose(y, normalized(X, mean, variance) * gamma + beta, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean.value, 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.value, 0.9 + 0.1 * variance, rtol=1e-5)
    applied(layer, X, training=True)
    np.testing.assert_allclose(layer.moving_mean.value, 0.19 * mean, rtol=1e-5)


def test_batch_normalization_otherwise_uses_the_moving_statistics() -> None:
    layer = layers.BatchNormalization(epsilon=0.5, center=False, scale=False)
    layer.build((None, 4, 4, 3))
    assert [weight.path for weight in layer.weights] == [
        "batch_normalization/moving_mean",
        "batch_normalization/moving_variance",
    ]
    layer.set_weights([np.float32([1, 2, 3]), np.float32([4, 5, 6])])
    y = applied(layer, X, training=False)
    np.testing.assert_allclose(y, normalized(X, [1, 2, 3], np.float32([4, 5, 6]), 0.5), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean.value, [1, 2, 3])


def test_a_frozen_batch_normalization_is_one_for_inference() -> None:
    layer = layers.BatchNormalization()
    layer.trainable = False
    np.testing.assert_array_equal(applied(layer, X, training=True), applied(layer, X, training=False))
    np.testing.assert_array_equal(layer.moving_mean.value, np.zeros(3))


def test_other_axes_of_channels() -> None:
    layer = layers.BatchNormalization(axis=1)
    x = X[:, 0]
    expected = normalized(x, x.mean(axis=(0, 2))[:, None], x.var(axis=(0, 2))[:, None])
    np.testing.assert_allclose(applied(layer, x, training=True), expected, rtol=1e-4, atol=1e-4)
    assert layer.moving_mean.shape == (4,)


def test_the_gradient_goes_through_mean_and_variance() -> None:
    """Against differences, in float64: the statistics depend on x, too."""
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    layer = layers.BatchNormalization(dtype="float64")
    layer.build((None, 2))

    def loss(v: Any) -> Any:
        return gl.ops.sum(layer(v, training=True) * weight)

    gradient = evaluate(lambda v: gradients([loss(v)], [v])[0], x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-6
        difference = (evaluate(loss, x + step) - evaluate(loss, x - step)) / 2e-6
        assert gradient[place] == pytest.approx(difference, rel=1e-5, abs=1e-8)


def test_bad_batch_normalization() -> None:
    with pytest.raises(ValueError, match=r"Expected momentum in \[0, 1\]. Received: momentum=1.5"):
        layers.BatchNormalization(momentum=1.5)
    with pytest.raises(ValueError, match="Expected epsilon ≥ 0"):
        layers.BatchNormalization(epsilon=-1)
    with pytest.raises(ShapeError, match="Expected an input that has axis 4. Received: shape"):
        layers.BatchNormalization(axis=4).build((None, 3))
    with pytest.raises(ShapeError, match="Expected a known size of axis -1"):
        layers.BatchNormalization().build((None, None))


def test_dropout_drops_at_its_rate_and_scales_the_rest() -> None:
    layer = layers.Dropout(0.25, seed=1)
    x = np.ones((100, 100), np.float32)
    y = applied(layer, x, training=True)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(applied(layer, x, training=False), x)


def test_what_is_dropped_depends_on_seed_and_application_alone() -> None:
    x = np.ones((20, 20), np.float32)
    one, same, other = layers.Dropout(0.5, seed=1), layers.Dropout(0.5, seed=1), layers.Dropout(0.5, seed=2)
    first, second = applied(one, x, training=True), applied(one, x, training=True)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(applied(same, x, training=True), first)
    np.testing.assert_array_equal(applied(same, x, training=True), second)
    assert not np.array_equal(applied(other, x, training=True), first)
    gl.utils.set_random_seed(3)
    drawn = applied(layers.Dropout(0.5), x, training=True)
    gl.utils.set_random_seed(3)
    np.testing.assert_array_equal(applied(layers.Dropout(0.5), x, training=True), drawn)


def test_two_applications_in_one_step_differ() -> None:
    layer = layers.Dropout(0.5, seed=0)
    x = np.ones((20, 20), np.float32)
    y = evaluate(lambda v: gl.ops.stack([layer(v, training=True), layer(v, training=True)]), x)
    assert not np.array_equal(y[0], y[1])


def test_dropout_of_whole_channels_and_its_edges() -> None:
    y = applied(layers.Dropout(0.5, noise_shape=(None, 1, 1, None), seed=0), np.abs(X) + 1, training=True)
    zero = (y == 0).all(axis=(1, 2))
    assert 0 < zero.sum() < zero.size and ((y == 0).any(axis=(1, 2)) == zero).all()
    np.testing.assert_array_equal(applied(layers.Dropout(1.0), X, training=True), np.zeros_like(X))
    np.testing.assert_array_equal(applied(layers.Dropout(0), X, training=True), X)
    infinite = applied(layers.Dropout(0.5, seed=0), np.full((10, 10), np.inf, np.float32), training=True)
    assert set(np.unique(infinite)) == {0, np.inf}
    with pytest.raises(ValueError, match=r"Expected rate in \[0, 1\]. Received: rate=2"):
        layers.Dropout(2)
    with pytest.raises(ShapeError, match="that noise_shape=.*broadcasts to"):
        applied(layers.Dropout(0.5, noise_shape=(2, 1)), X, training=True)


def test_lambda() -> None:
    x = np.float32([[1, -2]])
    np.testing.assert_array_equal(evaluate(layers.Lambda(lambda v: v**2), x), [[1, 4]])
    scaled = layers.Lambda(lambda v, factor: v * factor, arguments={"factor": 3.0})
    np.testing.assert_array_equal(evaluate(scaled, x), [[3, -6]])
    mode = layers.Lambda(lambda v, training: v if training else -v)
    np.testing.assert_array_equal(applied(mode, x, training=True), x)
    np.testing.assert_array_equal(applied(mode, x, training=False), -x)
    both = layers.Lambda(lambda pair: pair[0] - pair[1])
    np.testing.assert_array_equal(evaluate(lambda v, w: both([v, w]), x, 2 * x), -x)
    with pytest.raises(TypeError, match="Expected a function. Received: function=3"):
        layers.Lambda(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.BatchNormalization(1, 0.9, 0.1, False, True, gamma_initializer="zeros"),
        lambda: layers.Dropout(0.3, (None, 1), 5),
        lambda: layers.Lambda(abs, {"a": 1}),
    ],
)
def test_config_round_trip(make: Any) -> None:
    layer = make()
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_statistics_follow_compiled_training() -> None:
    """A step at a time, against NumPy: the state that a compiled train step writes."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(2, 3, (24, 4)).astype(np.float32), rng.normal(size=(24, 1)).astype(np.float32)
    model = gl.Sequential([gl.Input((4,)), layers.BatchNormalization(momentum=0.5), layers.Dense(1)])
    model.compile(gl.optimizers.SGD(0.0), "mse")
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    mean, variance = np.zeros(4), np.ones(4)
    for batch in x.astype(np.float64).reshape(3, 8, 4):
        mean, variance = (mean + batch.mean(axis=0)) / 2, (variance + batch.var(axis=0)) / 2
    layer = model.layers[0]
    np.testing.assert_allclose(layer.moving_mean.value, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance.value, variance, rtol=1e-4)
    model.evaluate(x, y, verbose=0)
    np.testing.assert_allclose(layer.moving_mean.value, mean, rtol=1e-4)


def test_freezing_a_batch_normalization_without_weights_compiles_another_step() -> None:
    x, y = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)
    model = gl.Sequential([gl.Input((2,)), layers.BatchNormalization(center=False, scale=False), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    model.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.layers[0].moving_mean.value, [0, 0])
    model.layers[0].trainable = True
    model.fit(x, y, verbose=0)
    assert (model.layers[0].moving_mean.value > 0).all()


def test_compiled_dropout_is_the_interpreted_one_for_any_number_of_threads() -> None:
    x = np.random.default_rng(0).random((64, 40)).astype(np.float32)

    def trained(threads: int) -> list[np.ndarray]:
        gl.utils.set_random_seed(5)
        before = gl.get_num_threads()
        gl.set_num_threads(threads)
        model = gl.Sequential([gl.Input((40,)), layers.Dropout(0.5), layers.Dense(3)])
        model.compile("sgd", "mse")
        model.fit(x, x[:, :3].copy(), epochs=2, verbose=0)
        gl.set_num_threads(before)
        return model.get_weights()

    for one, two in zip(trained(1), trained(2), strict=True):
        assert one.tobytes() == two.tobytes()
