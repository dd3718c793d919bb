"""Losses, metrics, optimizers, initializers: one way of asking for each by name, class, configuration or instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gradloom import initializers, losses, metrics, optimizers

KINDS = {
    "loss": (losses.get, losses.MeanSquaredError, "mean_squared_error"),
    "metric": (metrics.get, metrics.MeanSquaredError, "mean_squared_error"),
    "optimizer": (optimizers.get, optimizers.SGD, "sgd"),
    "initializer": (initializers.get, initializers.HeNormal, "he_normal"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_stands_for_an_instance(kind: str) -> None:
    get, made, name = KINDS[kind]
    instance: Any = made()
    assert get(instance) is instance
    config = {"class_name": made.__name__, "config": instance.get_config()}
    for identifier in (name, made.__name__, made, {"class_name": name}, config):
        assert type(get(identifier)) is made
    assert get(config).get_config() == instance.get_config()


@pytest.mark.parametrize("function", [lambda *arguments: arguments[-1]])
def test_a_function_stands_for_all_but_an_optimizer(kind: str, function: Callable[..., Any]) -> None:
    get = KINDS[kind][0]
    if kind == "optimizer":
        with pytest.raises(TypeError, match="Expected the optimizer's name"):
            get(function)
    else:
        assert get(function) is function or isinstance(get(function), (losses.Loss, metrics.Metric))


@pytest.mark.parametrize("received", [3, None, {"config": {}}, int, ["mse"]])
def test_anything_else_is_refused(kind: str, received: Any) -> None:
    with pytest.raises(TypeError, match=f"Expected the {kind}'s name, a callable or an instance. Received: "):
        KINDS[kind][0](received)


def test_an_unknown_name_brings_the_nearest_one(kind: str) -> None:
    get, _, name = KINDS[kind]
    for identifier in (name[:-1], {"class_name": name[:-1]}):
        with pytest.raises(ValueError, match=f"Unknown {kind}. Did you mean .*'{name}'"):
            get(identifier)
