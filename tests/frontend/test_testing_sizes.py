"""`check_gradients` for arguments of all sizes: right gradients are never called wrong, those 1 % off always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradloom import ops
from gradloom.testing import GradientError, NotJudgedError, check_gradients
from gradloom.testing.differences import Curve, central, one_sided
from gradloom.testing.lines import sizes

FEW = settings(derandomize=True, max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Cotangents = Callable[..., tuple[Any, ...]]

# For a size s of the arguments: the function, and its gradient by hand.
KNOWN: dict[str, Callable[[float], tuple[Callable[..., Any], Cotangents]]] = {
    "a square": lambda s: (lambda a: a * a, lambda u, a: (2.0 * u * a,)),
    "a cubic": lambda s: (lambda a: a * a * a - 3.0 * a, lambda u, a: (u * (3.0 * a * a - 3.0),)),
    "tanh": lambda s: (lambda a: ops.tanh(a / s), lambda u, a: (u * (1.0 - ops.tanh(a / s) ** 2) / s,)),
    "a steep tanh": lambda s: (
        lambda a: ops.tanh(1e4 * (a / s - 1.0)),
        lambda u, a: (u * (1.0 - ops.tanh(1e4 * (a / s - 1.0)) ** 2) * 1e4 / s,),
    ),
    "exp": lambda s: (lambda a: ops.exp(50.0 * a / s), lambda u, a: (u * ops.exp(50.0 * a / s) * 50.0 / s,)),
    "a wave": lambda s: (
        lambda a: (a / s) * ops.exp(-a * a / s / s),
        lambda u, a: (u * ops.exp(-a * a / s / s) * (1.0 - 2.0 * a * a / s / s) / s,),
    ),
    "log": lambda s: (lambda a: ops.log(ops.abs(a)), lambda u, a: (u / a,)),
    "a product": lambda s: (lambda a, b: a * b, lambda u, a, b: (u * b, u * a)),
    "a product of matrices": lambda s: (
        lambda a, b: ops.reshape(a, (2, 2)) @ b,
        lambda u, a, b: (
            ops.reshape(u @ ops.transpose(b), (4,)),
            ops.transpose(ops.reshape(a, (2, 2))) @ u,
        ),
    ),
}


def with_gradient(value: Callable[..., Any], cotangents: Cotangents, factor: float) -> Callable[..., Any]:
    """A function whose gradient is given by hand, times a factor."""

    @ops.custom_gradient
    def function(*args: Any) -> Any:
        return value(*args), lambda upstream: tuple(factor * c for c in cotangents(upstream, *args))

    return lambda *args: function(*args)


@pytest.mark.parametrize("name", KNOWN)
@FEW
@given(exponent=st.integers(-12, 6), other=st.integers(-12, 6), seed=st.integers(0, 1000))
def test_right_gradients_pass_and_those_slightly_off_fail(name: str, exponent: int, other: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 10.0**exponent
    value, cotangents = KNOWN[name](size)
    numbers = rng.uniform(0.5, 1.5, 4) * rng.choice([-1, 1], 4)
    if name == "a steep tanh":
        numbers = 1 + 1e-4 * numbers
    args = [size * numbers]
    if "product" in name:
        args.append(10.0**other * rng.normal(size=(2, 2) if "matrices" in name else 4))
    check_gradients(with_gradient(value, cotangents, 1.0), *args, compiled=False, seed=seed)
    with pytest.raises(GradientError) as error:
        check_gradients(with_gradient(value, cotangents, 1.01), *args, order=1, compiled=False, seed=seed)
    assert error.value.check == "gradient" and "= custom_gradient" in error.value.node


# Functions with the points at which they are hard to differentiate by steps.
HARD: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "a tiny square": (lambda a: a * a, np.full(3, 1e-12)),
    "a step that is saturated at both ends": (lambda a: ops.tanh(1e3 * a), np.full(3, 1e-3)),
    "a steeper one": (lambda a: ops.tanh(1e5 * a), np.full(3, 1e-5)),
    "sizes apart": (lambda a: ops.tanh(1e6 * a), np.array([1e-6, -2e-6, 1.0])),
    "a bump that large steps do not see": (lambda a: ops.exp(-(((a - 1.0) * 1e6) ** 2)), np.array([1.0 + 3e-7, 1e3])),
    "a bump at zeros": (lambda a: a + ops.exp(-(((a - 1e-5) * 1e5) ** 2)), np.zeros(3)),
    "roundings that are larger at the ends": (lambda a: (a + a * a) - a, np.zeros(3)),
    "near a pole": (lambda a: ops.log(a), np.full(3, 1e-5)),
    "near a pole, and far from it": (lambda a: ops.log(a), np.array([1e-6, 1e3])),
    "a large offset": (lambda a: ops.sum(a * a) + 1e6, np.full(3, 1e-2)),
    "small numbers beside a large one": (lambda a: ops.exp(a), np.full(3, 1e-12)),
    "flat": (lambda a: ops.tanh(a), np.full(3, 1e6)),
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("order", [1, 2])
def test_right_gradients_are_never_called_wrong(name: str, order: int) -> None:
    f, point = HARD[name]
    for seed in range(4):
        try:
            check_gradients(f, point, order=order, compiled=False, seed=seed)
        except NotJudgedError:
            assert name == "roundings that are larger at the ends"


def test_steps_follow_the_size_of_each_element() -> None:
    assert sizes(np.array([3.0, -1.0, 2.0**-9, 1e-30, 0.0])).tolist() == [2.0, 1.0, 2.0**-9, 2.0**-9, 2.0**-9]
    assert sizes(np.array([1e-12])).item() == pytest.approx(1e-12, rel=0.5)
    assert sizes(np.zeros(2)).tolist() == [1.0, 1.0] and sizes(np.zeros((0, 2))).shape == (0, 2)


def exact(f: Callable[[float], Any]) -> Curve:
    def at(t: float) -> np.ndarray:
        return np.asarray(f(t), np.float64)

    return Curve(at, lambda t: 1e-16 * np.abs(at(t)), 2.0**-45)


@pytest.mark.parametrize("steep", [1.0, 1e2, 1e4, 1e6, 1e8])
def test_small_steps_have_the_last_word(steep: float) -> None:
    """sin(steep·t): at large steps its ends say nothing, and may agree on that."""
    found = central(exact(lambda t: np.sin(steep * t + np.array([0.0, 0.5, 1.0]))), 2.0**-5)
    right = steep * np.cos([0.0, 0.5, 1.0])
    assert (np.abs(found.value - right) <= 10 * found.error).all() and (found.error <= 1e-5 * steep).all()


def test_what_no_step_is_small_enough_for_is_unknown() -> None:
    assert central(exact(lambda t: np.tanh(1e300 * t)), 2.0**-5).error == np.inf
    assert central(exact(lambda t: np.where(t == 0, 1.0, np.nan)), 2.0**-5).error == np.inf
    # A side at a time, a kink is none.
    for step, slope in ((2.0**-12, 2.0), (-(2.0**-12), 1.0)):
        found = one_sided(exact(lambda t: np.exp(t) - 1 + max(t, 0.0)), step)
        assert abs(found.value - slope) <= 10 * found.error <= 1e-6


def test_roundings_count_where_steps_end() -> None:
    """At a point that is all zeros nothing is rounded, but on both sides of it."""
    found = central(
        Curve(lambda t: np.float64(t) + np.zeros(2), lambda t: np.full(2, 1e-9 * abs(t)), 2.0**-45), 2.0**-5
    )
    assert found.value.tolist() == [1.0, 1.0] and (found.error >= 1e-9).all() and (found.error < 1e-8).all()
