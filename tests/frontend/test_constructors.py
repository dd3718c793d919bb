"""Constructors: a wrong argument is named with the class that was to be made, and the nearest right argument."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import gradloom as gl
from gradloom import initializers, layers, losses, metrics, optimizers


@pytest.mark.parametrize(
    ("make", "made", "nearest", "received"),
    [
        (lambda: layers.Dense(3, activaton="relu"), "Dense", "activation", "activaton"),
        (lambda: layers.Dense(3, nmae="first"), "Dense", "name", "nmae"),
        (lambda: layers.Dense(unit=3), "Dense", "units", "unit"),
        (lambda: layers.Flatten(input_shap=(3,)), "Flatten", "input_shape", "input_shap"),
        (lambda: layers.Conv2D(3, kernel_sze=3), "Conv2D", "kernel_size", "kernel_sze"),
        (lambda: layers.MaxPooling2D(2, stride=1), "MaxPooling2D", "strides", "stride"),
        (lambda: gl.Sequential([], nam="x"), "Sequential", "name", "nam"),
        (lambda: losses.MeanSquaredError(redution="sum"), "MeanSquaredError", "reduction", "redution"),
        (lambda: metrics.BinaryAccuracy(treshold=0.3), "BinaryAccuracy", "threshold", "treshold"),
        (lambda: optimizers.Adam(leraning_rate=0.1), "Adam", "learning_rate", "leraning_rate"),
        (lambda: initializers.RandomNormal(std_dev=0.1), "RandomNormal", "stddev", "std_dev"),
        (lambda: optimizers.schedules.CosineDecay(1.0, 5, alfa=1), "CosineDecay", "alpha", "alfa"),
    ],
)
def test_a_wrong_argument(make: Callable[[], Any], made: str, nearest: str, received: str) -> None:
    message = rf"^Unknown argument of {made}\. Did you mean '{nearest}'.*Received: '{received}'"
    with pytest.raises(TypeError, match=message):
        make()


def test_all_arguments_are_listed() -> None:
    with pytest.raises(TypeError, match=r"Expected one of: dtype, input_dim, input_shape, name, trainable\."):
        layers.Flatten(whatever=1)


class Own(layers.Layer):
    """A layer as users write them, which takes an argument out of the others by itself."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        self.depth = kwargs.pop("depth", 1)
        super().__init__(**kwargs)
        if units < 0:
            raise TypeError("no units")


def test_classes_of_the_users_own() -> None:
    assert Own(1, depth=2, name="own").depth == 2
    with pytest.raises(TypeError, match=r"Unknown argument of Own\. Did you mean 'name'.*Received: 'nme'"):
        Own(1, nme="own")
    with pytest.raises(TypeError, match="no units"):
        Own(-1, depth=2)


def test_what_else_python_says_about_arguments_stays() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        layers.Dense(name="first")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes from 2 to 6 positional arguments but 8 were given"):
        layers.Dense(3, None, True, "zeros", "zeros", 1, 2)  # type: ignore[call-arg]
    assert list(inspect.signature(layers.Dense).parameters)[:2] == ["units", "activation"]
