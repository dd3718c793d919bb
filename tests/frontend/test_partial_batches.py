"""Batches that are not full: predictions and figures are those of the samples alone, and cost as little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers, step_graphs
from gradloom.compiler.errors import ShapeError
from gradloom.programs import StepPrograms

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 4)).astype(np.float32)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes that predict and test programs were compiled for, in order."""
    compiled: list[int] = []
    make = StepPrograms._compiled

    def recorded(self: StepPrograms, traced: Any) -> Any:
        roles = {"argument", "indices"}
        compiled.append(next(v.shape[0] for v in traced.graph.inputs if v.op.attributes["role"] in roles))
        return make(self, traced)

    monkeypatch.setattr(StepPrograms, "_compiled", recorded)
    return compiled


def centred() -> gl.Model:
    inputs = gl.Input((4,))
    return gl.Model(inputs, inputs - gl.ops.mean(inputs, axis=0, keepdims=True))


def by_batches(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rows: int = 32) -> np.ndarray:
    return np.concatenate([function(x[start : start + rows]) for start in range(0, len(x), rows)])


@pytest.mark.parametrize("samples", [1, 5, 31, 32, 33, 70, 100])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_samples_are_compared_with_those_of_their_batch_alone(samples: int, batch_size: int) -> None:
    x = X[:samples]
    expected = by_batches(lambda part: part - part.mean(axis=0), x, batch_size)
    np.testing.assert_allclose(centred().predict(x, batch_size=batch_size), expected, atol=1e-6)


def test_a_part_of_the_batchs_size_is_one_of_the_part() -> None:
    inputs = gl.Input((4,))
    model = gl.Model(inputs, layers.Lambda(lambda x: x / float(x.shape[0]))(inputs))
    np.testing.assert_allclose(model.predict(X), by_batches(lambda part: part / np.float32(len(part)), X), rtol=1e-6)


def test_statistics_are_those_of_samples_alone() -> None:
    inputs = gl.Input((4,))
    layer = layers.BatchNormalization(momentum=0.5)
    model = gl.Model(inputs, layer(inputs, training=True))
    mean = np.zeros(4)
    for start in range(0, 100, 32):
        mean = mean * 0.5 + X[start : start + 32].mean(axis=0) * 0.5
    expected = by_batches(lambda part: (part - part.mean(0)) / np.sqrt(part.var(0) + 1e-3), X)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean.value, mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["predict", "predict_on_batch"])
def test_statistics_that_a_prediction_changes_are_seen_by_other_programs(method: str) -> None:
    inputs = gl.Input((4,))
    dense, layer = layers.Dense(4), layers.BatchNormalization(momentum=0.5)
    changing, reading = (gl.Model(inputs, layer(dense(inputs), training=training)) for training in (True, False))
    for _ in range(3):
        getattr(changing, method)(X[:32] + 3)
        y = X @ dense.weights[0].value
        expected = (y - layer.moving_mean.value) / np.sqrt(layer.moving_variance.value + 1e-3)
        np.testing.assert_allclose(reading.predict(X), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 5, 40, 100])
