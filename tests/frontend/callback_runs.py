"""Trainings that take a moment, with logs that a test makes up: what tests of callbacks run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import gradloom as gl

X = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def new_model(
    optimizer: Any = "sgd", metrics: Any = ("accuracy",), loss: Any = "sparse_categorical_crossentropy"
) -> gl.Sequential:
    model = gl.Sequential([gl.layers.Dense(2, activation="softmax", input_shape=(4,))])
    model.compile(optimizer, loss, metrics=metrics)
    return model


class Logs(gl.callbacks.Callback):
    """Puts numbers into the logs, one for each epoch, in place of what was measured."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        super().__init__()
        self.name = name
        self.values = values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]


def run(
    callbacks: Any, values: Sequence[float], name: str = "loss", model: gl.Sequential | None = None, **options: Any
) -> gl.callbacks.History:
    """Train for as many epochs as there are values of `name`."""
    model = new_model() if model is None else model
    given = [Logs(name, values), *([callbacks] if isinstance(callbacks, gl.callbacks.Callback) else callbacks)]
    return model.fit(X, Y, batch_size=12, epochs=len(values), verbose=0, callbacks=given, **options)
