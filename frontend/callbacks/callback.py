"""The base of callbacks: hooks at the begin and end of training, epochs, batches and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom.model import Model

Logs = dict[str, float]
"""Losses and metrics by name: one dict for all callbacks, in which the later ones find what earlier ones add."""


class Callback:
    """Base of callbacks: override the hooks that are needed.

    `self.model` is the model, `self.params` says `epochs`, `steps`, `batch_size` and `verbose`. `logs` holds the
    running loss and metrics. Many batches run in one native call: a callback that overrides a batch hook has Python
    come back after every batch, which costs time. `self.model.stop_training = True` ends training after the batch.
    """

    runs_last = False
    """Whether its hooks are called after those of all other callbacks: for one that keeps what these have noted."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Model) -> None:
        """Called with the model before training."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called with what `fit` was told before training."""
        self.params = dict(params)

    def get_state(self) -> dict[str, Any]:
        """What a callback has to know to go on after an interruption, for `BackupAndRestore` to keep.

        Values are None, truth values, numbers, strings, NumPy arrays, and lists and dicts (by strings) of these. Keras
        has no such method: there, callbacks begin anew.
        """
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_state` returned: called after `on_train_begin`."""

    def close(self) -> None:
        """Called last, also when training was broken off."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called when `fit` starts."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called when `fit` ends, with the last epoch's logs."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called when epoch `epoch` (from 0) starts."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called when an epoch ends, after its validation: `logs` has `val_loss` and the like, too."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before batch `batch` (from 0) of an epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after a batch, with the epoch's running loss and metrics."""

    def on_progress(self, batch: int, logs: Logs | None = None) -> None:
        """Called about ten times a second while an epoch runs, with the number of its batches that are done.

        Keras has no such hook: it is for watching training without stopping after every batch. The model's weights are
        those of the epoch's begin, or newer ones.
        """

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called when `evaluate`, or an epoch's validation, starts."""

    def on_test_progress(self, batch: int, logs: Logs | None = None) -> None:
        """Called about ten times a second while testing runs, with the number of batches that are done."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called when `evaluate`, or an epoch's validation, ends."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))
"""The names of all hooks."""
