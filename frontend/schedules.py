"""Learning rates that follow the number of steps, as IR in the train step: nothing is compiled when they change.

They are reached as `gl.optimizers.schedules`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradloom import ops
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops import as_value
from gradloom.constructors import Constructed
from gradloom.lookup import ClassCatalogue
from gradloom.variables import Trace, Variable


class LearningRateSchedule(Constructed, ABC):
    """The learning rate as a function of the step, counted from 0: `optimizers.SGD(PolynomialDecay(0.1, 10_000))`.

    Subclasses compute with `gl.ops` in `__call__`; numbers that they keep with `parameter` are no constants there.
    """

    @abstractmethod
    def __call__(self, step: Any) -> Value:
        """Return the rate, an f32, at `step`, a symbolic scalar."""

    @abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""

    def parameter(self, name: str, value: Any) -> Variable:
        """Keep a number, or an array of numbers, as a hyperparameter: programs receive it with each call."""
        path = f"{type(self).__name__}/{name}"
        return Variable(np.float32(value), trainable=False, name=name, role="hyperparameter", path=path)

    def at(self, step: int) -> float:
        """Return the rate at a step as a number, computed with NumPy."""
        from gradloom.compiler.interpreter import interpret

        with Trace(Graph("schedule")) as trace:
            trace.graph.output("rate", as_value(self(trace.graph.constant(step, "int64"))))
        return float(interpret(trace.graph, trace.arguments())["rate"])

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items() if name != "name")
        return f"<{type(self).__name__} {arguments}>"


class PolynomialDecay(LearningRateSchedule):
    """(initial − end) · (1 − step / decay_steps)^power + end, and `end_learning_rate` from `decay_steps` on.

    cycle: instead of staying at the end, `decay_steps` becomes its first multiple that is not below the step.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "decay_steps")
        self.end_learning_rate = _not_negative(end_learning_rate, "end_learning_rate")
        self.power = _positive(power, "power")
        self.cycle = bool(cycle)
        self.name = name
        self._initial, self._end = (
            self.parameter("initial", initial_learning_rate),
            self.parameter("end", end_learning_rate),
        )
        self._steps, self._power = self.parameter("decay_steps", decay_steps), self.parameter("power", power)

    def __call__(self, step: Any) -> Value:
        count = ops.cast(step, "float32")
        if self.cycle:
            done = count / (self._steps * ops.maximum(ops.ceil(count / self._steps), 1.0))
        else:
            done = ops.minimum(count / self._steps, 1.0)
        return ops.add((self._initial - self._end) * ops.power(1.0 - done, self._power), self._end)

    def get_config(self) -> dict[str, Any]:
        names = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle", "name")
        return {name: getattr(self, name) for name in names}


class ExponentialDecay(LearningRateSchedule):
    """initial · decay_rate^(step / decay_steps), with `staircase` the exponent rounded down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        self.initial_learning_rate = _not_negative(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "decay_steps")
        self.decay_rate = _positive(decay_rate, "decay_rate")
        self.staircase = bool(staircase)
        self.name = name
        self._initial, self._rate = self.parameter("initial", initial_learning_rate), self.parameter("rate", decay_rate)
        self._steps = self.parameter("decay_steps", decay_steps)

    def __call__(self, step: Any) -> Value:
        exponent = ops.cast(step, "float32") / self._steps
        if self.staircase:
            exponent = ops.floor(exponent)
        return ops.multiply(self._initial, ops.power(self._rate, exponent))

    def get_config(self) -> dict[str, Any]:
        names = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")
        return {name: getattr(self, name) for name in names}


class CosineDecay(LearningRateSchedule):
    """Half a cosine wave from the initial rate down to alpha times it (Loshchilov & Hutter 2017).

    warmup_target, warmup_steps: first rise from the initial rate to the target, linearly, and decay from there.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = _not_negative(initial_learning_rate, "initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "decay_steps")
        self.alpha = _not_negative(alpha, "alpha")
        self.name = name
        self.warmup_target = None if warmup_target is None else _not_negative(warmup_target, "warmup_target")
        self.warmup_steps = _not_negative(warmup_steps, "warmup_steps")
        self._initial, self._alpha = self.parameter("initial", initial_learning_rate), self.parameter("alpha", alpha)
        self._steps = self.parameter("decay_steps", decay_steps)
        self._target = self.parameter("target", initial_learning_rate if warmup_target is None else warmup_target)
        self._warmup = self.parameter("warmup_steps", 0 if warmup_target is None else warmup_steps)

    def __call__(self, step: Any) -> Value:
        count = ops.cast(step, "float32")
        done = ops.clip((count - self._warmup) / self._steps, 0.0, 1.0)
        wave = 0.5 * (1.0 + _cosine_of_half_turns(done))
        decayed = self._target * ((1.0 - self._alpha) * wave + self._alpha)
        rising = self._initial + (self._target - self._initial) * (count / ops.maximum(self._warmup, 1.0))
        return ops.where(ops.less(count, self._warmup), rising, decayed)

    def get_config(self) -> dict[str, Any]:
        names = ("initial_learning_rate", "decay_steps", "alpha", "name", "warmup_target", "warmup_steps")
        return {name: getattr(self, name) for name in names}


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[0] up to step boundaries[0], then values[1] up to boundaries[1], and so on; one value more at the end."""

    def __init__(
        self, boundaries: Sequence[int], values: Sequence[float], name: str = "PiecewiseConstantDecay"
    ) -> None:
        self.boundaries = [int(boundary) for boundary in boundaries]
        self.values = [_not_negative(value, "values") for value in values]
        self.name = name
        if len(self.values) != len(self.boundaries) + 1 or self.boundaries != sorted(set(self.boundaries)):
            raise ValueError(
                "Expected ascending boundaries, and one value more. "
                f"Received: boundaries={self.boundaries}, values={self.values}"
            )
        self._values = self.parameter("values", self.values)
        self._boundaries = self.parameter("boundaries", self.boundaries)

    def __call__(self, step: Any) -> Value:
        if not self.boundaries:
            return ops.take(self._values, 0)
        passed = ops.greater(ops.cast(step, "float32"), self._boundaries)
        return ops.take(self._values, ops.sum(ops.cast(passed, "int32")))

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


def _cosine_of_half_turns(x: Value) -> Value:
    """cos(πx) for x in [0, 1], as −sin(π(x − ½)) by the sine's series, whose rest is below f32's rounding there."""
    angle = (x - 0.5) * math.pi
    square = angle * angle
    series: Any = 0.0
    for power in range(13, 0, -2):
        series = series * square + (-1.0) ** (power // 2) / math.factorial(power)
    return ops.negative(angle * series)


def _not_negative(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < math.inf:
        raise ValueError(f"Expected {name} as a finite number ≥ 0. Received: {name}={value!r}")
    return float(value)


def _positive(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise ValueError(f"Expected {name} as a finite positive number. Received: {name}={value!r}")
    return value if isinstance(value, int) else float(value)


_CATALOGUE: ClassCatalogue[LearningRateSchedule] = ClassCatalogue(
    "schedule",
    LearningRateSchedule,
    {
        "polynomial_decay": PolynomialDecay,
        "exponential_decay": ExponentialDecay,
        "cosine_decay": CosineDecay,
        "piecewise_constant_decay": PiecewiseConstantDecay,
    },
)


def deserialize(config: Any) -> LearningRateSchedule:
    """Return the schedule that `serialize` described."""
    return _CATALOGUE.get(config)


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """Return the class and the arguments of a schedule."""
    return {"class_name": type(schedule).__name__, "config": schedule.get_config()}
