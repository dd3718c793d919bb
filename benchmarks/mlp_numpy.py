"""The MLP benchmark in NumPy: float32 throughout, every result written into memory that is allocated once."""

from __future__ import annotations

import numpy as np

from mlp_case import SIZES, Case, Weights


class Step:
    """A training step on mini-batches of one size, with the buffers it needs."""

    def __init__(self, batch: int) -> None:
        features, hidden, classes = SIZES
        self.batch = batch
        self.x = np.empty((batch, features), np.float32)
        self.hidden = np.empty((batch, hidden), np.float32)
        self.d_hidden = np.empty((batch, hidden), np.float32)
        self.logits = np.empty((batch, classes), np.float32)
        self.column = np.empty((batch, 1), np.float32)
        self.w1_step = np.empty((features, hidden), np.float32)
        self.w2_step = np.empty((hidden, classes), np.float32)
        self.lines = np.arange(batch)

    def __call__(self, weights: Weights, x: np.ndarray, labels: np.ndarray, rate: np.float32) -> float:
        """Update `weights` in place and return the sum of the losses."""
        w1, b1, w2, b2 = weights
        hidden, d_hidden, logits, column = self.hidden, self.d_hidden, self.logits, self.column
        np.dot(x, w1, out=hidden)
        hidden += b1
        np.maximum(hidden, 0, out=hidden)
        np.dot(hidden, w2, out=logits)
        logits += b2
        logits -= logits.max(axis=1, keepdims=True, out=column)
        picked = logits[self.lines, labels]
        np.exp(logits, out=logits)
        logits.sum(axis=1, keepdims=True, out=column)
        loss = float(np.log(column).sum() - picked.sum())
        # From here `logits` is rate/batch times the cotangent of the logits, so that no pass scales the gradients.
        logits /= column
        logits[self.lines, labels] -= 1
        logits *= rate / np.float32(self.batch)
        np.dot(logits, w2.T, out=d_hidden)
        np.multiply(d_hidden, hidden > 0, out=d_hidden)
        b1 -= d_hidden.sum(axis=0)
        b2 -= logits.sum(axis=0)
        outer = np.multiply if self.batch == 1 else np.dot
        outer(hidden.T, logits, out=self.w2_step)
        w2 -= self.w2_step
        outer(x.T, d_hidden, out=self.w1_step)
        w1 -= self.w1_step
        return loss


class NumPyPeer:
    """Mini-batch SGD as a loop over `Step`."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.versions = {"numpy": np.__version__}
        self.case, self.images, self.labels = case, images, labels
        self.steps = {size: Step(size) for size in {min(case.batch, case.samples), case.samples % case.batch} if size}
        self.rng = np.random.default_rng(case.seed)
        self.state: Weights = []

    def reset(self, weights: Weights) -> None:
        self.state = [array.copy() for array in weights]

    def weights(self) -> Weights:
        return self.state

    def fit(self, shuffle: bool) -> float:
        case, rate = self.case, np.float32(self.case.learning_rate)
        total = 0.0
        for _ in range(case.epochs):
            order = self.rng.permutation(case.samples) if shuffle else np.arange(case.samples)
            total = 0.0
            for first in range(0, case.samples, case.batch):
                rows = order[first : first + case.batch]
                step = self.steps[len(rows)]
                np.take(self.images, rows, axis=0, out=step.x, mode="clip")  # "clip": "raise" copies through a buffer
                total += step(self.state, step.x, self.labels[rows], rate)
        return total / case.samples


def build(case: Case, images: np.ndarray, labels: np.ndarray) -> NumPyPeer:
    return NumPyPeer(case, images, labels)
