"""The training run that every framework of the MLP benchmark performs: data, initial weights, and the exact result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

SIZES = (784, 128, 10)
"""Features, hidden units with ReLU, classes."""

CLASS_SHADE = 0.5
"""How much the pixels of two classes differ; the rest of an image is noise, so that the loss falls slowly."""

Weights = list[np.ndarray]
"""W1 [784,128], b1 [128], W2 [128,10], b2 [10], all float32."""


@dataclass(frozen=True)
class Case:
    """One training run: plain SGD on mean softmax cross-entropy, a new order of the samples in each epoch."""

    samples: int
    batch: int
    epochs: int = 2
    learning_rate: float = 0.003
    seed: int = 0


class Peer(Protocol):
    """A framework with the model, the data and its compiled code at hand."""

    versions: dict[str, str]

    def reset(self, weights: Weights) -> None:
        """Start again from these weights."""

    def fit(self, shuffle: bool) -> float:
        """Train for all epochs, and return the mean loss that the last one saw: everything in here is timed."""

    def weights(self) -> Weights:
        """The weights now, in the shapes of `Weights`."""


def make_data(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images f32[n,784] within 0…1, half of their pixels black as in Fashion-MNIST, and labels i32[n]."""
    rng = np.random.default_rng(case.seed)
    labels = rng.integers(0, SIZES[2], case.samples, dtype=np.int32)
    shades = CLASS_SHADE * rng.random((SIZES[2], SIZES[0]), dtype=np.float32)
    images = rng.random((case.samples, SIZES[0]), dtype=np.float32)
    images *= 1 - CLASS_SHADE
    images += shades[labels]
    images *= rng.integers(0, 2, SIZES[0], dtype=np.int32).astype(np.float32)
    return images, labels


def save_data(case: Case, folder: Path) -> None:
    """Write the data where every worker reads the same."""
    images, labels = make_data(case)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def load_data(case: Case, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the first `case.samples` samples that `save_data` wrote."""
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    return images[: case.samples], labels[: case.samples]


def initial_weights(case: Case) -> Weights:
    """Glorot-uniform kernels and zero biases."""
    rng = np.random.default_rng(case.seed + 1)
    weights: Weights = []
    for rows, columns in pairwise(SIZES):
        limit = np.sqrt(6 / (rows + columns))
        weights.append(rng.uniform(-limit, limit, (rows, columns)).astype(np.float32))
        weights.append(np.zeros(columns, np.float32))
    return weights


def train_exactly(case: Case, images: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """The same training in float64 without shuffling: the mean loss of the last epoch, and the final weights."""
    w1, b1, w2, b2 = (array.astype(np.float64) for array in initial_weights(case))
    one_hot = np.eye(SIZES[2])
    mean = 0.0
    for _ in range(case.epochs):
        total = 0.0
        for first in range(0, case.samples, case.batch):
            x = images[first : first + case.batch].astype(np.float64)
            target = one_hot[labels[first : first + case.batch]]
            hidden = np.maximum(x @ w1 + b1, 0)
            logits = hidden @ w2 + b2
            log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            total -= float((log_p * target).sum())
            d_logits = (np.exp(log_p) - target) / len(x)
            d_hidden = (d_logits @ w2.T) * (hidden > 0)
            w2 -= case.learning_rate * (hidden.T @ d_logits)
            b2 -= case.learning_rate * d_logits.sum(0)
            w1 -= case.learning_rate * (x.T @ d_hidden)
            b1 -= case.learning_rate * d_hidden.sum(0)
        mean = total / case.samples
    return mean, [w1, b1, w2, b2]
