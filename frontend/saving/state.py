"""What training leaves behind in a model, as named arrays: weights, layers' other state, the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gradloom.optimizers import Optimizer
from gradloom.saving.names import layer_names, state_names, weight_names
from gradloom.saving.weights import OPTIMIZER, STATE, assign
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.model import Model


def model_variables(model: Model) -> dict[str, Variable]:
    """All that must come back for training to go on bit by bit, by name: a file's names of tensors."""
    optimizer = model.optimizer
    return {
        **weight_names(model),
        **{STATE + name: variable for name, variable in state_names(model).items()},
        **({} if optimizer is None else _optimizer_variables(model, optimizer)),
    }


def restore(model: Model, arrays: Mapping[str, np.ndarray], expected: str) -> None:
    """Give a model what `model_variables` named; its optimizer gets the slots that are among it.

    Raises SavedFileError, which begins with `expected` and lists what does not fit, before anything is changed; as it
    does ValueError for hyperparameters that are out of range.
    """
    optimizer = model.optimizer
    if optimizer is not None:
        slots = {name.removeprefix(OPTIMIZER).rpartition("/")[0] for name in arrays if name.startswith(OPTIMIZER)}
        optimizer.build(variable for name, variable in weight_names(model).items() if name in slots)
        names = {name: OPTIMIZER + name for name in optimizer.hyperparameters}
        optimizer.check_hyperparameters({name: arrays[key] for name, key in names.items() if key in arrays})
    else:
        arrays = {name: array for name, array in arrays.items() if not name.startswith(OPTIMIZER)}
    assign(model_variables(model), arrays, expected)


def frozen_names(model: Model) -> list[str]:
    """The names of the layers that are not trained."""
    return [name for name, layer in layer_names(model).items() if not layer.trainable]


def freeze(model: Model, names: list[str]) -> None:
    """Let the layers of these names not be trained, and all others be."""
    for name, layer in layer_names(model).items():
        layer._trainable = name not in names


def spared_names(model: Model) -> list[str]:
    """The names of the weights that the optimizer lets not decay: expressions are the caller's, and in no file."""
    optimizer = model.optimizer
    assert optimizer is not None
    return [name for name, variable in weight_names(model).items() if not optimizer.decays(variable)]


def spare(model: Model, names: list[str]) -> None:
    """Let the optimizer not decay the weights of these names."""
    assert model.optimizer is not None
    weights = weight_names(model)
    model.optimizer.exclude_from_weight_decay(weights[name] for name in names)


def _optimizer_variables(model: Model, optimizer: Optimizer) -> dict[str, Variable]:
    """Hyperparameters, the number of steps, and the slots by the names of their weights."""
    weights = {variable: name for name, variable in weight_names(model).items()}
    variables = {**optimizer.hyperparameters, optimizer.iterations.name: optimizer.iterations}
    for (variable, slot), state in optimizer.slots.items():
        if variable in weights:
            variables[f"{weights[variable]}/{slot}"] = state
    return {OPTIMIZER + name: variable for name, variable in variables.items()}
