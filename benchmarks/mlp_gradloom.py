"""The MLP benchmark in Gradloom: the model and the call are those of the Keras version."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

import gradloom as gl
from mlp_case import SIZES, Case, Weights


class GradloomPeer:
    """The model of the benchmark, trained by `model.fit`."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.versions = {"gradloom": version("gradloom"), "llvmlite": version("llvmlite")}
        self.case, self.images, self.labels = case, images, labels
        gl.utils.set_random_seed(case.seed)
        layers = [
            gl.Input((SIZES[0],)),
            gl.layers.Dense(SIZES[1], activation="relu"),
            gl.layers.Dense(SIZES[2]),
        ]
        self.model = gl.Sequential(layers)
        self.model.compile(
            optimizer=gl.optimizers.SGD(case.learning_rate),
            loss=gl.losses.SparseCategoricalCrossentropy(from_logits=True),
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


def build(case: Case, images: np.ndarray, labels: np.ndarray) -> GradloomPeer:
    return GradloomPeer(case, images, labels)
