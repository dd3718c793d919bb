"""Darknet's activation functions under the names of its cfg files, with its own constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradloom import ops
from gradloom.compiler.ir import Value


def linear(x: Any) -> Any:
    """x"""
    return x


def logistic(x: Any) -> Value:
    """1 / (1 + e⁻ˣ)"""
    return ops.sigmoid(x)


def loggy(x: Any) -> Value:
    """2 / (1 + e⁻ˣ) − 1"""
    return 2.0 * ops.sigmoid(x) - 1.0


def relu(x: Any) -> Value:
    """max(x, 0)"""
    return ops.relu(x)


def relu6(x: Any) -> Value:
    """min(max(x, 0), 6)"""
    return ops.relu6(x)


def elu(x: Any) -> Value:
    """x where x ≥ 0, eˣ − 1 elsewhere."""
    return ops.elu(x)


def selu(x: Any) -> Value:
    """1.0507·x where x ≥ 0, 1.0507·1.6732·(eˣ − 1) elsewhere: the constants are rounded, other than Keras's."""
    return 1.0507 * ops.elu(x, 1.6732)


def relie(x: Any) -> Value:
    """x where x > 0, 0.01·x elsewhere."""
    return ops.leaky_relu(x, 0.01)


def ramp(x: Any) -> Value:
    """1.1·x where x > 0, 0.1·x elsewhere: max(x, 0) + 0.1·x."""
    return ops.add(ops.relu(x), ops.multiply(x, 0.1))


def leaky(x: Any) -> Value:
    """x where x > 0, 0.1·x elsewhere."""
    return ops.leaky_relu(x, 0.1)


def tanh(x: Any) -> Value:
    """Hyperbolic tangent."""
    return ops.tanh(x)


def plse(x: Any) -> Value:
    """0.125·x + 0.5 within [−4, 4], of slope 0.01 outside: a logistic function in three pieces."""
    middle = 0.125 * x + 0.5
    return ops.where(
        ops.less(x, -4.0), 0.01 * (x + 4.0), ops.where(ops.greater(x, 4.0), 0.01 * (x - 4.0) + 1.0, middle)
    )


def stair(x: Any) -> Value:
    """Steps of slope 0 and 1 in turn: ⌊x/2⌋ where ⌊x⌋ is even, ⌊x/2⌋ + x − ⌊x⌋ where it is odd."""
    floor, half = ops.floor(x), ops.floor(0.5 * x)
    return ops.where(ops.equal(floor, 2.0 * half), half, half + (x - floor))


def hardtan(x: Any) -> Value:
    """x cut off at −1 and 1."""
    return ops.clip(x, -1.0, 1.0)


def lhtan(x: Any) -> Value:
    """x within [0, 1], of slope 0.001 outside."""
    above = ops.where(ops.greater(x, 1.0), 0.001 * (x - 1.0) + 1.0, x)
    return ops.where(ops.less(x, 0.0), 0.001 * x, above)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (
        elu,
        hardtan,
        leaky,
        lhtan,
        linear,
        loggy,
        logistic,
        plse,
        ramp,
        relie,
        relu,
        relu6,
        selu,
        stair,
        tanh,
    )
}
"""By the name that stands in a cfg file."""
