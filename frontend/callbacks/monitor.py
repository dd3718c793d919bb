"""What watches one number of the logs for getting better: the base of callbacks that stop, slow down or save by it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Real
from types import NoneType
from typing import Any

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.state import entry

MODES = ("auto", "min", "max")


def finite(number: Any, owner: str, argument: str) -> float:
    """Return a number as it is given; raises `ValueError` for what is none, or none that others compare with."""
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        raise ValueError(f"{owner}: Expected {argument} as a finite number. Received: {argument}={number!r}")
    return number  # type: ignore[return-value]


class MonitorCallback(Callback, ABC):
    """Compares `monitor` with the best so far at the end of each epoch.

    mode: "min" where less is better, "max" where more is, or "auto": less of a loss, and of a metric what its class
        says is better; ValueError, before the first epoch, for one that does not say, such as a function.
    NaN is no improvement.
    min_delta: by how much it has to be better. initial_value_threshold: what the first has to be better than.
    Raises ValueError after the first epoch for a `monitor` that this training never has, and names those that it has
    (Keras warns after each epoch and goes on). An epoch without it, for it had no validation, is passed over.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        min_delta: float = 0.0,
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"Expected mode as one of {', '.join(MODES)}. Received: mode={mode!r}")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(finite(min_delta, type(self).__name__, "min_delta"))
        self.initial_value_threshold = initial_value_threshold
        self.best = initial_value_threshold

    def on_train_begin(self, logs: Logs | None = None) -> None:
        assert self.model is not None
        if self.monitor.removeprefix("val_") in self.model.metrics_names:
            self._wants_more()  # what is wrong with `mode` is said before there is anything to lose

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = {} if logs is None else logs
        if self.monitor in logs:
            self.observe(epoch, logs[self.monitor], logs)
        elif self.monitor not in self._later_names():
            known = ", ".join(repr(name) for name in dict.fromkeys([*logs, *self._later_names()]))
            raise ValueError(
                f"{type(self).__name__}: Expected monitor as one of {known}. Received: monitor={self.monitor!r}"
            )

    @abstractmethod
    def observe(self, epoch: int, current: float, logs: Logs) -> None:
        """Take in the number that an epoch ended with."""

    def is_better(self, current: float, reference: float | None) -> bool:
        """Whether `current` is better than `reference` by more than `min_delta`, or the first.

        NaN is never better, and any number is better than NaN.
        """
        if math.isnan(current):
            return False
        if reference is None or math.isnan(reference):
            return True
        if self._wants_more():
            return current - self.min_delta > reference
        return current + self.min_delta < reference

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.best = entry(state, "best", Real, NoneType)

    def _later_names(self) -> list[str]:
        """The names that come with a validation, which may be due in other epochs only."""
        assert self.model is not None
        return [f"val_{name}" for name in self.model.metrics_names] if self.params.get("do_validation") else []

    def _wants_more(self) -> bool:
        if self.mode == "auto":
            self.mode = self._direction()
        return self.mode == "max"

    def _direction(self) -> str:
        assert self.model is not None
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return "min"
        better = {known: metric.better for known, metric in self.model.setup.named_metrics()}.get(name)
        if better is None:
            raise ValueError(
                f"{type(self).__name__}: Expected mode='min' or mode='max' for monitor={self.monitor!r}, of which it "
                "is not known whether more or less is better. Received: mode='auto'"
            )
        return better
