"""A small training with everything that must come back after an interruption, and a digest of all it leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np

import gradloom as gl

SAMPLES, FEATURES, CLASSES = 70, 24, 4
BATCH_SIZE = 16
EPOCHS = 4


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, SAMPLES)
    return (rng.standard_normal((SAMPLES, FEATURES)) + np.eye(CLASSES, FEATURES)[y]).astype(np.float32), y


def new_model(width: int = 64) -> gl.Sequential:
    """Dropout, moving statistics, optimizer slots and a schedule: each has state of its own."""
    gl.utils.clear_session()
    gl.utils.set_random_seed(11)
    model = gl.Sequential(
        [
            gl.Input((FEATURES,)),
            gl.layers.Dense(width, activation="relu"),
            gl.layers.BatchNormalization(),
            gl.layers.Dropout(0.25),
            gl.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    rate = gl.optimizers.schedules.CosineDecay(0.01, 20)
    model.compile(gl.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model: gl.Sequential, callbacks: Iterable[gl.callbacks.Callback] = (), epochs: int = EPOCHS) -> str:
    """Train, shuffled and with validation; return the digest of weights, optimizer and history."""
    watching = gl.callbacks.EarlyStopping(patience=EPOCHS, restore_best_weights=True)
    history = model.fit(*data(), BATCH_SIZE, epochs, verbose=0, callbacks=[watching, *callbacks], validation_split=0.2)
    return digest(model, json.dumps(history.history))


def digest(model: gl.Sequential, more: str = "") -> str:
    assert model.optimizer is not None
    found = hashlib.sha256(more.encode())
    for variable in [*model.weights, *model.optimizer.variables]:
        found.update(variable.value.tobytes())
    return found.hexdigest()
