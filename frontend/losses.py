"""Losses by Keras's names: how far predictions are from targets, as a scalar that training makes small."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradloom import ops, targets
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops import as_value
from gradloom.constructors import Constructed
from gradloom.lookup import ClassCatalogue
from gradloom.naming import snake_case

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)


class Loss(Constructed, ABC):
    """Reduces the losses of the samples to a scalar.

    reduction: "sum_over_batch_size" (also called "mean": the weighted sum over the number of samples), "sum",
    "mean_with_sample_weight" (over the sum of the weights), or "none" for the losses themselves.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size") -> None:
        if reduction not in REDUCTIONS:
            known = ", ".join(repr(known) for known in REDUCTIONS)
            raise ValueError(f"Expected reduction as one of {known}. Received: reduction={reduction!r}")
        self.name = snake_case(type(self).__name__) if name is None else name
        self.reduction = reduction

    @abstractmethod
    def call(self, y_true: Value, y_pred: Value) -> Value:
        """Return each sample's loss: predictions of shape (N, …, C) give shape (N, …)."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Value:
        """Return the reduced loss; `sample_weight` is of the losses' shape, or of its beginning."""
        losses = self.call(*targets.as_pair(y_true, y_pred))
        if not isinstance(losses, Value):
            raise TypeError(
                f"Loss {self.name!r}: Expected a tensor computed from y_true and y_pred, with a loss for each sample "
                f"or one for all. Received: {type(losses).__name__} {losses!r}"
            )
        return reduce_weighted(losses, sample_weight, self.reduction)

    def check_targets(self, y: np.ndarray, output_shape: Sequence[int | None]) -> None:
        """Raise an error saying what was expected when the targets `y` do not fit outputs of `output_shape`."""
        targets.check_same_shape(y, output_shape)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this loss again."""
        return {"name": self.name, "reduction": self.reduction}


class MeanSquaredError(Loss):
    """mean((y_true − y_pred)²) along the last axis."""

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """mean(|y_true − y_pred|) along the last axis."""

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return mean_absolute_error(y_true, y_pred)


class BinaryCrossentropy(Loss):
    """−y·log p − (1 − y)·log(1 − p), averaged along the last axis; from logits also where a sigmoid made p."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits
        self.label_smoothing = _checked_smoothing(label_smoothing)

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def check_targets(self, y: np.ndarray, output_shape: Sequence[int | None]) -> None:
        targets.check_same_shape(y, output_shape)
        outside = ~((y >= 0) & (y <= 1))
        if outside.any():
            raise ValueError(f"Expected targets in [0, 1]. Received: {y[outside].flat[0]}")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class CategoricalCrossentropy(Loss):
    """−Σ y·log p along the last axis, y one-hot; from logits also where a softmax made p."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits
        self.label_smoothing = _checked_smoothing(label_smoothing)
        self.axis = axis

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)

    def check_targets(self, y: np.ndarray, output_shape: Sequence[int | None]) -> None:
        targets.check_distributions(y, output_shape)

    def get_config(self) -> dict[str, Any]:
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing, "axis": self.axis}
        return super().get_config() | own


class SparseCategoricalCrossentropy(Loss):
    """−log p[y] along the last axis, y a class number; from logits also where a softmax made p.

    ignore_class: samples of this label have the loss 0.
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name, reduction)
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.ignore_class)

    def check_targets(self, y: np.ndarray, output_shape: Sequence[int | None]) -> None:
        targets.check_labels(y, output_shape, self.ignore_class)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"from_logits": self.from_logits, "ignore_class": self.ignore_class}


class FunctionLoss(Loss):
    """The loss that a function of (y_true, y_pred) gives for each sample."""

    def __init__(
        self,
        function: Callable[[Value, Value], Value],
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
    ) -> None:
        super().__init__(getattr(function, "__name__", "loss") if name is None else name, reduction)
        self.function = function

    def call(self, y_true: Value, y_pred: Value) -> Value:
        return self.function(y_true, y_pred)

    def check_targets(self, y: np.ndarray, output_shape: Sequence[int | None]) -> None:
        """Only the function knows what it takes."""

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"function": self.function}


