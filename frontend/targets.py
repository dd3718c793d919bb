"""Targets beside predictions: bringing their ranks together in a graph, and checking them on the host before a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradloom import ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops import as_value

Shape = Sequence[int | None]


def as_pair(y_true: Any, y_pred: Any) -> tuple[Value, Value]:
    """Targets and predictions as values of one graph."""
    y_pred = as_value(y_pred)
    return as_value(y_true, y_pred), y_pred


def same_rank(x: Value, y: Value) -> tuple[Value, Value]:
    """Bring (N, 1) beside (N,) to one rank, either way round (Keras's rule).

    The trailing axis of size 1 goes, except beside a tensor of rank 1, which gets one.
    """
    if x.ndim == y.ndim + 1 and x.shape[-1] == 1:
        return (x, ops.expand_dims(y, -1)) if y.ndim == 1 else (ops.squeeze(x, -1), y)
    if y.ndim == x.ndim + 1 and y.shape[-1] == 1:
        return (ops.expand_dims(x, -1), y) if x.ndim == 1 else (x, ops.squeeze(y, -1))
    return x, y


def class_labels(y_true: Value, y_pred: Value) -> Value:
    """Return labels without the trailing axis of size 1 that they may have: (N, 1) beside (N, classes) becomes (N,)."""
    labels = ops.squeeze(y_true, -1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
    if labels.shape != y_pred.shape[:-1]:
        raise ShapeError(
            f"Expected labels of shape {y_pred.shape[:-1]} or {(*y_pred.shape[:-1], 1)} beside predictions of shape "
            f"{y_pred.shape}. Received: {y_true.shape}"
        )
    return labels if labels.dtype.is_integer else ops.cast(labels, "int32")


def check_labels(y: np.ndarray, output_shape: Shape, ignored: int | None = None) -> None:
    """Check class numbers: integers (in any dtype) in [0, classes), one for each row of the predictions.

    Raises `DTypeError` for what is no number or not integral, `ShapeError` for another shape, `ValueError` naming the
    first label out of range.
    """
    _check_numeric(y, "class labels")
    rows = tuple(output_shape[:-1])
    if not (_fits(y.shape, rows) or _fits(y.shape, (*rows, 1))):
        hint = "; one-hot targets need loss='categorical_crossentropy'" if _fits(y.shape, output_shape) else ""
        raise ShapeError(
            f"Expected class labels of shape {rows} or {(*rows, 1)} for an output of shape {tuple(output_shape)}"
            f"{hint}. Received: {y.shape}"
        )
    if y.dtype.kind == "f":
        fractional = y != np.trunc(y)  # also NaN
        if fractional.any():
            raise DTypeError(f"Expected integral class labels. Received: {_first(y, fractional)}")
    classes = output_shape[-1]
    outside = (y < 0) if classes is None else (y < 0) | (y >= classes)
    if ignored is not None:
        outside &= y != ignored
    if outside.any():
        raise ValueError(f"Expected class labels in [0, {classes}). Received: {_first(y, outside)}")


def check_distributions(y: np.ndarray, output_shape: Shape) -> None:
    """Check one-hot targets, or other distributions over the classes: of the predictions' shape."""
    _check_numeric(y, "one-hot targets")
    if _fits(y.shape, output_shape):
        return
    rows = tuple(output_shape[:-1])
    hint = ""
    if _fits(y.shape, rows) or _fits(y.shape, (*rows, 1)):
        hint = "; class numbers need loss='sparse_categorical_crossentropy'"
    raise ShapeError(
        f"Expected one-hot targets of shape {tuple(output_shape)}, {output_shape[-1]} classes wide{hint}. "
        f"Received: {y.shape}"
    )


def check_same_shape(y: np.ndarray, output_shape: Shape) -> None:
    """Check targets that are compared with predictions one by one: (N,) may stand beside (N, 1)."""
    _check_numeric(y, "targets")
    shapes = [tuple(output_shape), (*output_shape, 1)] + ([tuple(output_shape[:-1])] if output_shape[-1] == 1 else [])
    if not any(_fits(y.shape, shape) for shape in shapes):
        raise ShapeError(f"Expected targets of the output's shape {tuple(output_shape)}. Received: {y.shape}")


def _check_numeric(y: np.ndarray, what: str) -> None:
    if y.dtype.kind not in "fiub":
        raise DTypeError(f"Expected {what} as numbers. Received: an array of dtype {y.dtype}")


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(e is None or e == s for s, e in zip(shape, expected, strict=True))


def _first(y: np.ndarray, wrong: np.ndarray) -> str:
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    more = int(wrong.sum()) - 1
    where = at[0] if len(at) == 1 else at
    return f"{y[at]} at position {where}" + (f", and {more} more" if more else "")
