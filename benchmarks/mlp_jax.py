"""The MLP benchmark in JAX: one jitted call a step, and the whole epoch as one jitted `lax.scan`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlp_case import Case, Weights

Parameters = list[jax.Array]


def mean_loss(parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
    w1, b1, w2, b2 = parameters
    logits = jax.nn.relu(x @ w1 + b1) @ w2 + b2
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()


def sgd(parameters: Parameters, x: jax.Array, y: jax.Array, rate: float) -> tuple[Parameters, jax.Array]:
    """One step: the new parameters, and the sum of the losses."""
    loss, gradients = jax.value_and_grad(mean_loss)(parameters, x, y)
    return jax.tree.map(lambda p, g: p - rate * g, parameters, gradients), loss * len(y)


@partial(jax.jit, static_argnames=("size", "rate"), donate_argnums=0)
def step(state: Any, images: jax.Array, labels: jax.Array, order: jax.Array, *, size: int, rate: float) -> Any:
    """Train on the `size` samples at the state's position in `order`; the position stays on the device."""
    parameters, total, first = state
    rows = jax.lax.dynamic_slice(order, (first,), (size,))
    parameters, loss = sgd(parameters, images[rows], labels[rows], rate)
    return parameters, total + loss, first + size


@partial(jax.jit, static_argnames=("batch", "rate"), donate_argnums=0)
def epoch(
    parameters: Parameters, images: jax.Array, labels: jax.Array, order: jax.Array, *, batch: int, rate: float
) -> tuple[Parameters, jax.Array]:
    """Train on all samples in `order`; the rows of a batch are gathered inside the loop."""

    def body(carry: tuple[Parameters, jax.Array], rows: jax.Array) -> tuple[tuple[Parameters, jax.Array], None]:
        parameters, total = carry
        parameters, loss = sgd(parameters, images[rows], labels[rows], rate)
        return (parameters, total + loss), None

    full = len(order) // batch * batch
    (parameters, total), _ = jax.lax.scan(body, (parameters, jnp.zeros(())), order[:full].reshape(-1, batch))
    if full < len(order):
        (parameters, total), _ = body((parameters, total), order[full:])
    return parameters, total


class JaxPeer:
    """Mini-batch SGD with data and parameters on the device throughout."""

    def __init__(self, case: Case, images: np.ndarray, labels: np.ndarray) -> None:
        self.versions = {"jax": jax.__version__}
        self.case = case
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.key = jax.random.key(case.seed)
        self.parameters: Parameters = []

    def reset(self, weights: Weights) -> None:
        # A donated buffer is overwritten, and `asarray` may alias NumPy's memory: hence the copy.
        self.parameters = jax.block_until_ready([jnp.array(array, copy=True) for array in weights])

    def weights(self) -> Weights:
        return [np.asarray(array) for array in self.parameters]

    def order(self, shuffle: bool) -> jax.Array:
        if not shuffle:
            return jnp.arange(self.case.samples)
        self.key, key = jax.random.split(self.key)
        return jax.random.permutation(key, self.case.samples)


class StepPeer(JaxPeer):
    """One jitted call a step."""

    def fit(self, shuffle: bool) -> float:
        case = self.case
        total = jnp.zeros(())
        for _ in range(case.epochs):
            order = self.order(shuffle)
            state = (self.parameters, jnp.zeros(()), jnp.zeros((), jnp.int32))
            for first in range(0, case.samples, case.batch):
                size = min(case.batch, case.samples - first)
                state = step(state, self.images, self.labels, order, size=size, rate=case.learning_rate)
            self.parameters, total, _ = state
        jax.block_until_ready(self.parameters)
        return float(total) / case.samples


class ScanPeer(JaxPeer):
    """One jitted call an epoch."""

    def fit(self, shuffle: bool) -> float:
        case = self.case
        total = jnp.zeros(())
        for _ in range(case.epochs):
            self.parameters, total = epoch(
                self.parameters,
                self.images,
                self.labels,
                self.order(shuffle),
                batch=case.batch,
                rate=case.learning_rate,
            )
        jax.block_until_ready(self.parameters)
        return float(total) / case.samples


def build(case: Case, images: np.ndarray, labels: np.ndarray) -> JaxPeer:
    return StepPeer(case, images, labels)


def build_scan(case: Case, images: np.ndarray, labels: np.ndarray) -> JaxPeer:
    return ScanPeer(case, images, labels)