def mean_squared_error(y_true: Any, y_pred: Any) -> Value:
    """mean((y_true − y_pred)²) along the last axis: (N, …, C) gives (N, …)."""
    y_true, y_pred = _paired(y_true, y_pred)
    return ops.mean(ops.square(y_true - y_pred), axis=-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Value:
    """mean(|y_true − y_pred|) along the last axis: (N, …, C) gives (N, …)."""
    y_true, y_pred = _paired(y_true, y_pred)
    return ops.mean(ops.absolute(y_true - y_pred), axis=-1)


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Value:
    """−y·log p − (1 − y)·log(1 − p), averaged along `axis`.

    `label_smoothing` s makes y·(1 − s) + s/2 of y.
    """
    y_true, y_pred = _paired(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return ops.mean(ops.binary_crossentropy(y_true, y_pred, from_logits), axis=axis)


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Value:
    """−Σ y·log p along `axis`: (N, …, C) gives (N, …).

    `label_smoothing` s makes y·(1 − s) + s/C of y.
    """
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    _check_equal_shapes(y_true, y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_pred.shape[axis]
    return ops.categorical_crossentropy(y_true, y_pred, from_logits, axis)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Value:
    """−log p[y] along the last axis: labels (N, …) or (N, …, 1) and predictions (N, …, C) give (N, …)."""
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    if axis not in (-1, y_pred.ndim - 1):
        raise ValueError(f"Expected the classes along the last axis. Received: axis={axis} of shape {y_pred.shape}")
    labels = targets.class_labels(y_true, y_pred)
    losses = ops.sparse_categorical_crossentropy(labels, y_pred, from_logits)
    return losses if ignore_class is None else ops.where(ops.equal(labels, ignore_class), 0.0, losses)


def reduce_weighted(values: Value, sample_weight: Any = None, reduction: str | None = "sum_over_batch_size") -> Value:
    """Multiply the samples' values by their weights, and reduce them to a scalar (see `Loss`)."""
    weights: Value | None = None
    if sample_weight is not None:
        weights = broadcast_weights(ops.cast(as_value(sample_weight, values), values.dtype), values)
        values = values * weights
    if reduction in (None, "none") or values.ndim == 0:
        return values
    total = ops.sum(values)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weights is not None:
        return total / (ops.sum(ops.broadcast_to(weights, values.shape)) + 1e-7)
    return total / float(values.type.size)


def broadcast_weights(weights: Value, values: Value) -> Value:
    """Give sample weights the values' rank: weights (N,) beside values (N, T) become (N, 1)."""
    if weights.ndim == values.ndim + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    fits = weights.ndim <= values.ndim and all(w in (1, v) for w, v in zip(weights.shape, values.shape, strict=False))
    if not fits:
        raise ShapeError(f"Expected sample weights of shape {values.shape} or its beginning. Received: {weights.shape}")
    return ops.reshape(weights, weights.shape + (1,) * (values.ndim - weights.ndim))


def _paired(y_true: Any, y_pred: Any) -> tuple[Value, Value]:
    """Targets and predictions with one rank, shape and dtype."""
    y_true, y_pred = targets.as_pair(y_true, y_pred)
    y_true, y_pred = targets.same_rank(ops.cast(y_true, y_pred.dtype), y_pred)
    _check_equal_shapes(y_true, y_pred)
    return y_true, y_pred


def _check_equal_shapes(y_true: Value, y_pred: Value) -> None:
    if y_true.shape != y_pred.shape:
        raise ShapeError(f"Expected targets of the predictions' shape {y_pred.shape}. Received: {y_true.shape}")


def _checked_smoothing(label_smoothing: float) -> float:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"Expected label_smoothing in [0, 1]. Received: label_smoothing={label_smoothing}")
    return float(label_smoothing)


LossLike = str | Loss | Callable[[Value, Value], Value] | Mapping[str, Any] | type[Loss]

_CATALOGUE: ClassCatalogue[Loss] = ClassCatalogue(
    "loss",
    Loss,
    {
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "mae": MeanAbsoluteError,
        "binary_crossentropy": BinaryCrossentropy,
        "bce": BinaryCrossentropy,
        "categorical_crossentropy": CategoricalCrossentropy,
        "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    },
    FunctionLoss,
)


def get(identifier: LossLike) -> Loss:
    """Return the loss of a name, a class, a `{"class_name", "config"}` mapping, an instance, or a function.

    Raises `ValueError` naming the nearest known losses for an unknown name.
    """
    return _CATALOGUE.get(identifier)
