"""Metrics by Keras's names: sums kept as variables, which compiled steps add to and the host divides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gradloom import losses, ops, targets
from gradloom.compiler.ir import Value
from gradloom.compiler.ops import as_value
from gradloom.compiler.types import DType, as_dtype
from gradloom.constructors import Constructed, takes
from gradloom.initializers import InitializerLike
from gradloom.lookup import ClassCatalogue
from gradloom.naming import snake_case, unique_name
from gradloom.variables import Variable

Shape = Sequence[int | None]


class Metric(Constructed, ABC):
    """A figure over many batches: `update_state` in a trace, `result` on the host from the sums so far."""

    better: Literal["min", "max"] | None = None
    """Whether less or more of it is better; None where that is not known."""

    def __init__(self, name: str | None = None, dtype: str | DType | None = None) -> None:
        self.name = unique_name(snake_case(type(self).__name__)) if name is None else name
        self.dtype = as_dtype("float32" if dtype is None else dtype)
        self._variables: list[Variable] = []

    @abstractmethod
    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take in a batch, symbolically."""

    @abstractmethod
    def result(self) -> float:
        """The figure over what was taken in since `reset_state`."""

    def add_variable(
        self, shape: Sequence[int] = (), initializer: InitializerLike = "zeros", name: str = "variable"
    ) -> Variable:
        """Make a variable of role "state", which `reset_state` sets to 0."""
        path = f"{self.name}/{name}"
        variable = Variable(initializer, tuple(shape), self.dtype, trainable=False, name=name, role="state", path=path)
        self._variables.append(variable)
        return variable

    @property
    def variables(self) -> list[Variable]:
        return list(self._variables)

    def reset_state(self) -> None:
        """Forget all batches."""
        for variable in self._variables:
            variable.assign(np.zeros(variable.shape, variable.dtype.numpy))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this metric again."""
        return {"name": self.name, "dtype": self.dtype.numpy_name}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


class Mean(Metric):
    """The weighted mean of values: Σ value·weight / Σ weight, 0 before any."""

    def __init__(self, name: str | None = None, dtype: str | DType | None = None) -> None:
        super().__init__(name, dtype)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take in values of any shape; weights of shape (N,) count the mean of each of N samples' values."""
        self._add(as_value(values), sample_weight)

    def _add(self, values: Value, sample_weight: Any) -> None:
        values = ops.cast(values, self.dtype)
        if sample_weight is None:
            total, count = ops.sum(values), as_value(float(values.type.size), like=values)
        else:
            weights = ops.cast(as_value(sample_weight, values), self.dtype)
            if weights.ndim < values.ndim:
                values = ops.mean(values, axis=tuple(range(weights.ndim, values.ndim)))
            weights = ops.broadcast_to(losses.broadcast_weights(weights, values), values.shape)
            total, count = ops.sum(values * weights), ops.sum(weights)
        self.total.assign(self.total + total)
        self.count.assign(self.count + count)

    def result(self) -> float:
        return float(self.total) / float(self.count) if float(self.count) else 0.0


class MeanMetricWrapper(Mean):
    """The mean over samples of a function of (y_true, y_pred)."""

    def __init__(
        self,
        fn: Callable[[Any, Any], Value],
        name: str | None = None,
        dtype: str | DType | None = None,
    ) -> None:
        super().__init__(getattr(fn, "__name__", "metric") if name is None else name, dtype)
        self._fn = fn

    def get_config(self) -> dict[str, Any]:
        # Metrics of one kind make their function themselves.
        return super().get_config() | ({"fn": self._fn} if type(self) is MeanMetricWrapper else {})

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Take in a batch's targets and predictions."""
        values = self._fn(*targets.as_pair(y_true, y_pred))
        if not isinstance(values, Value):
            raise TypeError(
                f"Metric {self.name!r}: Expected a tensor computed from y_true and y_pred, with a number for each "
                f"sample or one for all. Received: {type(values).__name__} {values!r}"
            )
        self._add(values, sample_weight)


