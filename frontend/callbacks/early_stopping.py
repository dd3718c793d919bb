"""Ending training when a monitored number no longer gets better."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from types import NoneType
from typing import Any

import numpy as np

from gradloom.callbacks.callback import Logs
from gradloom.callbacks.frequency import count
from gradloom.callbacks.monitor import MonitorCallback, finite
from gradloom.callbacks.state import entry


class EarlyStopping(MonitorCallback):
    """Ends training after `patience` epochs in which `monitor` did not get better by more than `min_delta`.

    verbose: 1 to say when. mode, and a `monitor` that there is not: as `MonitorCallback` says.
    baseline: patience ends unless this is reached, too.
    restore_best_weights: whether the model has the weights of its best epoch in the end, also where it was not stopped.
    start_from_epoch: epochs, counted from 0, before this one are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = count(patience, "EarlyStopping", "patience")
        self.verbose = verbose
        self.baseline = None if baseline is None else finite(baseline, "EarlyStopping", "baseline")
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = count(start_from_epoch, "EarlyStopping", "start_from_epoch")
        self._begin()

    def _begin(self) -> None:
        self.best = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] | None = None
        self.stopped_epoch = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._begin()

    def observe(self, epoch: int, current: float, logs: Logs) -> None:
        if epoch < self.start_from_epoch:
            return
        assert self.model is not None
        self.wait += 1
        is_best = self.is_better(current, self.best)
        if self.restore_best_weights and (is_best or self.best_weights is None):
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        if is_best:
            self.best, self.best_epoch = current, epoch
            if self.baseline is None or self.is_better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        assert self.model is not None
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: stopped, for {self.monitor} did not get better")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Weights are again those of the best epoch, {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:
        names = ("best_epoch", "best_weights", "stopped_epoch", "wait")
        return super().get_state() | {name: getattr(self, name) for name in names}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.best_epoch, self.stopped_epoch, self.wait = (
            entry(state, name, Integral) for name in ("best_epoch", "stopped_epoch", "wait")
        )
        weights = entry(state, "best_weights", list, NoneType)
        if weights is not None:
            assert self.model is not None
            expected = [weight.shape for weight in self.model.weights]
            if (received := [np.shape(weight) for weight in weights]) != expected:
                raise ValueError(f"Expected best_weights of the shapes {expected}. Received: {received}")
        self.best_weights = weights