def test_figures_are_those_of_samples_alone(samples: int) -> None:
    """A model, a loss and a metric that all look across samples."""
    model = centred()

    def spread(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.mean(gl.ops.square(y_pred - gl.ops.max(y_pred, axis=0, keepdims=True) - y_true), axis=-1)

    def largest(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.max(y_pred)

    model.compile("sgd", spread, metrics=[spread, largest])
    x, y = X[:samples], X[::-1][:samples]
    losses, tops = [], []
    for start in range(0, samples, 32):
        p = x[start : start + 32] - x[start : start + 32].mean(axis=0)
        losses += [np.mean((p - p.max(axis=0) - y[start : start + 32]) ** 2)] * len(p)
        tops.append(p.max())
    loss, metric, top = model.evaluate(x, y, verbose=0)  # type: ignore[misc]
    assert (loss, metric) == (pytest.approx(np.mean(losses), rel=1e-5), pytest.approx(np.mean(losses), rel=1e-5))
    assert top == pytest.approx(np.mean(tops), rel=1e-5), "Keras's mean of the batches' figures"
    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    assert history["val_loss"] == [pytest.approx(loss, rel=1e-5)]


def test_a_loss_that_is_one_number_for_the_batch() -> None:
    model = gl.Sequential([gl.Input((4,)), layers.Dense(4)])
    model.compile("sgd", lambda y, p: gl.ops.mean(gl.ops.square(y - p)))
    expected = np.mean((X - model.predict(X)) ** 2)
    assert model.evaluate(X, X, verbose=0) == pytest.approx(expected, rel=1e-5)


# What it costs.


def dense() -> gl.Model:
    return gl.Sequential([gl.Input((4,)), layers.Dense(3, "relu"), layers.BatchNormalization(), layers.Softmax()])


def test_one_sample_costs_one(sizes: list[int]) -> None:
    dense().predict(X[:1])
    assert sizes == [1]


@pytest.mark.parametrize(
    ("samples", "batch_size", "compiled"),
    [
        (64, None, [32]),
        (100, None, [32, 4]),
        (97, None, [32, 1]),
        (56, None, [32]),
        (5, None, [8]),
        (17, None, [32]),
        (100, 48, [48, 4]),
        (70, 48, [48, 32]),
        (100, 10**9, [128]),
        (64, 10**9, [64]),
    ],
)
def test_rows_that_are_independent_are_padded(
    samples: int, batch_size: int | None, compiled: list[int], sizes: list[int]
) -> None:
    model = dense()
    kernel, bias = (weight.value for weight in model.layers[0].weights)
    hidden = np.maximum(X[:samples] @ kernel + bias, 0) / np.sqrt(1 + 1e-3)
    expected = np.exp(hidden) / np.exp(hidden).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(X[:samples], batch_size=batch_size), expected, rtol=1e-4)
    assert sizes == compiled


def test_calls_with_few_samples_more_or_less_share_programs(sizes: list[int]) -> None:
    model = dense()
    for samples in range(1, 33):
        model.predict(X[:samples])
    assert sizes == [1, 2, 4, 8, 16, 32]
    model.predict_on_batch(X[:21])
    assert sizes[6:] == [21], "a batch of exactly this size was asked for"


def test_rows_that_meet_are_not_padded(sizes: list[int]) -> None:
    model = centred()
    for samples in (100, 36, 5, 4):
        model.predict(X[:samples])
    assert sizes == [32, 4, 5]


def test_a_full_number_of_batches_compiles_one_test_program(sizes: list[int]) -> None:
    model = dense()
    model.compile("sgd", "mse")
    model.evaluate(X[:64], X[:64, :3], verbose=0)
    model.evaluate(X[:96], X[:96, :3], verbose=0)
    assert sizes == [32]
    model.evaluate(X, X[:, :3], verbose=0)
    model.evaluate(X[:36], X[:36, :3], verbose=0)
    assert sizes == [32, 4]


# Outputs that have no row for each sample.

NOT_BATCHES: dict[str, Callable[[Any], Any]] = {
    "all": lambda x: gl.ops.sum(x),
    "two": lambda x: x[:2],
    "double": lambda x: layers.Concatenate(axis=0, name="double")([x, x]),
    "one": lambda x: gl.ops.mean(x, axis=0, keepdims=True),
    "other": lambda x: gl.ops.transpose(x),
    "constant": lambda x: layers.Lambda(lambda x: gl.ops.ones((2, 4)) * gl.ops.max(x))(x),
}


@pytest.mark.parametrize("case", NOT_BATCHES)
def test_outputs_without_a_row_for_each_sample_are_refused(case: str) -> None:
    inputs = gl.Input((4,))
    wrong = NOT_BATCHES[case](inputs)
    message = rf"Model 'mine': Expected outputs whose first axis is the batch.*Received: output '{wrong.name}' of shape"
    with pytest.raises(ShapeError, match=message):
        gl.Model(inputs, wrong, name="mine")
    with pytest.raises(ShapeError, match=message):
        gl.Model(inputs, [inputs, wrong], name="mine")


def test_models_that_define_call_are_refused_with_their_first_data() -> None:
    class Net(gl.Model):
        def call(self, x: Any) -> Any:
            return gl.ops.sum(x)

    with pytest.raises(ShapeError, match="Model 'mine': Expected outputs whose first axis is the batch"):
        Net(name="mine").predict(X)


def test_sequential_models_are_refused_when_they_are_used() -> None:
    model = gl.Sequential([gl.Input((4,)), layers.Lambda(lambda x: gl.ops.sum(x), name="all")], name="mine")
    model.compile("sgd", "mse", metrics=["accuracy"])
    message = r"Model 'mine'.*'all' of shape \(\), no rows for a batch of 2"
    for use in (
        model.predict,
        lambda x: model.fit(x, x),
        lambda x: model.evaluate(x, x),
        lambda x: model.predict_graph(),
    ):
        with pytest.raises(ShapeError, match=message):
            use(X)
    model.add(layers.Lambda(lambda x: gl.ops.broadcast_to(gl.ops.reshape(x, (1, 1)), (2, 3)), name="two"))
    with pytest.raises(ShapeError, match=r"'two' of shape \(2, 3\), 2 rows for a batch of 3"):
        model.predict(X)


def test_what_lies_between_may_have_any_rows() -> None:
    left, right = gl.Input((4,)), gl.Input((4,))
    both = layers.Dense(3)(layers.Concatenate(axis=0)([left, right]))
    halves = layers.Lambda(lambda x: gl.ops.split(x, 2, axis=0))(both)
    model = gl.Model([left, right], halves)
    whole = model.layers[-2]
    for result, x in zip(model.predict([X, X[::-1]]), (X, X[::-1]), strict=True):
        np.testing.assert_allclose(result, x @ whole.weights[0].value, rtol=1e-4, atol=1e-5)


def test_a_batch_of_fixed_size() -> None:
    inputs = gl.Input((4,), batch_size=2)
    assert gl.Model(inputs, inputs[:2]).predict(X[:2]).shape == (2, 4)
    with pytest.raises(ShapeError, match="first axis is the batch"):
        gl.Model(inputs, inputs[:1])


def test_the_graph_of_a_test_step_has_no_padding() -> None:
    model = dense()
    model.compile("sgd", "mse")
    labels = {value.op.attributes["label"] for value in model.test_graph(8).inputs}
    assert {"x", "y", step_graphs.ROWS} <= labels and "valid" not in labels