def accuracy(y_true: Any, y_pred: Any) -> Value:
    """1 where prediction and target are equal, else 0, of the predictions' shape."""
    y_true, y_pred = targets.same_rank(*targets.as_pair(y_true, y_pred))
    return ops.cast(ops.equal(y_true, y_pred), "float32")


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Value:
    """1 where target and (prediction > threshold) are equal, else 0, of the predictions' shape."""
    y_true, y_pred = targets.same_rank(*targets.as_pair(y_true, y_pred))
    return ops.cast(ops.equal(y_true, ops.cast(ops.greater(y_pred, threshold), y_true.dtype)), "float32")


def categorical_accuracy(y_true: Any, y_pred: Any) -> Value:
    """1 where one-hot target and prediction have their largest entry in the same place: (N, …, C) gives (N, …)."""
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    return ops.cast(ops.equal(ops.argmax(y_true, axis=-1), ops.argmax(y_pred, axis=-1)), "float32")


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Value:
    """1 where the prediction's largest entry is at the target's class number: (N, …, C) gives (N, …)."""
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    return ops.cast(ops.equal(targets.class_labels(y_true, y_pred), ops.argmax(y_pred, axis=-1)), "float32")


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Value:
    """1 where the one-hot target's class is among the `k` largest predictions, else 0: (N, …, C) gives (N, …)."""
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    return sparse_top_k_categorical_accuracy(ops.argmax(y_true, axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Value:
    """1 where the target's class is among the `k` largest predictions, else 0: (N, …, C) gives (N, …).

    Nothing is sorted: what counts is how many predictions are larger. Equal ones are all among the `k` largest if the
    first of them is. A NaN is larger than every number, and of several NaN the first is the largest, as for `argmax`:
    the accuracy with k = 1 is never above that of any other k.
    """
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    labels = ops.expand_dims(targets.class_labels(y_true, y_pred), -1)
    own = ops.take_along_axis(y_pred, labels, axis=-1)
    precedes = ops.less(ops.arange(y_pred.shape[-1], dtype=labels.dtype), labels)
    of_nan = ops.logical_and(ops.isnan(y_pred), precedes)
    larger = ops.where(ops.isnan(own), of_nan, ops.logical_not(ops.less_equal(y_pred, own)))
    return ops.cast(ops.less(ops.sum(ops.cast(larger, "int32"), axis=-1), k), "float32")


class Accuracy(MeanMetricWrapper):
    """How often predictions equal targets."""

    better = "max"

    def __init__(self, name: str | None = "accuracy", dtype: str | DType | None = None) -> None:
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often (prediction > threshold) equals the target, 0 or 1."""

    better = "max"

    def __init__(
        self, name: str | None = "binary_accuracy", dtype: str | DType | None = None, threshold: float = 0.5
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected threshold in [0, 1]. Received: threshold={threshold}")
        super().__init__(lambda y_true, y_pred: binary_accuracy(y_true, y_pred, threshold), name, dtype)
        self.threshold = threshold

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"threshold": self.threshold}


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is at the one-hot target's place."""

    better = "max"

    def __init__(self, name: str | None = "categorical_accuracy", dtype: str | DType | None = None) -> None:
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is at the target's class number."""

    better = "max"

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: str | DType | None = None) -> None:
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the one-hot target's class is among the `k` largest predictions."""

    better = "max"

    def __init__(
        self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: str | DType | None = None
    ) -> None:
        self.k = _checked_k(k)
        super().__init__(lambda y_true, y_pred: top_k_categorical_accuracy(y_true, y_pred, k), name, dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": self.k}


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the target's class number is among the `k` largest predictions."""

    better = "max"

    def __init__(
        self, k: int = 5, name: str | None = "sparse_top_k_categorical_accuracy", dtype: str | DType | None = None
    ) -> None:
        self.k = _checked_k(k)
        super().__init__(lambda y_true, y_pred: sparse_top_k_categorical_accuracy(y_true, y_pred, k), name, dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"k": self.k}


def _checked_k(k: int) -> int:
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise ValueError(f"Expected k as a positive integer. Received: k={k!r}")
    return int(k)


class LossMetric(MeanMetricWrapper):
    """The mean over samples of a loss."""

    better = "min"

    def __init__(self, loss: losses.Loss, name: str | None = None, dtype: str | DType | None = None) -> None:
        super().__init__(loss.call, loss.name if name is None else name, dtype)
        self._loss = loss

    def get_config(self) -> dict[str, Any]:
        if type(self) is LossMetric:
            return super().get_config() | {"loss": self._loss}
        own = {key: value for key, value in self._loss.get_config().items() if takes(type(self), key)}
        return own | super().get_config()


class MeanSquaredError(LossMetric):
    """The mean of (y_true − y_pred)²."""

    def __init__(self, name: str | None = "mean_squared_error", dtype: str | DType | None = None) -> None:
        super().__init__(losses.MeanSquaredError(), name, dtype)


class MeanAbsoluteError(LossMetric):
    """The mean of |y_true − y_pred|."""

    def __init__(self, name: str | None = "mean_absolute_error", dtype: str | DType | None = None) -> None:
        super().__init__(losses.MeanAbsoluteError(), name, dtype)


class BinaryCrossentropy(LossMetric):
    """The mean binary cross-entropy."""

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: str | DType | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name, dtype)


class CategoricalCrossentropy(LossMetric):
    """The mean cross-entropy of one-hot targets."""

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: str | DType | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(losses.CategoricalCrossentropy(from_logits, label_smoothing, axis), name, dtype)


class SparseCategoricalCrossentropy(LossMetric):
    """The mean cross-entropy of class numbers."""

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: str | DType | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits), name, dtype)


