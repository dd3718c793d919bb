"""What `fit`, `evaluate` and `predict` are given, checked and brought into the form that programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradloom.compiler.types import OPEN, TensorType, as_dtype
from gradloom.trees import as_array, as_float32, flatten, is_literal


@dataclass(frozen=True)
class Dataset:
    """Rows of features, labels and weights by the label of their input: "x", "y", "sample_weight", or "x.left" and the
    like where a model has several; each C-contiguous and of a dtype that programs know.

    Float data is float32 (float64 is cast once, here); uint8 stays what it is and is converted by the program.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def types(self) -> tuple[tuple[str, TensorType], ...]:
        """Labels and types of the inputs, open in the number of rows: what a program depends on."""
        return tuple((label, data_type(array)) for label, array in self.arrays.items())

    def rows(self, start: int, stop: int) -> Dataset:
        """The rows from `start` to `stop`, without a copy."""
        return Dataset({label: array[start:stop] for label, array in self.arrays.items()})

    def weighted_by_class(self, class_weight: Mapping[int, float] | None, classes: int | None) -> Dataset:
        """Multiply the weights of samples by those of their classes, of which there are so many, if known.

        Raises `ValueError` for several outputs, for weights that are not finite and for classes out of range.
        """
        if class_weight is None:
            return self
        if "y" not in self.arrays:
            raise ValueError("class_weight needs a model with one output; give a sample_weight for each of several")
        _check_class_weight(class_weight, classes)
        weight = _class_weights(class_weight, self.arrays["y"], self.arrays.get("sample_weight"))
        return Dataset({**self.arrays, "sample_weight": weight})

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


def labels(root: str, names: Sequence[str], single: bool) -> list[str]:
    """The labels of data for inputs or outputs of these names: "x" for a single one, else "x.left", "x.right"."""
    return [root] if single else [f"{root}.{name}" for name in names]


def by_name(tree: Any, names: Sequence[str], what: str, single: bool, optional: bool = False) -> list[Any]:
    """Take data apart: for several inputs or outputs a list or tuple in their order, a dict by their names, or nested.

    A list of one input or output takes its data alone, too, as in Keras.
    optional: whether some may be missing in a dict, or None. Raises `ValueError` naming those that were expected.
    """
    if isinstance(tree, Mapping) and all(isinstance(key, str) for key in tree):
        missing = [] if optional else [name for name in names if name not in tree]
        if not missing and all(key in names for key in tree):
            return [tree.get(name) for name in names]
        raise ValueError(f"Expected {what} by the names {list(names)}. Received: {list(tree)}")
    if single:
        return [tree]
    parts = list(tree) if isinstance(tree, (list, tuple)) and not is_literal(tree) else None
    if parts is None and len(names) == 1:
        return [tree]
    if parts is not None and len(parts) != len(names):
        parts = flatten(tree)[0]
    if parts is None or len(parts) != len(names):
        received = type(tree).__name__ if parts is None else f"{len(parts)}"
        raise ValueError(
            f"Expected {what} as a list, or a dict, of {len(names)} arrays, for {list(names)}. Received: {received}"
        )
    return parts


def features(parts: Sequence[Any], names: Sequence[str]) -> list[np.ndarray]:
    """Return each part of x as rows of features, all with as many rows.

    Raises `ValueError` for data without rows or without an axis for them.
    """
    arrays = [_features(part, name) for part, name in zip(parts, names, strict=True)]
    for array, name in zip(arrays[1:], names[1:], strict=True):
        _check_length(name, array, len(arrays[0]), names[0])
    return arrays


def _features(x: Any, name: str) -> np.ndarray:
    array = _single(as_array(x, name), name)
    if array.ndim == 0:
        raise ValueError(f"Expected {name} with samples along its first axis. Received: {name} is a single number")
    if len(array) == 0:
        raise ValueError(f"Expected {name} with at least one sample. Received: {name} of shape {array.shape}")
    return array


def targets(y: Any, samples: int, name: str = "y") -> np.ndarray:
    """Return `y` as one row of labels or values per sample: integers as int32 (uint8 as it is), others as float32."""
    if y is None:
        raise ValueError(f"Expected targets {name} beside x. Received: {name}=None")
    array = _single(as_array(y, name), name)
    _check_length(name, array, samples)
    if array.dtype == np.int64:
        return _as_int32(array)
    return array if array.dtype in (np.uint8, np.int32, np.float32) else as_float32(array, name)


def weights(sample_weight: Any, samples: int, name: str = "sample_weight") -> np.ndarray:
    """Return one float32 weight per sample."""
    array = as_array(sample_weight, name)
    _check_length(name, array, samples)
    if array.shape == (samples, 1):
        array = array.reshape(samples)
    if array.ndim != 1:
        raise ValueError(
            f"Expected {name} with one weight per sample, of shape ({samples},). Received: shape {array.shape}"
        )
    return as_float32(array, name)


def _check_class_weight(class_weight: Any, classes: int | None) -> None:
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"Expected class_weight as a dict of weights by class. Received: {class_weight!r}")
    for label, weight in class_weight.items():
        is_class = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
        if not is_class or label < 0 or (classes is not None and label >= classes):
            known = "integers from 0" if classes is None else f"integers in [0, {classes})"
            raise ValueError(f"Expected {known} as classes in class_weight. Received: {label!r}")
        if not isinstance(weight, (int, float, np.integer, np.floating)) or not np.isfinite(weight):
            raise ValueError(f"Expected finite numbers as weights in class_weight. Received: {label!r}: {weight!r}")


def _class_weights(class_weight: Mapping[int, float], y: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    """Multiply each sample's weight by that of its class: `class_weight` maps labels to weights, 1 where it is silent.

    `y` holds integer labels, or one-hot rows.
    """
    one_hot = y.ndim == 2 and y.shape[1] > 1
    classes = y.argmax(axis=1) if one_hot else y.reshape(len(y))
    if y.ndim > 2 or (not one_hot and np.any(classes != np.floor(classes))):
        raise ValueError(
            f"class_weight needs integer labels or one-hot rows in y. Received: y of {y.dtype} and shape {y.shape}"
        )
    result = np.ones(len(y), np.float32)
    for label, weight in class_weight.items():
        result[classes == label] = weight
    return result if sample_weight is None else result * sample_weight


def _single(array: np.ndarray, name: str) -> np.ndarray:
    """Cast float64 to float32, the precision that layers compute in."""
    return as_float32(array, name) if array.dtype == np.float64 else array


def _check_length(name: str, array: np.ndarray, samples: int, beside: str = "x") -> None:
    if array.ndim == 0 or len(array) != samples:
        received = "a single number" if array.ndim == 0 else f"{len(array)} ({name} of shape {array.shape})"
        raise ValueError(f"Expected {name} with as many samples as {beside}, {samples}. Received: {received}")


def _as_int32(array: np.ndarray) -> np.ndarray:
    """Narrow integer targets; refuse those that do not fit rather than wrap them around."""
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise ValueError(f"Expected integer targets that fit 32 bits. Received: {array.min()} … {array.max()}")
    return array.astype(np.int32)
