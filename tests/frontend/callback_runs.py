"""Trainings that take a moment, with logs that a test makes up, and what they leave: what tests of callbacks share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradloom as gl

X = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)

FILE = "checkpoint.safetensors"
"""What `BackupAndRestore` writes in its folder."""


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


class Interrupt(gl.callbacks.Callback):
    """Breaks training off after so many steps."""

    runs_last = True

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == self.steps:  # type: ignore[union-attr]
            raise KeyboardInterrupt


def run(
    callbacks: Any, values: Sequence[float], name: str = "loss", model: gl.Sequential | None = None, **options: Any
) -> gl.callbacks.History:
    """Train for as many epochs as there are values of `name`."""
    model = new_model() if model is None else model
    given = [Logs(name, values), *([callbacks] if isinstance(callbacks, gl.callbacks.Callback) else callbacks)]
    return model.fit(X, Y, batch_size=12, epochs=len(values), verbose=0, callbacks=given, **options)


def everything(folder: Path, log: str, monitor: str = "val_accuracy") -> list[gl.callbacks.Callback]:
    """A callback of each kind that has a state, or changes the model's."""
    return [
        gl.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        gl.callbacks.ReduceLROnPlateau("loss", factor=0.7, patience=1, min_delta=0.05),
        gl.callbacks.EarlyStopping(monitor, patience=3, restore_best_weights=True),
        gl.callbacks.CSVLogger(folder / log),
        gl.callbacks.ModelCheckpoint(folder / f"{log}.safetensors", "loss", 0, True, True),
    ]


SGD, ADAM = "momentum and a rate that callbacks set", "Adam with weight decay and a schedule"


def network(kind: str) -> gl.Sequential:
    gl.utils.clear_session()
    gl.utils.set_random_seed(5)
    layers = gl.layers
    model = gl.Sequential(
        [
            layers.Dense(8, activation="relu", input_shape=(4,)),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(2, activation="softmax"),
        ]
    )
    optimizer: Any = gl.optimizers.SGD(0.1, momentum=0.9)
    if kind == ADAM:
        rate = gl.optimizers.schedules.PolynomialDecay(0.05, 15)
        optimizer = gl.optimizers.Adam(rate, weight_decay=0.01, amsgrad=True)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def bits(model: gl.Sequential) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]
