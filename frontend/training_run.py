"""What one call of `fit` does: epochs of training, each with its validation, and callbacks around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gradloom.callbacks.callback_list import CallbackList
from gradloom.compiler.errors import NumericsError
from gradloom.epochs import Testing, Training

if TYPE_CHECKING:
    from gradloom.model import Model
    from gradloom.training_setup import TrainingSetup


class TrainingRun:
    """The epochs of one `fit`, from where it begins, or from where another one was interrupted.

    epoch: the one that is on, or comes next; how far it got is `training.batches`. end: the one that is no longer
    trained. logs: those of the last epoch.
    """

    def __init__(
        self,
        model: Model,
        training: Training,
        testing: Testing | None,
        callbacks: CallbackList,
        epochs: range,
        validation_freq: int | Sequence[int],
    ) -> None:
        self.model = model
        self.training = training
        self.callbacks = callbacks
        self.epoch = epochs.start
        self.logs: dict[str, float] = {}
        self._testing = testing
        self.end = epochs.stop
        self._validation_freq = validation_freq

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """Return nothing: a copy of the model is not being trained."""

    @property
    def setup(self) -> TrainingSetup:
        """What the model was compiled with."""
        return self.model.setup

    def run(self) -> None:
        """Train to the end, or until the model's `stop_training`."""
        around, self.model.training_run = self.model.training_run, self
        try:
            self.callbacks.call("on_train_begin", {})
            # An epoch that another run was interrupted in is finished, also if training is to stop after it.
            while self.epoch < self.end and (self.training.batches or not self.model.stop_training):
                self._run_epoch()
            self.callbacks.call("on_train_end", self.logs)
        finally:
            self.model.training_run = around
            self.callbacks.close()

    def _run_epoch(self) -> None:
        epoch = self.epoch
        self.callbacks.call("on_epoch_begin", epoch, {})
        logs = self.training.run_epoch(self.callbacks, epoch)
        if self._testing is not None and _is_due(self._validation_freq, epoch):
            logs |= {f"val_{name}": value for name, value in self._validate(self._testing).items()}
        self.epoch, self.logs = epoch + 1, logs
        self.callbacks.call("on_epoch_end", epoch, logs)

    def _validate(self, testing: Testing) -> dict[str, float]:
        try:
            return testing.run(self.callbacks)
        except NumericsError as error:
            error.args = (f"Validation after epoch {self.epoch + 1}: {error.args[0]}",)
            raise


def _is_due(frequency: int | Sequence[int], epoch: int) -> bool:
    """Whether validation follows epoch `epoch`, counted from 0."""
    if isinstance(frequency, (int, np.integer)):
        return (epoch + 1) % int(frequency) == 0
    return epoch + 1 in frequency
