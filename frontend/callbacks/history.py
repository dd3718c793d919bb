"""What each epoch gave, in lists: what `fit` returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.state import entry


class History(Callback):
    """Records loss and metrics of each epoch; `fit` returns it.

    `history.history["loss"]` is a list with one number per epoch, `history.epoch` the epochs' numbers. Where
    `BackupAndRestore` goes on with an interrupted training, the epochs before are among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.epoch = []

    def get_state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "history": self.history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        history = entry(state, "history", dict)
        self.history = {name: entry(history, name, list) for name in history}
        self.epoch = entry(state, "epoch", list)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
