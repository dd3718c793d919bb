"""Saving the model, or its weights, while it is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gradloom.callbacks.callback import Logs
from gradloom.callbacks.frequency import Frequency, SaveFrequency
from gradloom.callbacks.monitor import MonitorCallback
from gradloom.callbacks.state import entry
from gradloom.saving.suffixes import KERAS_WEIGHTS, MODEL, WEIGHTS


class ModelCheckpoint(MonitorCallback):
    """Saves the model after each epoch, or with `save_best_only` after those in which `monitor` was the best so far.

    filepath: of a model, "….gradloom" (`gl.models.load_model` reads it), with `save_weights_only` of weights,
        "….safetensors" or "….weights.h5" (`model.load_weights`). It may have fields, "{epoch:02d}-{val_loss:.2f}":
        what the logs have, the epoch and, where batches are counted, `batch`, both from 1. Folders are made.
    monitor, mode: what is best, as `MonitorCallback` says. initial_value_threshold: what the first has to surpass.
    verbose: 1 to say so. save_freq: "epoch", or after how many batches to save, and then Python comes back after every
        batch, which costs time.
    A file is replaced in one piece: at any moment it is the old one or the new one. Raises OSError naming the file when
    it cannot be written, and then the old one is there and the model as it was; `ConfigError`, before the training
    begins, for a model that `save` cannot write. To go on with a training that was interrupted there is
    `BackupAndRestore`.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Frequency = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold=initial_value_threshold)
        self.filepath = os.fsdecode(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        endings = (WEIGHTS, KERAS_WEIGHTS) if save_weights_only else (MODEL,)
        if not self.filepath.endswith(endings):
            raise ValueError(
                f"Expected a filepath that ends in {' or '.join(endings)} with save_weights_only={save_weights_only}. "
                f"Received: filepath={self.filepath!r}"
            )
        _check_fields(self.filepath)
        self._frequency = SaveFrequency(save_freq)
        if self._frequency.every is not None and save_best_only and monitor.startswith("val_"):
            raise ValueError(
                "Expected a monitor that the logs of batches have, such as 'loss', with save_freq as a number and "
                f"save_best_only=True. Received: monitor={monitor!r}"
            )
        self._epoch = 0
        if self._frequency.every is not None:
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from gradloom.saving.model_file import saved_config

        if not self.save_weights_only:
            assert self.model is not None
            # A model that cannot be saved is refused before it is trained.
            saved_config(self.model)
        if self.save_best_only:
            super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._frequency.every is not None:
            return
        if self.save_best_only:
            super().on_epoch_end(epoch, logs)
        else:
            self._save(epoch, {} if logs is None else logs)

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        if not self._frequency.is_due():
            return
        fields = {"batch": batch + 1, **(logs or {})}
        if self.save_best_only:
            super().on_epoch_end(self._epoch, fields)
        else:
            self._save(self._epoch, fields)

    def observe(self, epoch: int, current: float, logs: Logs) -> None:
        if not self.is_better(current, self.best):
            if self.verbose:
                best = "" if self.best is None else f" than {self.best:g}"
                print(f"Epoch {epoch + 1}: {self.monitor} {current:g} is not better{best}")
            return
        self._save(epoch, logs)
        self.best = current

    def _save(self, epoch: int, logs: Mapping[str, Any]) -> None:
        from gradloom.runtime.files import make_folder

        assert self.model is not None
        try:
            path = self.filepath.format(**{**logs, "epoch": epoch + 1})
        except (KeyError, IndexError) as error:
            known = ", ".join(["epoch", *logs])
            raise ValueError(
                f"ModelCheckpoint: Expected fields among {known} in filepath. "
                f"Received: {error} in filepath={self.filepath!r}"
            ) from None
        make_folder(os.path.dirname(path))
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved to {path}")

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"batches": self._frequency.batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._frequency.batches = entry(state, "batches", int)


class _AnyLogs(dict[str, Any]):
    """Numbers of whatever name, as logs have them."""

    def __missing__(self, name: str) -> float:
        return 0.5


def _check_fields(filepath: str) -> None:
    """Raise an error for fields that no number can be put into."""
    try:
        filepath.format_map(_AnyLogs(epoch=1, batch=1))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            "ModelCheckpoint: Expected fields such as {epoch:02d} and {loss:.2f} in filepath, integers and floating-"
            f"point numbers. Received: filepath={filepath!r} ({error})"
        ) from None
