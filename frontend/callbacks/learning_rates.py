"""Learning rates that change from epoch to epoch: by a function of the epoch, or where training gets no further."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.frequency import count
from gradloom.callbacks.monitor import MonitorCallback, finite
from gradloom.callbacks.state import entry
from gradloom.schedules import LearningRateSchedule

RATE = "learning_rate"
"""The name in the logs, and in the optimizer."""


class LearningRateScheduler(Callback):
    """Sets the learning rate at the begin of each epoch to `schedule(epoch, learning_rate)`, or `schedule(epoch)`.

    Epochs count from 0; the rate given is the one so far. The logs have it as "learning_rate". verbose: 1 to print it.
    For a rate that changes with each step see `gl.optimizers.schedules`. Raises TypeError for what is no number, and
    for an optimizer that has such a schedule.
    """

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        super().__init__()
        if isinstance(schedule, LearningRateSchedule):
            name = type(schedule).__name__
            raise TypeError(
                "LearningRateScheduler: Expected a function of the epoch; a schedule of steps is the optimizer's: "
                f"SGD(learning_rate={name}(…)). Received: schedule={schedule!r}"
            )
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: Expected a function of the epoch. Received: schedule={schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        rate: Any = self.schedule(epoch, _rate(self.model)) if self._takes_rate else self.schedule(epoch)
        if isinstance(rate, np.ndarray) and rate.ndim == 0:
            rate = rate[()]
        if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)):
            raise TypeError(f"LearningRateScheduler: Expected a number from schedule(epoch). Received: {rate!r}")
        _set_rate(self.model, float(rate))
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {_rate(self.model):g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs[RATE] = _rate(self.model)


class ReduceLROnPlateau(MonitorCallback):
    """Multiplies the learning rate by `factor` after `patience` epochs in which `monitor` did not get better.

    By more than `min_delta`, that is. verbose: 1 to say when. mode, and a `monitor` that there is not: as
    `MonitorCallback` says. cooldown: epochs after a reduction that do not count. min_lr: the least rate that it sets.
    The logs have the rate as "learning_rate".
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 <= finite(factor, "ReduceLROnPlateau", "factor") < 1:
            raise ValueError(f"ReduceLROnPlateau: Expected factor in [0, 1). Received: factor={factor!r}")
        self.factor = factor
        self.patience = count(patience, "ReduceLROnPlateau", "patience")
        self.verbose = verbose
        self.cooldown = count(cooldown, "ReduceLROnPlateau", "cooldown")
        self.min_lr = finite(min_lr, "ReduceLROnPlateau", "min_lr")
        self._begin()

    def _begin(self) -> None:
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        super().on_train_begin(logs)
        self._begin()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs[RATE] = _rate(self.model)
        super().on_epoch_end(epoch, logs)

    def observe(self, epoch: int, current: float, logs: Logs) -> None:
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_better(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        rate = _rate(self.model)
        if rate <= np.float32(self.min_lr):
            return
        _set_rate(self.model, max(rate * self.factor, self.min_lr))
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate reduced to {_rate(self.model):g}")
        self.cooldown_counter = self.cooldown
        self.wait = 0

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"cooldown_counter": self.cooldown_counter, "wait": self.wait}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self.cooldown_counter, self.wait = (entry(state, name, Integral) for name in ("cooldown_counter", "wait"))


def _rate(model: Any) -> float:
    return float(model.optimizer.learning_rate)


def _set_rate(model: Any, rate: float) -> None:
    model.optimizer.learning_rate = rate


def _takes_two(schedule: Callable[..., float]) -> bool:
    """Whether a function takes the rate beside the epoch; what has no signature is asked with the epoch alone."""
    try:
        signature = inspect.signature(schedule)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind(0, 0.0)
    except TypeError:
        return False
    return True
