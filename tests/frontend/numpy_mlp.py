"""A multilayer perceptron written out in NumPy, in float64, without Gradloom: what `fit` is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Sgd:
    def __init__(self, learning_rate: float, momentum: float = 0.0, nesterov: bool = False) -> None:
        self.learning_rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov
        self.velocity: dict[int, np.ndarray] = {}

    def step(self, weights: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        for n, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            step = -self.learning_rate * g
            self.velocity[n] = self.momentum * self.velocity.get(n, np.zeros_like(w)) + step
            w += self.momentum * self.velocity[n] + step if self.nesterov else self.velocity[n]


class Adam:
    def __init__(self, learning_rate: float = 1e-3) -> None:
        self.learning_rate, self.t = learning_rate, 0
        self.moments: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def step(self, weights: list[np.ndarray], gradients: list[np.ndarray]) -> None:
        self.t += 1
        for n, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            first, second = self.moments.get(n, (np.zeros_like(w), np.zeros_like(w)))
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
            self.moments[n] = first, second
            corrected = self.learning_rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
            w -= corrected * first / (np.sqrt(second) + 1e-7)


@dataclass
class Mlp:
    """Dense(relu), Dense(softmax) with sparse categorical cross-entropy: weights [W1, b1, W2, b2]."""

    weights: list[np.ndarray]
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.weights = [w.astype(np.float64) for w in self.weights]

    def predict(self, x: np.ndarray) -> np.ndarray:
        w1, b1, w2, b2 = self.weights
        return softmax(np.maximum(x @ w1 + b1, 0) @ w2 + b2)

    def figures(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
        """Mean weighted loss and accuracy."""
        p = self.predict(x)
        losses = -np.log(p[np.arange(len(y)), y]) * (1.0 if weight is None else weight)
        return float(losses.mean()), float((p.argmax(axis=1) == y).mean())

    def gradients(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
        w1, b1, w2, b2 = self.weights
        z = x @ w1 + b1
        h = np.maximum(z, 0)
        delta = softmax(h @ w2 + b2)
        delta[np.arange(len(y)), y] -= 1
        delta *= (weight / len(y))[:, None]
        back = (delta @ w2.T) * (z > 0)
        return [x.T @ back, back.sum(axis=0), h.T @ delta, delta.sum(axis=0)]

    def fit(
        self,
        x: np.ndarray,
        y: np.ndarray,
        optimizer: Sgd | Adam,
        batch_size: int,
        epochs: int,
        weight: np.ndarray | None = None,
    ) -> None:
        """Train on batches in order; record each epoch's running loss and accuracy, taken before each step."""
        x, weight = x.astype(np.float64), np.ones(len(y)) if weight is None else weight
        for _ in range(epochs):
            loss = right = 0.0
            for start in range(0, len(y), batch_size):
                rows = slice(start, start + batch_size)
                mean, accuracy = self.figures(x[rows], y[rows], weight[rows])
                loss, right = loss + mean * len(y[rows]), right + accuracy * len(y[rows])
                optimizer.step(self.weights, self.gradients(x[rows], y[rows], weight[rows]))
            self.losses.append(loss / len(y))
            self.accuracies.append(right / len(y))
