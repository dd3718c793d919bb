"""Weights in files: by their layers' names in `.safetensors` and models' `.gradloom`, by Keras's in `.weights.h5`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gradloom.runtime.interrupts import HeldBack
from gradloom.saving.hdf5 import read_hdf5, write_hdf5
from gradloom.saving.keras_names import keras_layer_names, keras_weight_names
from gradloom.saving.names import weight_names
from gradloom.saving.suffixes import KERAS_WEIGHTS, MODEL, WEIGHTS
from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.network import Network

STATE, OPTIMIZER = "@state/", "@optimizer/"
"""What names in a file begin with that are of no weights."""
_SHOWN = 8
"""How many mismatches a message lists."""


def save_weights(model: Network, path: str | os.PathLike[str]) -> None:
    """Write a model's weights; the suffix says in which format."""
    path = os.fsdecode(path)
    if path.endswith(MODEL):
        raise ValueError(
            "Expected a file of weights that ends with .safetensors or .weights.h5; .gradloom files are whole models, "
            f"of model.save. Received: {path!r}"
        )
    keras = _is_keras(path)
    model.require_built("save_weights")
    if keras:
        arrays = {name: variable.value for name, variable in keras_weight_names(model).items()}
        write_hdf5(path, arrays, keras_layer_names(model))
    else:
        write_tensors(path, {name: variable.value for name, variable in weight_names(model).items()})


def load_weights(model: Network, path: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """Give a model the weights of a file, by name and shape (see `Network.load_weights`)."""
    path = os.fsdecode(path)
    keras = _is_keras(path)
    model.require_built("load_weights")
    if keras:
        names = keras_weight_names(model)
        arrays = {_present_name(name): array for name, array in read_hdf5(path).items()}
        # A file also has the optimizer's and metrics' state, in groups of their own.
        groups = {name.split("/")[0] for name in names}
        arrays = {name: array for name, array in arrays.items() if name.split("/")[0] in groups}
    else:
        names = weight_names(model)
        tensors, _ = read_tensors(path, checksum=path.endswith(MODEL))
        arrays = {name: array for name, array in tensors.items() if not name.startswith((STATE, OPTIMIZER))}
    assign(names, arrays, f"{path}: Expected the weights of model {model.name!r}", skip_mismatch)


def assign(
    variables: Mapping[str, Variable], arrays: Mapping[str, np.ndarray], expected: str, skip_mismatch: bool = False
) -> None:
    """Give variables the arrays of their names.

    When names, shapes or dtypes differ, raises SavedFileError, which begins with `expected` and lists them, before
    anything is changed; with `skip_mismatch` what fits is loaded, and the list is a warning.
    """
    mismatches = {name: _mismatch(variable, arrays.get(name)) for name, variable in variables.items()}
    lines = [f"{name}: {mismatch}" for name, mismatch in mismatches.items() if mismatch]
    lines += [
        f"{name}: Expected no such weight. Received: {_type(arrays[name])}" for name in arrays if name not in variables
    ]
    if lines:
        more = [f"… and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        fitting = sum(mismatch is None for mismatch in mismatches.values())
        head = f"{expected}. Received: {fitting} of {len(variables)} that fit, {len(lines)} mismatches:"
        text = "\n  ".join([head, *lines[:_SHOWN], *more])
        if not skip_mismatch:
            raise SavedFileError(text)
        warnings.warn(text, stacklevel=4)
    # All or none: an interrupt waits for the last one.
    with HeldBack():
        for name, variable in variables.items():
            if mismatches[name] is None:
                variable.assign(arrays[name])


def _mismatch(variable: Variable, array: np.ndarray | None) -> str | None:
    """Say what is wrong with an array for a variable, if anything."""
    expected = f"Expected {variable.dtype.numpy_name}{list(variable.shape)}"
    if array is None:
        return f"{expected}. Received: nothing of this name"
    if array.shape != variable.shape or not np.can_cast(array.dtype, variable.dtype.numpy, "same_kind"):
        return f"{expected}. Received: {_type(array)}"
    try:
        variable.in_range(array)
    except ValueError as error:
        return str(error)
    return None


def _type(array: np.ndarray) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


def _present_name(name: str) -> str:
    """A name in the layout of Keras 3; files of TensorFlow 2.13 have another name for a model's layers."""
    return name.replace("_layer_checkpoint_dependencies/", "layers/")


def _is_keras(path: str) -> bool:
    """Whether a file of weights is in Keras's format; raises ValueError for a suffix of neither."""
    if path.endswith(KERAS_WEIGHTS):
        return True
    if not path.endswith((WEIGHTS, MODEL)):
        known = ", ".join((WEIGHTS, MODEL, KERAS_WEIGHTS))
        raise ValueError(f"Expected a file of weights that ends with one of {known}. Received: {path!r}")
    return False
