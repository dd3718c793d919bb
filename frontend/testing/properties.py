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
from gradloom.testing.records import INFINITE, Checks
from gradloom.testing.strategies import Tensor

__tracebackhide__ = True  # pytest shows the test, not how it was checked

COMPILED_EXAMPLES = 3
"""How many of the arguments are also tried with compiled code, which takes most of the time."""


def gradient_property(
    *,
    order: int = 2,
    kinks: str = AVOID,
    max_examples: int = 25,
    compiled_examples: int = COMPILED_EXAMPLES,
    **strategies: Any,
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Turn a function into a test of its gradients; a decorator.

        @gradient_property(x=tensor("N", "D"), w=tensor("D", "M"), order=2)
        def affine_relu(x, w):
            return gl.ops.relu(x @ w)

    The test has the function's name, and as arguments those parameters that have neither strategy nor default: `self`,
    or what `pytest.mark.parametrize` and fixtures supply. Without such it has none. pytest collects it under any name,
    as its plugin does here. It raises `GradientError` for the simplest arguments found at which a check fails: first
    shapes are made simple, then values. Arguments at which the function is not finite are drawn anew. Where no
    arguments let a gradient be judged, it raises `NotJudgedError`.

    strategies: by parameters' names: `tensor(…)`, or any strategy of hypothesis; what it draws is passed to
        `check_gradients` in the parameters' order.
    order, kinks: as for `check_gradients`.
    max_examples: how many arguments are tried; compiled_examples: how many more with compiled code, too.

    Settings are those of hypothesis's profile; where `CI` is set and no profile was chosen, `PROFILE`.
    """

    def decorate(f: Callable[..., Any]) -> Callable[..., None]:
        parameters = _parameters(f, strategies)
        others = inspect.Signature([p for p in parameters if p.name not in strategies and p.default is p.empty])
        passed = [p for p in parameters if p.name in strategies or p.name in others.parameters]
        last = parameters.index(passed[-1]) + 1

        def run(count: int, compiled: bool, given: Mapping[str, Any], judged: list[bool], passed_by: Checks) -> None:
            hypothesis = import_hypothesis()

            @property_settings(count)  # type: ignore[untyped-decorator]
            @hypothesis.given(hypothesis.strategies.composite(_arguments)(strategies))  # type: ignore[untyped-decorator]
            def attempt(arguments: Mapping[str, Any]) -> None:
                values = {**arguments, **given}
                in_order = [values.get(parameter.name, parameter.default) for parameter in parameters[:last]]
                try:
                    checks = check_gradients(f, *in_order, order=order, kinks=kinks, compiled=compiled)
                    judged.append(checks.judged)
                except NotJudgedError as error:
                    # Another point may show it.
                    passed_by.skip_as(error.checks)
                except NotFiniteError:
                    passed_by.skip(INFINITE)
                    hypothesis.reject()

            attempt.hypothesis.inner_test.__name__ = function_name(f)
            attempt()

        def test(*args: Any, **kwargs: Any) -> None:
            given = others.bind(*args, **kwargs).arguments
            judged: list[bool] = []
            passed_by = Checks(function_name(f))
            run(max_examples, False, given, judged, passed_by)
            if compiled_examples:
                run(compiled_examples, True, given, judged, passed_by)
            if passed_by.skipped and not any(judged):
                raise NotJudgedError(passed_by)

        test.__dict__.update(f.__dict__)
        test.__name__, test.__qualname__ = f.__name__, f.__qualname__
        test.__doc__, test.__module__ = f.__doc__, f.__module__
        test.__signature__ = others  # type: ignore[attr-defined]
        test.gradient_property = f  # type: ignore[attr-defined]
        return test

    return decorate


def _parameters(f: Callable[..., Any], strategies: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The parameters in order; each strategy must be one, and have a parameter."""
    for name, strategy in strategies.items():
        if not isinstance(strategy, Tensor) and not hasattr(strategy, "flatmap"):
            raise TypeError(
                f'gradient_property: Expected {name} as a strategy: tensor("N", "D"), or one of hypothesis. '
                f"Received: {name}={strategy!r}"
            )
    parameters = list(inspect.signature(f).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [p.name for p in positional]
    unknown = [name for name in strategies if name not in names]
    if unknown or not strategies:
        raise TypeError(
            f"gradient_property: Expected strategies for positional parameters of {f.__name__}: {', '.join(names)}. "
            f"Received: {', '.join(strategies) or 'none'}"
        )
    return positional


def _arguments(draw: Callable[[Any], Any], strategies: Mapping[str, Any]) -> dict[str, Any]:
    """Draw all shapes, then what else there is, then elements: hypothesis makes simple what was drawn first."""
    sizes: dict[str, int] = {}
    shapes = {name: s.draw_shape(draw, sizes) for name, s in strategies.items() if isinstance(s, Tensor)}
    drawn = {name: draw(s) for name, s in strategies.items() if not isinstance(s, Tensor)}
    for name, strategy in strategies.items():
        if isinstance(strategy, Tensor):
            drawn[name] = strategy.draw_array(draw, shapes[name])
    return drawn
