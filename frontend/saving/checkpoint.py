"""Checkpoints: all that a training needs to go on as if it had not been interrupted, in one file.

The file is one of tensors: `variables/…`, numbered in their order, and `callbacks/…`; what is not an array is JSON in
the metadata.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom import random_seed
from gradloom.network import Network
from gradloom.random_seed import Stream
from gradloom.runtime.interrupts import HeldBack
from gradloom.saving.names import layer_names, sublayer_names
from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors
from gradloom.saving.topology import calls_config
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.model import Model
    from gradloom.training_run import TrainingRun

KEY = "gradloom.checkpoint"
"""The metadata's key of all that is not an array."""
VERSION = 4
METRICS = "metrics"
"""The key of what has to be the same within an epoch only."""
ARRAY = "array"
"""The key of a JSON object that stands for an array: its name in the file."""
_MOST_U64 = (1 << 64) - 1


class Checkpoint:
    """The state of one training at the end of an epoch or of a batch.

    arrays: by their names in the file. state: all else, as JSON has it. source: where it was read, for errors.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], source: str = "checkpoint") -> None:
        self.arrays = arrays
        self.state = state
        self._source = source

    @staticmethod
    def of(run: TrainingRun, callbacks: bool = True) -> Checkpoint:
        """Copy the state of a training that is on, with that of its callbacks or without."""
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
            "logs": _packed(run.logs, "logs", arrays),
            "variables": variables,
            "callbacks": [
                [name, _packed(state, f"callbacks/{place}/{name}", arrays)]
                for place, (name, state) in enumerate(run.callbacks.states() if callbacks else [])
            ],
        }
        return Checkpoint(arrays, state)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Checkpoint:
        """Read a file; raises SavedFileError for what is damaged or no checkpoint, OSError if it cannot be opened."""
        arrays, metadata = read_tensors(path, checksum=True)
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
        write_tensors(path, self.arrays, {KEY: json.dumps(self.state)})

    def resume(self, run: TrainingRun) -> None:
        """Let a training that has just begun go on from here.

        Raises SavedFileError, and changes nothing, if it has another model (see `_layers`), losses, optimizer, number
        of samples, batch size or shuffling, within an epoch other metrics, or hyperparameters out of range, or if a
        callback refuses its state.
        Hyperparameters, the learning rate among them, and weights of losses become those of the checkpoint. Other
        epochs, callbacks and data for validation are allowed. What autotuning measured is not in it: where the cache
        has lost that, the bits may be others.
        """
        self._check(run)
        before = Checkpoint.of(run, callbacks=False)  # They take their states all, or none.
        try:
            self._apply(run)
        except Exception as error:
            before._apply(run)
            raise SavedFileError(
                f"{self._source}: Expected states that the callbacks' set_state takes. Received: {error!r}"
            ) from error

    def _check(self, run: TrainingRun) -> None:
        """Raise SavedFileError unless everything in the file is of the type, and in the range, that the run has."""
        try:
            self._check_fit(run)
            self._check_progress(run)
            self._check_hyperparameters(run)
            states = self._callback_states()
            pairs = isinstance(states, list) and all(isinstance(one, list) and len(one) == 2 for one in states)
            self._require(
                "callbacks",
                pairs and all(isinstance(name, str) and isinstance(state, dict) for name, state in states),
                "pairs of a class and a state",
            )
        except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise SavedFileError(f"{self._source}: Expected a whole checkpoint. Received: {error!r}") from error

    def _check_fit(self, run: TrainingRun) -> None:
        fit, other = _fit(run), self.state["fit"]
        for name in dict.fromkeys([*fit, *other]):
            if name == METRICS and not self.state["batches"]:
                continue  # Their sums begin anew with the next epoch, and may be those of other metrics.
            expected, received = fit.get(name), other.get(name)
            if received != expected:
                raise SavedFileError(
                    f"{self._source}: Expected a checkpoint of a training with {name} {expected!r}. "
                    f"Received: one with {received!r}"
                )

    def _check_progress(self, run: TrainingRun) -> None:
        state, training = self.state, run.training
        epoch, stream = state["epoch"], state["stream"]
        self._require("epoch", _is_count(epoch), "a number of at least 0")
        self._require("batches", _is_count(state["batches"], training.steps), f"a number in [0, {training.steps}]")
        # An epoch draws one order, and is not counted before its end.
        self._require("orders", _is_count(state["orders"], epoch + 1), f"a number in [0, {epoch + 1}]")
        shuffled = training.stream is not None
        self._require("stream", _is_key(stream) if shuffled else stream is None, "two u64" if shuffled else "null")
        self._require("random", _is_key(state["random"]), "two u64")
        self._require("stop_training", isinstance(state["stop_training"], bool), "true or false")
        self._require("logs", isinstance(_unpacked(state["logs"], self.arrays), dict), "a mapping")

    def _require(self, key: str, holds: bool, expected: str) -> None:
        if not holds:
            raise SavedFileError(
                f"{self._source}: Expected {key} as {expected}. Received: {reprlib.repr(self.state[key])}"
            )

    def _values(self, run: TrainingRun) -> list[tuple[Variable, np.ndarray]]:
        """What each variable is to become; raises SavedFileError if they do not fit."""
        values: list[tuple[Variable, np.ndarray]] = []
        for group, variables in _variables(run).items():
            if group == "sums" and not self.state["batches"]:
                continue
            entries = self.state["variables"].get(group, [])
            if len(entries) != len(variables):
                raise SavedFileError(
                    f"{self._source}: Expected a checkpoint with {len(variables)} variables of the {group}. "
                    f"Received: {len(entries)}"
                )
            values += [(one, self._fitting(one, entry)) for one, entry in zip(variables, entries, strict=True)]
        return values

    def _check_hyperparameters(self, run: TrainingRun) -> None:
        values, optimizer = dict(self._values(run)), run.setup.optimizer
        try:
            optimizer.check_hyperparameters({name: values[one] for name, one in optimizer.hyperparameters.items()})
        except ValueError as error:
            raise SavedFileError(f"{self._source}: {error}") from None

    def _fitting(self, variable: Variable, entry: Mapping[str, Any]) -> np.ndarray:
        """The array for a variable."""
        array = self.arrays[entry[ARRAY]]
        if array.shape != variable.shape or array.dtype != variable.dtype.numpy:
            raise SavedFileError(
                f"{self._source}: Expected {variable.path!r} of {variable.dtype.numpy_name}{list(variable.shape)}. "
                f"Received: {entry['path']!r} of {array.dtype}{list(array.shape)}"
            )
        return array

    def _callback_states(self) -> Any:
        return _unpacked(self.state["callbacks"], self.arrays)

    def _apply(self, run: TrainingRun) -> None:
        """Let the run stand where the checkpoint does, callbacks last: only they may refuse."""
        state = self.state
        stream = None if state["stream"] is None else Stream(*state["stream"])
        # Where no epoch is left to be trained, no order is needed: a file may speak of any number of them.
        orders = state["orders"] if state["epoch"] < run.end else 0
        run.training.resume(stream, orders, state["batches"], lambda: self._put_back(run))
        run.epoch, run.logs = state["epoch"], _unpacked(state["logs"], self.arrays)
        with HeldBack():
            run.model.stop_training = state["stop_training"]
            random_seed.go_on(*state["random"])
            self._put_back(run)

    def _put_back(self, run: TrainingRun) -> None:
        """Give variables and callbacks what they had."""
        with HeldBack():
            for variable, array in self._values(run):
                variable.assign(array)
            run.callbacks.set_states(self._callback_states())


def _fit(run: TrainingRun) -> dict[str, Any]:
    """What has to be the same for the order of samples, and the steps, to be the same, as JSON has it.

    Of an optimizer's hyperparameters only that they are such: their values are state.
    """
    optimizer, training = run.setup.optimizer, run.training
    config = {**_config(optimizer), **dict.fromkeys(optimizer.hyperparameters, "a hyperparameter")}
    schedule = optimizer.schedule
    losses = [output.loss for output in run.setup.outputs]
    fit = {
        "optimizer": type(optimizer).__name__,
        "learning rate schedule": None if schedule is None else type(schedule).__name__,
        **{f"optimizer's {name}": value for name, value in config.items()},
        "losses": [loss and {type(loss).__name__: loss.get_config()} for loss in losses],
        METRICS: [{"plain": output.plain, "weighted": output.weighted} for output in run.setup.outputs],
        "samples": training.samples,
        "batch size": training.batch_size,
        "steps per epoch": training.steps,
        "shuffle": training.stream is not None,
    }
    return {**_as_json(fit), **_layers(run.model)}


def _layers(model: Model) -> dict[str, Any]:
    """The class and the settings of each layer, by its path; of a model that lists its layers, how it calls them.

    Of what cannot be told, as arguments and functions without names, the class alone.
    """
    fit: dict[str, Any] = {}
    for path, layer in layer_names(model).items():
        where = f"layer {path.rstrip('/')!r}: " if path else "model: "
        fit[f"{where}class"] = type(layer).__name__
        with suppress(Exception):  # A get_config of one's own may raise anything.
            if isinstance(layer, Network) and layer.listed_layers is not None:
                settings = _calls(layer)
            else:
                settings = _config(layer)
            fit |= {f"{where}{name}": value for name, value in _as_json(settings).items()}
    return fit


def _calls(model: Network) -> dict[str, Any]:
    """What a model calls on what, layers by their names in files, and which results are its own."""
    names = {layer.name: name for name, layer in sublayer_names(model).items()}
    config = calls_config(model.call_graph)
    calls = {
        f"call {number}": [names.get(str(call["operation"]), call["operation"]), call["args"], call["kwargs"]]
        for number, call in enumerate(config["calls"])
    }
    return {**calls, "outputs": config["outputs"]}


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as a file tells it, NaN as a word: the number would not equal itself."""
    data: dict[str, Any] = json.loads(json.dumps(config, default=_described, skipkeys=True), parse_constant=str)
    return data


