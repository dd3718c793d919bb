"""The MLP benchmark in Keras 3 on JAX: `model.fit`, compiled, without a progress bar."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np

from mlp_case import SIZES, Case, Weights


class KerasPeer:
    """The model of the benchmark; it ends in logits, whose cross-entropy is the exact and the fast one."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.versions = {"keras": keras.__version__, "keras backend": keras.backend.backend()}
        self.case, self.images, self.labels = case, images, labels
        keras.utils.set_random_seed(case.seed)
        layers = [
            keras.Input((SIZES[0],)),
            keras.layers.Dense(SIZES[1], activation="relu"),
            keras.layers.Dense(SIZES[2]),
        ]
        self.model = keras.Sequential(layers)
        self.model.compile(
            optimizer=keras.optimizers.SGD(case.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=True,
        )

    def reset(self, weights: Weights) -> None:
        self.model.set_weights(weights)

    def weights(self) -> Weights:
        return [np.asarray(array) for array in self.model.get_weights()]

    def fit(self, shuffle: bool) -> float:
        case = self.case
        history = self.model.fit(
            self.images, self.labels, batch_size=case.batch, epochs=case.epochs, shuffle=shuffle, verbose=0
        )
        return float(history.history["loss"][-1])


def build(case: Case, images: np.ndarray, labels: np.ndarray) -> KerasPeer:
    return KerasPeer(case, images, labels)
