"""Metrics: sums over batches against NumPy over all samples, and the choice among kinds of accuracy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom import losses, metrics
from gradloom.variables import Trace
from interpreted import evaluate

CLASSES = 4


def run(metric, *batches):
    """Take in batches of (y_true, y_pred[, sample_weight]) and return the result."""
    for batch in batches:
        evaluate(metric.update_state, *batch)
    return metric.result()


def split(*arrays):
    """Two batches of different size."""
    middle = len(arrays[0]) // 3
    return [tuple(a[:middle] for a in arrays), tuple(a[middle:] for a in arrays)]


def samples(seed, count=12):
    generator = np.random.default_rng(seed)
    y_pred = generator.random((count, CLASSES)).astype(np.float32)
    return generator.integers(0, CLASSES, count), y_pred, generator.integers(0, 3, count).astype(np.float32)


@given(st.integers(0, 999), st.booleans(), st.sampled_from(["sparse", "column", "categorical"]))
@settings(max_examples=20)
def test_categorical_accuracies(seed, weighted, kind):
    labels, y_pred, weights = samples(seed)
    right = (y_pred.argmax(-1) == labels).astype(np.float64)
    expected = np.average(right, weights=weights) if weighted else right.mean()
    y_true = {"sparse": labels, "column": labels[:, None], "categorical": np.eye(CLASSES, dtype=np.float32)[labels]}[
        kind
    ]
    make = metrics.CategoricalAccuracy if kind == "categorical" else metrics.SparseCategoricalAccuracy
    result = run(make(), *split(y_true, y_pred, *([weights] if weighted else [])))
    assert result == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 999), st.sampled_from([0.3, 0.5]), st.booleans(), st.booleans())
@settings(max_examples=20)
def test_binary_accuracy(seed, threshold, column, weighted):
    generator = np.random.default_rng(seed)
    y, p = generator.integers(0, 2, 9), generator.random((9, 1)).astype(np.float32)
    weights = generator.integers(1, 3, 9).astype(np.float32)
    right = ((p[:, 0] > threshold) == y).astype(np.float64)
    batches = split(y[:, None] if column else y, p, *([weights] if weighted else []))
    expected = np.average(right, weights=weights) if weighted else right.mean()
    assert run(metrics.BinaryAccuracy(threshold=threshold), *batches) == pytest.approx(expected, abs=1e-6)


def test_binary_accuracy_of_several_outputs_counts_each():
    y = np.array([[0, 1, 1], [1, 0, 0]])
    p = np.array([[0.1, 0.9, 0.2], [0.7, 0.3, 0.2]], np.float32)
    assert run(metrics.BinaryAccuracy(), (y, p)) == pytest.approx(5 / 6)
    # Keras's rule: a weighted sample's values are averaged first.
    assert run(metrics.BinaryAccuracy(), (y, p, np.array([3.0, 1.0], np.float32))) == pytest.approx((3 * 2 / 3 + 1) / 4)


def test_accuracy_compares_for_equality():
    assert run(metrics.Accuracy(), (np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4]))) == pytest.approx(0.75)


LOSSES = {
    "mse": lambda y, p: ((y - p) ** 2).mean(-1),
    "mae": lambda y, p: np.abs(y - p).mean(-1),
    "categorical_crossentropy": lambda y, p: -(y * np.log(p / p.sum(-1, keepdims=True))).sum(-1),
    "binary_crossentropy": lambda y, p: -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(-1),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_as_metrics(name, weighted):
    labels, y_pred, weights = samples(3)
    y_pred = 0.1 + 0.8 * y_pred
    y_true = np.eye(CLASSES, dtype=np.float32)[labels]
    each = LOSSES[name](y_true, y_pred.astype(np.float64))
    metric = metrics.get(name)
    assert metric.name == name
    result = run(metric, *split(y_true, y_pred, *([weights] if weighted else [])))
    assert result == pytest.approx(np.average(each, weights=weights if weighted else None), rel=1e-5)


def test_mean_and_reset():
    mean = metrics.Mean(name="loss")
    assert mean.result() == 0
    assert run(mean, (np.float32(2),), (np.array([3, 4], np.float32),)) == pytest.approx(3)
    evaluate(mean.update_state, np.array([10.0], np.float32), np.array([3.0], np.float32))
    assert mean.result() == pytest.approx((2 + 3 + 4 + 30) / 6)
    memory = mean.total.value
    mean.reset_state()
    assert mean.result() == 0 and np.shares_memory(mean.total.value, memory)


def test_padding_of_weight_0_changes_nothing():
    labels, y_pred, weights = samples(7)
    padded = [np.concatenate([a, a[:3]]) for a in (labels, y_pred, weights)]
    padded[2][-3:] = 0
    plain = run(metrics.SparseCategoricalAccuracy(), (labels, y_pred, weights))
    assert run(metrics.SparseCategoricalAccuracy(), tuple(padded)) == plain


def test_state_is_two_scalars_of_role_state():
    metric = metrics.SparseCategoricalAccuracy()
    assert [(v.path, v.role, v.shape, v.trainable) for v in metric.variables] == [
        ("sparse_categorical_accuracy/total", "state", (), False),
        ("sparse_categorical_accuracy/count", "state", (), False),
    ]
    assert Trace.current() is None


@pytest.mark.parametrize(
    ("output", "target", "loss", "kind"),
    [
        ((None, 10), (None,), None, metrics.SparseCategoricalAccuracy),
        ((None, 10), (None, 1), None, metrics.SparseCategoricalAccuracy),
        ((None, 10), (None, 10), None, metrics.CategoricalAccuracy),
        ((None, 1), (None,), None, metrics.BinaryAccuracy),
        ((None, 1), (None, 1), None, metrics.BinaryAccuracy),
        ((None, 10), None, losses.SparseCategoricalCrossentropy(), metrics.SparseCategoricalAccuracy),
        ((None, 10), None, losses.CategoricalCrossentropy(), metrics.CategoricalAccuracy),
        ((None, 1), None, losses.BinaryCrossentropy(), metrics.BinaryAccuracy),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "acc"])
def test_accuracy_fits_the_model(output, target, loss, kind, name):
    metric = metrics.resolve(name, output, target, loss)
    assert type(metric) is kind and metric.name == name


def test_resolving_other_metrics():
    assert type(metrics.resolve("ce", (None, 10), (None,))) is metrics.SparseCategoricalCrossentropy
    instance = metrics.Mean()
    assert metrics.resolve(instance, (None, 10)) is instance
    assert type(metrics.resolve("binary_accuracy", (None, 10), (None,))) is metrics.BinaryAccuracy


def test_functions_classes_and_configs():
    metric = metrics.get(lambda y_true, y_pred: (y_true - y_pred) * 2.0)
    assert run(metric, (np.array([3.0], np.float32), np.array([1.0], np.float32))) == 4
    assert metrics.get(losses.mean_squared_error).name == "mean_squared_error"
    assert type(metrics.get(metrics.BinaryAccuracy)) is metrics.BinaryAccuracy
    config = {"class_name": "BinaryAccuracy", "config": {"name": "b", "threshold": 0.25}}
    assert metrics.get(config).get_config() == {"name": "b", "dtype": "float32", "threshold": 0.25}
    cross = metrics.BinaryCrossentropy(label_smoothing=0.1)
    assert metrics.BinaryCrossentropy(**cross.get_config()).get_config() == cross.get_config()


def test_errors():
    with pytest.raises(ValueError, match=r"Unknown metric\. Did you mean 'accuracy'.*Received: 'acuracy'"):
        metrics.get("acuracy")
    with pytest.raises(ValueError, match="threshold=2"):
        metrics.BinaryAccuracy(threshold=2)
    with pytest.raises(TypeError, match="Received: 5"):
        metrics.get(5)
    with pytest.raises(TypeError, match="Metric 'mine': Expected a tensor computed from .* Received: float 0.5"):
        run(metrics.MeanMetricWrapper(lambda y_true, y_pred: 0.5, "mine"), (np.ones(2, np.float32),) * 2)


@given(st.integers(0, 999), st.integers(1, CLASSES + 1), st.booleans())
@settings(max_examples=20)
def test_top_k_accuracies(seed, k, sparse):
    labels, y_pred, weights = samples(seed)
    order = np.argsort(-y_pred, axis=-1)[:, :k]
    expected = np.average([label in row for label, row in zip(labels, order, strict=True)], weights=weights + 1)
    kind = metrics.SparseTopKCategoricalAccuracy if sparse else metrics.TopKCategoricalAccuracy
    y_true = labels if sparse else np.eye(CLASSES, dtype=np.float32)[labels]
    assert run(kind(k), *split(y_true, y_pred, weights + 1)) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 999), st.floats(0, 1))
@settings(max_examples=20)
def test_top_k_accuracies_rank_nan_as_argmax_does(seed, share):
    rng = np.random.default_rng(seed)
    y_pred = rng.standard_normal((40, CLASSES)).astype(np.float32)
    y_pred[rng.random(y_pred.shape) < share] = np.nan
    labels = rng.integers(0, CLASSES, 40)
    # A stable order that begins with NaN, then goes down.
    order = np.argsort(np.where(np.isnan(y_pred), -np.inf, -y_pred), axis=-1, kind="stable")
    accuracy = run(metrics.SparseCategoricalAccuracy(), (labels, y_pred))
    for k in (1, 2, CLASSES):
        found = run(metrics.SparseTopKCategoricalAccuracy(k), (labels, y_pred))
        expected = np.mean([label in row[:k] for label, row in zip(labels, order, strict=True)])
        assert found == pytest.approx(expected)
        assert found == pytest.approx(accuracy) if k == 1 else found >= accuracy


def test_top_k_accuracy_with_ties_nan_and_bad_k():
    tied = np.float32([[1, 1, 1, 0], [0, 2, 2, 1]])
    assert run(metrics.SparseTopKCategoricalAccuracy(1), (np.array([2, 0]), tied)) == 0.5
    broken = np.float32([[np.nan, 0, 0, 0], [0, np.nan, 1, 0]])
    assert run(metrics.SparseTopKCategoricalAccuracy(1), (np.array([0, 2]), broken)) == 0.5
    assert isinstance(metrics.get("sparse_top_k_categorical_accuracy"), metrics.SparseTopKCategoricalAccuracy)
    assert metrics.TopKCategoricalAccuracy(3).get_config()["k"] == 3
    with pytest.raises(ValueError, match="Expected k as a positive integer. Received: k=0"):
        metrics.TopKCategoricalAccuracy(0)