MetricLike = str | Metric | Callable[[Any, Any], Value] | Mapping[str, Any] | type[Metric]

_ACCURACIES: dict[str, type[Metric]] = {
    "binary": BinaryAccuracy,
    "sparse": SparseCategoricalAccuracy,
    "categorical": CategoricalAccuracy,
}
_CROSSENTROPIES: dict[str, type[Metric]] = {
    "binary": BinaryCrossentropy,
    "sparse": SparseCategoricalCrossentropy,
    "categorical": CategoricalCrossentropy,
}
_BY_TASK = {"accuracy": _ACCURACIES, "acc": _ACCURACIES, "crossentropy": _CROSSENTROPIES, "ce": _CROSSENTROPIES}

_CATALOGUE: ClassCatalogue[Metric] = ClassCatalogue(
    "metric",
    Metric,
    {
        "accuracy": Accuracy,
        "acc": Accuracy,
        "binary_accuracy": BinaryAccuracy,
        "categorical_accuracy": CategoricalAccuracy,
        "sparse_categorical_accuracy": SparseCategoricalAccuracy,
        "top_k_categorical_accuracy": TopKCategoricalAccuracy,
        "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
        "mean": Mean,
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "mae": MeanAbsoluteError,
        "binary_crossentropy": BinaryCrossentropy,
        "bce": BinaryCrossentropy,
        "categorical_crossentropy": CategoricalCrossentropy,
        "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
        "crossentropy": CategoricalCrossentropy,
        "ce": CategoricalCrossentropy,
    },
    MeanMetricWrapper,
)


def get(identifier: MetricLike) -> Metric:
    """Return the metric of a name, a class, a `{"class_name", "config"}` mapping, an instance, or a function.

    A metric got by a name carries that name. Raises `ValueError` naming the nearest known metrics for an unknown name.
    """
    if isinstance(identifier, losses.Loss):
        return LossMetric(identifier)
    return _CATALOGUE.get(identifier, **({"name": identifier} if isinstance(identifier, str) else {}))


def resolve(
    identifier: MetricLike,
    output_shape: Shape,
    target_shape: Shape | None = None,
    loss: losses.Loss | None = None,
) -> Metric:
    """Return the metric, choosing for "accuracy" (or "acc", "crossentropy", "ce") the kind that fits the model.

    Keras's rule: binary for outputs of width 1, sparse where targets are class numbers, categorical where they are
    one-hot; the shape of the targets says which, or the loss while it is not known.
    """
    if isinstance(identifier, str) and identifier in _BY_TASK:
        make: Any = _BY_TASK[identifier][_task(output_shape, target_shape, loss)]
        return make(name=identifier)  # type: ignore[no-any-return]
    return get(identifier)


def _task(output_shape: Shape, target_shape: Shape | None, loss: losses.Loss | None) -> str:
    if output_shape[-1] == 1:
        return "binary"
    if target_shape is None:
        return "sparse" if isinstance(loss, losses.SparseCategoricalCrossentropy) else "categorical"
    is_sparse = len(target_shape) < len(output_shape) or target_shape[-1] == 1
    return "sparse" if is_sparse else "categorical"
