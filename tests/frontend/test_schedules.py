"""Learning rate schedules against their formulas in float64, and in optimizers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom as gl
from gradloom.optimizers import SGD, Adam, schedules

steps = st.integers(0, 5000)


def polynomial(step: int, initial: float, decay_steps: int, end: float, power: float, cycle: bool) -> float:
    if cycle:
        decay_steps *= max(1, math.ceil(step / decay_steps))
    return (initial - end) * (1 - min(step, decay_steps) / decay_steps) ** power + end


@given(
    steps, st.floats(0.01, 1), st.integers(1, 2000), st.floats(0, 0.01), st.sampled_from([0.5, 1.0, 4.0]), st.booleans()
)
@settings(max_examples=60)
def test_polynomial_decay(step: int, initial: float, decay_steps: int, end: float, power: float, cycle: bool) -> None:
    schedule = schedules.PolynomialDecay(initial, decay_steps, end, power, cycle)
    expected = polynomial(step, initial, decay_steps, end, power, cycle)
    # 1 − step / decay_steps has an absolute error of an ulp of 1, which a root magnifies where it is near 0.
    assert schedule.at(step) == pytest.approx(expected, rel=1e-4, abs=initial * 1e-3)


@given(steps, st.integers(1, 2000), st.floats(0.1, 1), st.booleans())
@settings(max_examples=30)
def test_exponential_decay(step: int, decay_steps: int, rate: float, staircase: bool) -> None:
    exponent = step // decay_steps if staircase else step / decay_steps
    schedule = schedules.ExponentialDecay(0.5, decay_steps, rate, staircase)
    assert schedule.at(step) == pytest.approx(0.5 * rate**exponent, rel=1e-2, abs=1e-6)


@given(steps, st.integers(1, 2000), st.floats(0, 0.5), st.sampled_from([None, (1.0, 10), (0.2, 700)]))
@settings(max_examples=40)
def test_cosine_decay(step: int, decay_steps: int, alpha: float, warmup: tuple[float, int] | None) -> None:
    target, rising = warmup or (0.5, 0)
    schedule = schedules.CosineDecay(0.5, decay_steps, alpha, warmup_target=warmup and target, warmup_steps=rising)
    if step < rising:
        expected = 0.5 + (target - 0.5) * step / rising
    else:
        done = min(step - rising, decay_steps) / decay_steps
        expected = target * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * done)) + alpha)
    assert schedule.at(step) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_piecewise_constant_decay() -> None:
    schedule = schedules.PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.25])
    assert [schedule.at(step) for step in (0, 10, 11, 20, 21, 9999)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert schedules.PiecewiseConstantDecay([], [0.5]).at(3) == 0.5


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.PolynomialDecay(0.1, 100, 0.0, 2.0, True),
        lambda: schedules.ExponentialDecay(0.1, 100, 0.5, True),
        lambda: schedules.CosineDecay(0.1, 100, 0.1, "c", 0.2, 10),
        lambda: schedules.PiecewiseConstantDecay([1], [1.0, 2.0]),
    ],
)
def test_config_round_trip(make: Any) -> None:
    schedule = make()
    again = schedules.deserialize(schedules.serialize(schedule))
    assert type(again) is type(schedule) and again.get_config() == schedule.get_config()
    optimizer = Adam(schedule)
    assert Adam(**optimizer.get_config()).get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.PolynomialDecay(-1, 10), "Expected initial_learning_rate as a finite number ≥ 0"),
        (lambda: schedules.ExponentialDecay(float("inf"), 10, 0.5), "Received: initial_learning_rate=inf"),
        (
            lambda: schedules.PolynomialDecay(0.1, 0),
            "Expected decay_steps as a finite positive number. Received: decay_steps=0",
        ),
        (lambda: schedules.PiecewiseConstantDecay([1, 2], [1.0]), "Expected ascending boundaries, and one value more"),
        (lambda: schedules.PiecewiseConstantDecay([2, 1], [1.0] * 3), "Expected ascending boundaries"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_compiled_train_step_follows_the_schedule() -> None:
    """With gradients of 1 the weight tells the sum of the rates."""
    x, y = np.ones((40, 1), np.float32), np.zeros((40, 1), np.float32)
    schedule = schedules.PolynomialDecay(0.1, 30, 0.01, power=2.0)
    model = gl.Sequential([gl.Input((1,)), gl.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(SGD(schedule), loss=lambda y_true, y_pred: gl.ops.sum(y_pred, axis=-1))
    model.fit(x, y, batch_size=1, epochs=2, verbose=0)
    expected = sum(polynomial(step, 0.1, 30, 0.01, 2.0, False) for step in range(80))
    assert -float(model.get_weights()[0][0, 0]) == pytest.approx(expected, rel=1e-4)
    assert model.optimizer is not None and model.optimizer.learning_rate == pytest.approx(0.01)


def test_a_scheduled_rate_cannot_be_set() -> None:
    optimizer = SGD(schedules.ExponentialDecay(0.5, 10, 0.5))
    assert optimizer.learning_rate == pytest.approx(0.5)
    with pytest.raises(TypeError, match="Expected a schedule when the optimizer is made"):
        optimizer.learning_rate = 0.1
    with pytest.raises(TypeError, match="Expected a schedule when the optimizer is made"):
        SGD(0.1).learning_rate = schedules.ExponentialDecay(0.5, 10, 0.5)
    assert "ExponentialDecay" in repr(optimizer)
