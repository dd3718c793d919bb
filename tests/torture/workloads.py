"""Networks and data that the children of the torture tests train and predict with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

import gradloom as gl
from gradloom import layers
from gradloom.compiler.llvm import codegen
from gradloom.runtime import cache

CLASSES = 10


def dense_network(width: int = 32) -> gl.Sequential:
    """Dense layers with dropout and normalization, on rows of 16 features."""
    return gl.Sequential(
        [
            layers.Dense(width, activation="relu", input_shape=(16,)),
            layers.Dropout(0.2),
            layers.BatchNormalization(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def wide_network() -> gl.Sequential:
    """A dense network that is large enough to run on several threads."""
    return dense_network(512)


def convolutional_network() -> gl.Sequential:
    """Two convolutions with normalization, pooling and dropout, on images of 10 × 10 pixels."""
    return gl.Sequential(
        [
            layers.Conv2D(16, 3, padding="same", use_bias=False, input_shape=(10, 10, 3)),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Dropout(0.3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


NETWORKS: dict[str, Callable[[], gl.Sequential]] = {
    "dense": dense_network,
    "wide": wide_network,
    "convolutional": convolutional_network,
}


def compiled_network(name: str, optimizer: gl.optimizers.Optimizer | str = "adam") -> gl.Sequential:
    """The network of that name with the weights of seed 0, ready to be trained."""
    gl.utils.clear_session()
    gl.utils.set_random_seed(0)
    model = NETWORKS[name]()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def samples(model: gl.Sequential, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features that fit the model, and labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *model.input_shape[1:])).astype(np.float32), rng.integers(0, CLASSES, count)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A digest of arrays, bit by bit."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return result.hexdigest()


class Outcome(NamedTuple):
    """What a process computed, and what it found in the cache."""

    results: str
    hits: int
    misses: int
    compilations: int


def work() -> Outcome:
    """Train and predict with a small network, and differentiate a function."""
    before, compiled = cache.info(), codegen.compilations
    model = compiled_network("dense")
    x, y = samples(model, 64)
    model.fit(x, y, epochs=2, verbose=0)
    value, slope = gl.value_and_grad(lambda v: gl.ops.sum(gl.ops.tanh(v) * v))(x)
    results = digest([model.predict(x), *model.get_weights(), np.asarray(value), slope])
    after = cache.info()
    return Outcome(results, after.hits - before.hits, after.misses - before.misses, codegen.compilations - compiled)
