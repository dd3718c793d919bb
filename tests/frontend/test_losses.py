"""Losses against NumPy in float64, their reductions and their checks of targets."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom as gl
from gradloom import losses, ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import DTypeError, ShapeError
from interpreted import evaluate

SHAPES = st.tuples(st.integers(1, 5), st.integers(2, 6))


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(shape, seed=0, scale=3.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


@given(SHAPES, st.sampled_from(["uint8", "int32", "int64", "float32"]), st.booleans(), st.integers(0, 99))
@settings(max_examples=30)
def test_sparse_categorical_crossentropy(shape, dtype, column, seed):
    x = logits(shape, seed)
    y = np.random.default_rng(seed).integers(0, shape[1], shape[0]).astype(dtype)
    expected = -log_softmax(x)[np.arange(shape[0]), y.astype(int)]
    given_labels = y[:, None] if column else y
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    np.testing.assert_allclose(evaluate(loss, given_labels, x), expected, rtol=1e-5, atol=1e-6)
    loss = losses.SparseCategoricalCrossentropy()
    result = evaluate(lambda y, x: loss(y, ops.softmax(x)), given_labels, x)
    np.testing.assert_allclose(result, expected.mean(), rtol=1e-5, atol=1e-6)
    p = np.exp(log_softmax(x)).astype(np.float32)
    np.testing.assert_allclose(evaluate(loss, given_labels, p), expected.mean(), rtol=1e-4, atol=1e-5)


@given(SHAPES, st.sampled_from([0.0, 0.1]), st.integers(0, 99))
@settings(max_examples=30)
def test_categorical_crossentropy(shape, smoothing, seed):
    x = logits(shape, seed)
    y = np.eye(shape[1])[np.random.default_rng(seed).integers(0, shape[1], shape[0])].astype(np.float32)
    smooth = y * (1 - smoothing) + smoothing / shape[1]
    expected = -(smooth * log_softmax(x)).sum(-1)
    loss = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction="none")
    np.testing.assert_allclose(evaluate(loss, y, x), expected, rtol=1e-5, atol=1e-6)
    loss = losses.CategoricalCrossentropy(label_smoothing=smoothing)
    result = evaluate(lambda y, x: loss(y, ops.softmax(x)), y, x)
    np.testing.assert_allclose(result, expected.mean(), rtol=1e-5, atol=1e-6)


@given(SHAPES, st.sampled_from([0.0, 0.2]), st.integers(0, 99))
@settings(max_examples=30)
def test_binary_crossentropy(shape, smoothing, seed):
    x = logits(shape, seed)
    y = np.random.default_rng(seed).integers(0, 2, shape)
    smooth = y * (1 - smoothing) + 0.5 * smoothing
    expected = (np.logaddexp(0, x.astype(np.float64)) - smooth * x).mean(-1)
    loss = losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    np.testing.assert_allclose(evaluate(loss, y, x), expected, rtol=1e-5, atol=1e-6)
    loss = losses.BinaryCrossentropy(label_smoothing=smoothing)
    result = evaluate(lambda y, x: loss(y, ops.sigmoid(x)), y, x)
    np.testing.assert_allclose(result, expected.mean(), rtol=1e-5, atol=1e-6)
    p = (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)
    np.testing.assert_allclose(evaluate(loss, y, p), expected.mean(), rtol=1e-3, atol=1e-5)


@given(SHAPES, st.integers(0, 99))
def test_mean_errors(shape, seed):
    x, y = logits(shape, seed), logits(shape, seed + 1)
    d = x.astype(np.float64) - y
    np.testing.assert_allclose(evaluate(losses.MeanSquaredError(), y, x), (d * d).mean(), rtol=1e-5)
    np.testing.assert_allclose(evaluate(losses.MeanAbsoluteError(), y, x), np.abs(d).mean(), rtol=1e-5)


@pytest.mark.parametrize("loss", [losses.MeanSquaredError(), losses.BinaryCrossentropy(from_logits=True)])
def test_a_column_beside_a_vector(loss):
    x, y = logits((4, 1)), np.array([0, 1, 1, 0], np.float32)
    assert evaluate(loss, y, x) == evaluate(loss, y[:, None], x)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("from_logits", [True, False])
def test_extreme_logits_stay_finite_with_their_gradients(sign, from_logits):
    x = sign * np.array([[1000.0, -1000.0, 0.0]], np.float32)

    def sparse(v):
        loss = losses.SparseCategoricalCrossentropy(from_logits)(np.array([1]), v if from_logits else ops.softmax(v))
        return ops.sum(gradients([loss], [v])[0]) + loss

    def binary(v):
        ones = np.ones((1, 3), np.float32)
        loss = losses.BinaryCrossentropy(from_logits)(ones, v if from_logits else ops.sigmoid(v))
        return ops.sum(gradients([loss], [v])[0]) + loss

    assert np.isfinite(evaluate(sparse, x)) and np.isfinite(evaluate(binary, x))


def test_the_gradient_of_softmax_crossentropy():
    x, y = logits((4, 5)), np.array([0, 4, 2, 2])
    for apply, from_logits in ((ops.softmax, False), (lambda v: v, True)):
        loss = losses.SparseCategoricalCrossentropy(from_logits)
        gradient = evaluate(lambda v, apply=apply, loss=loss: gradients([loss(y, apply(v))], [v])[0], x)
        np.testing.assert_allclose(gradient, (np.exp(log_softmax(x)) - np.eye(5)[y]) / 4, rtol=1e-4, atol=1e-6)


def test_certain_and_wrong_probabilities_are_clipped():
    p = np.array([[1.0, 0.0]], np.float32)
    assert 15 < evaluate(losses.SparseCategoricalCrossentropy(), np.array([1]), p) < 17
    assert 15 < evaluate(losses.BinaryCrossentropy(), np.array([[0.0, 0.0]], np.float32), p) * 2 < 17


WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5], np.float32)


@pytest.mark.parametrize(
    ("reduction", "reduce"),
    [
        ("sum_over_batch_size", lambda v, w: (v * w).sum() / 4),
        ("mean", lambda v, w: (v * w).sum() / 4),
        ("sum", lambda v, w: (v * w).sum()),
        ("mean_with_sample_weight", lambda v, w: (v * w).sum() / w.sum()),
        ("none", lambda v, w: v * w),
        (None, lambda v, w: v * w),
    ],
)
def test_reductions(reduction, reduce):
    x, y = logits((4, 3)), logits((4, 3), 1)
    each = ((x.astype(np.float64) - y) ** 2).mean(-1)
    loss = losses.MeanSquaredError(reduction=reduction)
    np.testing.assert_allclose(evaluate(loss, y, x, WEIGHTS), reduce(each, WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(evaluate(loss, y, x, WEIGHTS[:, None]), reduce(each, WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(evaluate(loss, y, x), reduce(each, np.ones(4)), rtol=1e-5)


def test_weights_of_samples_beside_losses_of_time_steps():
    x, y = logits((4, 3, 2)), logits((4, 3, 2), 1)
    each = ((x.astype(np.float64) - y) ** 2).mean(-1)
    result = evaluate(losses.MeanSquaredError(), y, x, WEIGHTS)
    np.testing.assert_allclose(result, (each * WEIGHTS[:, None]).mean(), rtol=1e-5)
    with pytest.raises(ShapeError, match=r"Expected sample weights of shape \(4, 3\).*Received: \(3,\)"):
        evaluate(losses.MeanSquaredError(), y, x, np.ones(3, np.float32))


def test_ignored_class():
    x, y = logits((4, 3)), np.array([0, -1, 2, -1])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="none")
    result = evaluate(loss, y, x)
    assert result[1] == result[3] == 0 and (result[[0, 2]] > 0).all()
    loss.check_targets(y, (None, 3))


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"predictions' shape \(4, 3\)\. Received: \(4, 2\)"):
        evaluate(losses.MeanSquaredError(), logits((4, 2)), logits((4, 3)))
    with pytest.raises(ShapeError, match=r"labels of shape \(4,\) or \(4, 1\).*Received: \(3,\)"):
        evaluate(losses.SparseCategoricalCrossentropy(), np.zeros(3, np.int32), logits((4, 3)))


SPARSE = losses.SparseCategoricalCrossentropy()


@pytest.mark.parametrize(
    "y", [np.arange(10), np.arange(10.0), np.arange(10, dtype=np.uint8)[:, None], np.zeros(3, bool), np.zeros(0, int)]
)
def test_good_labels(y):
    SPARSE.check_targets(y, (None, 10))


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.array([0, 10, 3]), ValueError, r"class labels in \[0, 10\)\. Received: 10 at position 1"),
        (np.array([0, -1, -2]), ValueError, r"Received: -1 at position 1, and 1 more"),
        (np.array([[0], [11]]), ValueError, r"Received: 11 at position \(1, 0\)"),
        (np.array([0.0, 0.5]), DTypeError, r"Expected integral class labels. Received: 0.5 at position 1"),
        (np.array([np.nan]), DTypeError, "nan at position 0"),
        (np.array([np.inf]), ValueError, "inf at position 0"),
        (np.array(["cat"]), DTypeError, "Expected class labels as numbers"),
        (np.eye(10), ShapeError, "one-hot targets need loss='categorical_crossentropy'"),
        (np.zeros((4, 3, 2), int), ShapeError, r"Received: \(4, 3, 2\)"),
    ],
)
def test_bad_labels(y, error, message):
    with pytest.raises(error, match=message):
        SPARSE.check_targets(y, (None, 10))


def test_bad_targets_of_other_losses():
    with pytest.raises(
        ShapeError, match=r"one-hot targets of shape \(None, 10\), 10 classes wide\. Received: \(5, 9\)"
    ):
        losses.CategoricalCrossentropy().check_targets(np.eye(5, 9), (None, 10))
    with pytest.raises(ShapeError, match="class numbers need loss='sparse_categorical_crossentropy'"):
        losses.CategoricalCrossentropy().check_targets(np.arange(5), (None, 10))
    losses.MeanSquaredError().check_targets(np.zeros(5), (None, 1))
    with pytest.raises(ShapeError, match=r"output's shape \(None, 2\)\. Received: \(5,\)"):
        losses.MeanSquaredError().check_targets(np.zeros(5), (None, 2))
    with pytest.raises(ValueError, match=r"targets in \[0, 1\]\. Received: 2"):
        losses.BinaryCrossentropy().check_targets(np.array([0, 2]), (None, 1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mse", losses.MeanSquaredError),
        ("MAE", losses.MeanAbsoluteError),
        ("MeanSquaredError", losses.MeanSquaredError),
        ("bce", losses.BinaryCrossentropy),
        ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy),
        ({"class_name": "CategoricalCrossentropy", "config": {"label_smoothing": 0.5}}, losses.CategoricalCrossentropy),
        (losses.MeanSquaredError, losses.MeanSquaredError),
        (losses.mean_squared_error, losses.FunctionLoss),
    ],
)
def test_names(name, kind):
    assert type(losses.get(name)) is kind


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=r"Unknown loss\. Did you mean 'sparse_categorical_crossentropy'"):
        losses.get("sparse_categorical_cross_entropy")
    with pytest.raises(ValueError, match=r"'sum_over_batch_size'.*Received: reduction='avg'"):
        losses.MeanSquaredError(reduction="avg")
    with pytest.raises(ValueError, match="label_smoothing=2"):
        losses.CategoricalCrossentropy(label_smoothing=2)


def test_a_function_as_loss():
    loss = losses.get(lambda y_true, y_pred: ops.sum(ops.absolute(y_true - y_pred), axis=-1))
    x, y = logits((4, 3)), logits((4, 3), 1)
    np.testing.assert_allclose(evaluate(loss, y, x), np.abs(x - y).sum(-1).mean(), rtol=1e-6)


@pytest.mark.parametrize("returned", [0.5, None, 3, np.ones(2, np.float32), [1.0]])
def test_a_function_that_returns_no_tensor_is_no_loss(returned: Any) -> None:
    def mine(y_true: Any, y_pred: Any) -> Any:
        return returned

    model = gl.Sequential([gl.Input((4,)), gl.layers.Dense(2)])
    model.compile("sgd", mine)
    expected = (
        "Loss 'mine': Expected a tensor computed from y_true and y_pred, with a loss for each sample or one for all"
    )
    with pytest.raises(TypeError, match=re.escape(f"{expected}. Received: {type(returned).__name__} {returned!r}")):
        model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
