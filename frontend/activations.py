"""Activation functions by Keras's names, arguments and defaults; each takes and returns a tensor of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradloom import ops
from gradloom.compiler.ir import Value
from gradloom.lookup import Catalogue, not_understood

Activation = Callable[[Any], Value]


def linear(x: Any) -> Any:
    """x"""
    return x


def relu(x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Value:
    """x where x ≥ threshold, negative_slope · (x − threshold) below, at most `max_value`."""
    if threshold:
        above = ops.where(ops.less_equal(x, threshold), 0.0, x)  # a NaN is passed on
        y = above if not negative_slope else above - negative_slope * ops.relu(threshold - x)
    else:
        y = ops.leaky_relu(x, negative_slope) if negative_slope else ops.relu(x)
    return y if max_value is None else ops.minimum(y, max_value)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Value:
    """x where x > 0, negative_slope · x elsewhere."""
    return ops.leaky_relu(x, negative_slope)


def relu6(x: Any) -> Value:
    """min(max(x, 0), 6)"""
    return ops.relu6(x)


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where x > 0, alpha · (eˣ − 1) elsewhere (Clevert et al. 2015)."""
    return ops.elu(x, alpha)


def selu(x: Any) -> Value:
    """1.0507 · elu(x, 1.6733) (Klambauer et al. 2017)."""
    return ops.selu(x)


def gelu(x: Any, approximate: bool = False) -> Value:
    """x · Φ(x), Φ the normal distribution function, or its tanh approximation (Hendrycks & Gimpel 2016)."""
    return ops.gelu(x, approximate)


def sigmoid(x: Any) -> Value:
    """1 / (1 + e⁻ˣ)"""
    return ops.sigmoid(x)


def hard_sigmoid(x: Any) -> Value:
    """relu6(x + 3) / 6"""
    return ops.hard_sigmoid(x)


def silu(x: Any) -> Value:
    """x · sigmoid(x), also called swish (Ramachandran et al. 2017)."""
    return ops.silu(x)


def softmax(x: Any, axis: int = -1) -> Value:
    """eˣ / Σ eˣ along `axis`."""
    return ops.softmax(x, axis)


def log_softmax(x: Any, axis: int = -1) -> Value:
    """x − log Σ eˣ along `axis`."""
    return ops.log_softmax(x, axis)


def softplus(x: Any) -> Value:
    """log(1 + eˣ)"""
    return ops.softplus(x)


def softsign(x: Any) -> Value:
    """x / (1 + |x|)"""
    return ops.softsign(x)


def tanh(x: Any) -> Value:
    """Hyperbolic tangent."""
    return ops.tanh(x)


def exponential(x: Any) -> Value:
    """eˣ"""
    return ops.exp(x)


swish = silu

_FUNCTIONS: tuple[Callable[..., Value], ...] = (
    linear,
    relu,
    leaky_relu,
    relu6,
    elu,
    selu,
    gelu,
    sigmoid,
    hard_sigmoid,
    silu,
    softmax,
    log_softmax,
    softplus,
    softsign,
    tanh,
    exponential,
)
_CATALOGUE: Catalogue[Callable[..., Value]] = Catalogue(
    "activation", {function.__name__: function for function in _FUNCTIONS} | {"swish": silu}
)


def get(identifier: str | Activation | None) -> Activation:
    """Return the activation of a name, or the callable itself; None is `linear`.

    Raises `ValueError` naming the nearest known activations for an unknown name.
    """
    if identifier is None:
        return linear
    if isinstance(identifier, str):
        return _CATALOGUE.find(identifier)
    if callable(identifier):
        return identifier
    raise not_understood("activation", identifier)


def serialize(activation: Activation) -> str | Activation:
    """Return the name by which `get` finds the activation, or a function of the user's own as it is."""
    name = getattr(activation, "__name__", "")
    return name if activation in _FUNCTIONS else activation
