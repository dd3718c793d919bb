"""`gradient_property`: a function becomes a test that tries arguments of many shapes and values, and shrinks them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gradloom.testing.check import check_gradients
from gradloom.testing.errors import NotFiniteError, NotJudgedError
from gradloom.testing.functions import function_name
from gradloom.testing.kinks import AVOID
from gradloom.testing.profiles import import_hypothesis, property_settings
from gradloom.testing.records import Checks
from gradloom.testing.strategies import Tensor

COMPILED_EXAMPLES = 3
"""How many of the arguments are also tried with compiled code, which takes most of the time."""


def gradient_property(
    *,
    order: int = 2,
    kinks: str = AVOID,
    max_examples: int = 25,
    compiled_examples: int = COMPILED_EXAMPLES,
    **strategies: Any,
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Turn a function into a test of its gradients; a decorator.

        @gradient_property(x=tensor("N", "D"), w=tensor("D", "M"), order=2)
        def affine_relu(x, w):
            return gl.ops.relu(x @ w)

    The test has the function's name and no arguments. pytest collects it under any name, as its plugin does here. It
    raises `GradientError` for the simplest arguments found at which a check fails: first shapes are made simple, then
    values. Arguments at which the function is not finite are drawn anew. Where no arguments let a gradient be judged,
    it raises `NotJudgedError`.

    strategies: one for each parameter: `tensor(…)`, or any strategy of hypothesis; what it draws is passed to
        `check_gradients` in the parameters' order.
    order, kinks: as for `check_gradients`.
    max_examples: how many arguments are tried; compiled_examples: how many more with compiled code, too.

    Settings are those of hypothesis's profile; where `CI` is set and no profile was chosen, `PROFILE`.
    """

    def decorate(f: Callable[..., Any]) -> Callable[[], None]:
        names = _ordered(f, strategies)

        def run(count: int, compiled: bool, judged: list[bool], passed_by: Checks) -> None:
            hypothesis = import_hypothesis()

            @property_settings(count)  # type: ignore[untyped-decorator]
            @hypothesis.given(hypothesis.strategies.composite(_arguments)(strategies))  # type: ignore[untyped-decorator]
            def attempt(arguments: Mapping[str, Any]) -> None:
                try:
                    checks = check_gradients(
                        f, *(arguments[name] for name in names), order=order, kinks=kinks, compiled=compiled
                    )
                    judged.append(checks.judged)
                except NotJudgedError as error:
                    # Another point may show it.
                    passed_by.skip_as(error.checks)
                except NotFiniteError:
                    hypothesis.reject()

            attempt.hypothesis.inner_test.__name__ = function_name(f)
            attempt()

        def test() -> None:
            judged: list[bool] = []
            passed_by = Checks(function_name(f))
            run(max_examples, False, judged, passed_by)
            if compiled_examples:
                run(compiled_examples, True, judged, passed_by)
            if passed_by.skipped and not any(judged):
                raise NotJudgedError(passed_by)

        test.__name__, test.__qualname__ = f.__name__, f.__qualname__
        test.__doc__, test.__module__ = f.__doc__, f.__module__
        test.gradient_property = f  # type: ignore[attr-defined]
        return test

    return decorate


def _ordered(f: Callable[..., Any], strategies: Mapping[str, Any]) -> list[str]:
    """The parameters in order; each must have a strategy, and each strategy a parameter."""
    names = list(inspect.signature(f).parameters)
    if set(names) != set(strategies):
        raise TypeError(
            f"gradient_property: Expected a strategy for each parameter of {f.__name__}: {', '.join(names)}. "
            f"Received: {', '.join(strategies) or 'none'}"
        )
    return names


def _arguments(draw: Callable[[Any], Any], strategies: Mapping[str, Any]) -> dict[str, Any]:
    """Draw all shapes, then what else there is, then elements: hypothesis makes simple what was drawn first."""
    sizes: dict[str, int] = {}
    shapes = {name: s.draw_shape(draw, sizes) for name, s in strategies.items() if isinstance(s, Tensor)}
    drawn = {name: draw(s) for name, s in strategies.items() if not isinstance(s, Tensor)}
    for name, strategy in strategies.items():
        if isinstance(strategy, Tensor):
            drawn[name] = strategy.draw_array(draw, shapes[name])
    return drawn
