"""Checkpoints: all that a training needs to go on as if it had not been interrupted, in one file.

The file is one of tensors: `variables/…`, numbered in their order, and `callbacks/…`; what is not an array is JSON in
the metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom import random_seed
from gradloom.random_seed import Stream
from gradloom.runtime.interrupts import HeldBack
from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.training_run import TrainingRun

KEY = "gradloom.checkpoint"
"""The metadata's key of all that is not an array."""
VERSION = 1
ARRAY = "array"
"""The key of a JSON object that stands for an array: its name in the file."""


class Checkpoint:
    """The state of one training at the end of an epoch or of a batch.

    source: where it was read, for errors.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], source: str = "checkpoint") -> None:
        self._arrays = arrays
        self._state = state
        self._source = source

    @staticmethod
    def of(run: TrainingRun) -> Checkpoint:
        """Copy the state of a training that is on."""
        arrays: dict[str, np.ndarray] = {}
        variables: dict[str, list[dict[str, Any]]] = {}
        for group, members in _variables(run).items():
            variables[group] = [{"path": member.path, ARRAY: _name(group, n)} for n, member in enumerate(members)]
            arrays |= {_name(group, n): member.numpy() for n, member in enumerate(members)}
        training = run.training
        state = {
            "version": VERSION,
            "fit": _fit(run),
            "epoch": run.epoch,
            "batches": training.batches,
            "orders": training.orders,
            "stream": None if training.stream is None else [training.stream.seed, training.stream.number],
            "random": random_seed.streams_taken(),
            "stop_training": run.model.stop_training,
            "logs": run.logs,
            "variables": variables,
            "callbacks": _packed(run.callbacks.states(), "callbacks", arrays),
        }
        return Checkpoint(arrays, state)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Checkpoint:
        """Read a file; raises SavedFileError for what is damaged or no checkpoint, OSError if it cannot be opened."""
        arrays, metadata = read_tensors(path)
        try:
            state = json.loads(metadata[KEY])
            version = state["version"]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise SavedFileError(
                f"{path}: Expected a checkpoint. Received: a file of tensors without its state"
            ) from None
        if version != VERSION:
            raise SavedFileError(f"{path}: Expected a checkpoint of version {VERSION}. Received: version {version}")
        return Checkpoint(arrays, state, os.fspath(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which is replaced in one piece; after an OSError, which names it, it is the old one."""
        write_tensors(path, self._arrays, {KEY: json.dumps(self._state)})

    def resume(self, run: TrainingRun) -> None:
        """Let a training that has just begun go on from here.

        Raises SavedFileError, and changes nothing, if it has another model, optimizer, number of samples, batch size or
        shuffling. Other epochs, callbacks and data for validation are allowed.
        """
        state = self._state
        try:
            self._check(run)
            stream = None if state["stream"] is None else Stream(*state["stream"])
            orders, batches, random = state["orders"], state["batches"], state["random"]
            epoch, logs, stop_training = state["epoch"], state["logs"], state["stop_training"]
            _unpacked(state["callbacks"], self._arrays)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise SavedFileError(f"{self._source}: Expected a whole checkpoint. Received: {error!r}") from error
        run.training.resume(stream, orders, batches, lambda: self._put_back(run))
        run.epoch, run.logs, run.model.stop_training = epoch, logs, stop_training
        random_seed.go_on(*random)
        self._put_back(run)

    def _check(self, run: TrainingRun) -> None:
        for name, expected in _fit(run).items():
            received = self._state["fit"][name]
            if received != expected:
                raise SavedFileError(
                    f"{self._source}: Expected a checkpoint of a training with {name} {expected!r}. "
                    f"Received: one with {received!r}"
                )
        groups = self._state["variables"]
        for group, variables in _variables(run).items():
            entries = groups.get(group, [])
            if group == "sums" and not self._state["batches"]:
                continue
            if len(entries) != len(variables):
                raise SavedFileError(
                    f"{self._source}: Expected a checkpoint with {len(variables)} variables of the {group}. "
                    f"Received: {len(entries)}"
                )
            for variable, entry in zip(variables, entries, strict=True):
                self._check_variable(variable, entry)

    def _check_variable(self, variable: Variable, entry: Mapping[str, Any]) -> None:
        array = self._arrays[entry[ARRAY]]
        if array.shape != variable.shape or array.dtype != variable.dtype.numpy:
            raise SavedFileError(
                f"{self._source}: Expected {variable.path!r} of {variable.dtype.numpy_name}{list(variable.shape)}. "
                f"Received: {entry['path']!r} of {array.dtype}{list(array.shape)}"
            )

    def _put_back(self, run: TrainingRun) -> None:
        """Give variables and callbacks what they had."""
        with HeldBack():
            for group, variables in _variables(run).items():
                for variable, entry in zip(variables, self._state["variables"][group], strict=False):
                    variable.assign(self._arrays[entry[ARRAY]])
            run.callbacks.set_states(_unpacked(self._state["callbacks"], self._arrays))


def _fit(run: TrainingRun) -> dict[str, Any]:
    """What has to be the same for the order of samples, and the steps, to be the same."""
    optimizer, training = run.setup.optimizer, run.training
    schedule = optimizer.schedule
    return {
        "optimizer": type(optimizer).__name__,
        "learning rate schedule": None if schedule is None else type(schedule).__name__,
        "samples": training.samples,
        "batch size": training.batch_size,
        "steps per epoch": training.steps,
        "shuffle": training.stream is not None,
    }


def _variables(run: TrainingRun) -> dict[str, list[Variable]]:
    """All variables that training changes or depends on, each in one group, in an order that the program gives."""
    optimizer = run.setup.optimizer
    groups: dict[str, Iterable[Variable]] = {
        "model": run.model.weights,
        "sums": run.setup.sums,
        "optimizer": [*optimizer.hyperparameters.values(), *optimizer.variables],
        "state": run.training.variables,
    }
    seen: set[Variable] = set()
    result: dict[str, list[Variable]] = {}
    for group, members in groups.items():
        result[group] = [member for member in dict.fromkeys(members) if member not in seen]
        seen.update(result[group])
    return result


def _name(group: str, number: int) -> str:
    return f"variables/{group}/{number}"


def _packed(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return what JSON can hold, with each array as its name among `arrays`, to which it is added."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {"dict": {key: _packed(one, f"{name}/{key}", arrays) for key, one in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_packed(one, f"{name}/{place}", arrays) for place, one in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"Expected numbers, strings, arrays, lists and dicts in a callback's state. Received: {value!r}")


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `_packed` was given, with lists for tuples."""
    if isinstance(value, list):
        return [_unpacked(one, arrays) for one in value]
    if isinstance(value, dict):
        if ARRAY in value:
            return arrays[value[ARRAY]].copy()
        return {key: _unpacked(one, arrays) for key, one in value["dict"].items()}
    return value
