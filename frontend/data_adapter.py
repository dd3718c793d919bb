"""What `fit`, `evaluate` and `predict` are given, checked and brought into the form that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloom.compiler.types import OPEN, TensorType, as_dtype
from gradloom.trees import as_array


@dataclass(frozen=True)
class Dataset:
    """Rows of features, labels and weights, each C-contiguous and of a dtype that programs know.

    Float data is float32 (float64 is cast once, here); uint8 stays what it is and is converted by the program.
    """

    x: np.ndarray
    y: np.ndarray | None = None
    sample_weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by the label of their input."""
        named = {"x": self.x, "y": self.y, "sample_weight": self.sample_weight}
        return {label: array for label, array in named.items() if array is not None}

    @property
    def types(self) -> tuple[tuple[str, TensorType], ...]:
        """Labels and types of the inputs, open in the number of rows: what a program depends on."""
        return tuple((label, data_type(array)) for label, array in self.arrays.items())

    def rows(self, start: int, stop: int) -> Dataset:
        """The rows from `start` to `stop`, without a copy."""
        y = None if self.y is None else self.y[start:stop]
        weight = None if self.sample_weight is None else self.sample_weight[start:stop]
        return Dataset(self.x[start:stop], y, weight)

    def padded(self, rows: int) -> Dataset:
        """A copy with zeros after its rows, `rows` in all: zeros are valid labels, and weigh nothing."""
        y = None if self.y is None else _padded(self.y, rows)
        weight = None if self.sample_weight is None else _padded(self.sample_weight, rows)
        return Dataset(_padded(self.x, rows), y, weight)

    def split(self, validation_split: float) -> tuple[Dataset, Dataset]:
        """Cut off the last part for validation, as Keras does: before any shuffling."""
        if not 0 < validation_split < 1:
            raise ValueError(f"Expected 0 < validation_split < 1. Received: validation_split={validation_split}")
        cut = int(len(self) * (1 - validation_split))
        if cut in (0, len(self)):
            raise ValueError(
                f"validation_split={validation_split} of {len(self)} samples leaves no sample for "
                f"{'training' if cut == 0 else 'validation'}"
            )
        return self.rows(0, cut), self.rows(cut, len(self))


def data_type(array: np.ndarray) -> TensorType:
    """The type of a whole data set, whatever its number of rows."""
    return TensorType(as_dtype(array.dtype), (OPEN, *array.shape[1:]))


def features(x: Any) -> np.ndarray:
    """Return `x` as rows of features; raises `ValueError` for data without rows or without an axis for them."""
    array = _single(as_array(x, "x"))
    if array.ndim == 0:
        raise ValueError("Expected x with samples along its first axis. Received: x is a single number")
    if len(array) == 0:
        raise ValueError(f"Expected x with at least one sample. Received: x of shape {array.shape}")
    return array


def targets(y: Any, samples: int) -> np.ndarray:
    """Return `y` as one row of labels or values per sample: integers as int32 (uint8 as it is), others as float32."""
    if y is None:
        raise ValueError("Expected targets y beside x. Received: y=None")
    array = _single(as_array(y, "y"))
    _check_length("y", array, samples)
    if array.dtype == np.int64:
        return _as_int32(array)
    return array.astype(np.float32) if array.dtype == np.bool_ else array


def weights(sample_weight: Any, samples: int) -> np.ndarray | None:
    """Return one float32 weight per sample, or None for none."""
    if sample_weight is None:
        return None
    array = as_array(sample_weight, "sample_weight")
    _check_length("sample_weight", array, samples)
    if array.shape == (samples, 1):
        array = array.reshape(samples)
    if array.ndim != 1:
        raise ValueError(
            f"Expected sample_weight with one weight per sample, of shape ({samples},). Received: shape {array.shape}"
        )
    return array.astype(np.float32, copy=False)


def weighted_by_class(
    class_weight: Mapping[int, float] | None, y: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Multiply each sample's weight by that of its class: `class_weight` maps labels to weights, 1 where it is silent.

    `y` holds integer labels, or one-hot rows.
    """
    if class_weight is None:
        return sample_weight
    one_hot = y.ndim == 2 and y.shape[1] > 1
    labels = y.argmax(axis=1) if one_hot else y.reshape(len(y))
    if y.ndim > 2 or (not one_hot and np.any(labels != np.floor(labels))):
        raise ValueError(
            f"class_weight needs integer labels or one-hot rows in y. Received: y of {y.dtype} and shape {y.shape}"
        )
    result = np.ones(len(y), np.float32)
    for label, weight in class_weight.items():
        result[labels == label] = weight
    return result if sample_weight is None else result * sample_weight


def _single(array: np.ndarray) -> np.ndarray:
    """Cast float64 to float32, the precision that layers compute in."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _check_length(name: str, array: np.ndarray, samples: int) -> None:
    if array.ndim == 0 or len(array) != samples:
        received = "a single number" if array.ndim == 0 else f"{len(array)} ({name} of shape {array.shape})"
        raise ValueError(f"Expected {name} with as many samples as x, {samples}. Received: {received}")


def _as_int32(array: np.ndarray) -> np.ndarray:
    """Narrow integer targets; refuse those that do not fit rather than wrap them around."""
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise ValueError(f"Expected integer targets that fit 32 bits. Received: {array.min()} … {array.max()}")
    return array.astype(np.int32)


def _padded(array: np.ndarray, rows: int) -> np.ndarray:
    result = np.zeros((rows, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result