def _config(thing: Any) -> dict[str, Any]:
    """A thing's config without its name, which is counted in each process."""
    return {key: value for key, value in thing.get_config().items() if key != "name"}


def _described(thing: Any) -> Any:
    """What JSON can hold of a thing in a config, the same in each process."""
    if isinstance(thing, (np.generic, np.ndarray)):
        return thing.tolist()
    if hasattr(thing, "get_config") and not isinstance(thing, type):
        return {type(thing).__name__: _config(thing)}
    return getattr(thing, "__name__", type(thing).__name__)


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


def _is_count(value: Any, most: float = float("inf")) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_key(value: Any) -> bool:
    """Whether it is a seed and the number of a stream."""
    return isinstance(value, list) and len(value) == 2 and all(_is_count(number, _MOST_U64) for number in value)


def _packed(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return what JSON can hold, with each array as its name among `arrays`, to which it is added."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _packed(one, f"{name}/{key}", arrays) for key, one in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_packed(one, f"{name}/{place}", arrays) for place, one in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name}: Expected numbers, strings, arrays, lists, and dicts by strings in what is to be saved. "
        f"Received: {value!r}"
    )


def _unpacked(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return what `_packed` was given, with lists for tuples."""
    if isinstance(value, list):
        return [_unpacked(one, arrays) for one in value]
    if isinstance(value, dict):
        if ARRAY in value:
            return arrays[value[ARRAY]].copy()
        return {key: _unpacked(one, arrays) for key, one in value["dict"].items()}
    return value
