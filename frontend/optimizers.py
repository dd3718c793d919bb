"""Optimizers by Keras's names: each emits its update as IR, an elementwise expression of parameters and gradients."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from gradloom import ops, schedules
from gradloom.compiler.ir import Value
from gradloom.compiler.ops import as_value
from gradloom.constructors import Constructed
from gradloom.lookup import ClassCatalogue
from gradloom.naming import snake_case, unique_name
from gradloom.schedules import LearningRateSchedule
from gradloom.variables import Variable


class Hyperparameter:
    """A setting of an optimizer that programs receive anew with each call: `optimizer.learning_rate = 0.01` compiles
    nothing. Reading it gives the variable; setting it, a finite number in [0, high), or [0, high] if that is `closed`.
    """

    def __init__(self, high: float = float("inf"), closed: bool = False) -> None:
        self.high = high
        self.closed = closed

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, optimizer: None, owner: type) -> Hyperparameter: ...
    @overload
    def __get__(self, optimizer: Optimizer, owner: type) -> Variable: ...
    def __get__(self, optimizer: Optimizer | None, owner: type) -> Hyperparameter | Variable:
        return self if optimizer is None else optimizer.hyperparameters[self.name]

    def number(self, optimizer: Optimizer, value: Any) -> float:
        """The value as programs receive it; raises `ValueError` for one that is out of range."""
        number = _as_float32(value)
        if not (0 <= number < self.high or (self.closed and number == self.high)):
            raise ValueError(
                f"{type(optimizer).__name__}: Expected {self.name} as a number in [0, {self.high:g}"
                f"{']' if self.closed else ')'}. Received: {self.name}={value!r}"
            )
        return number

    def __set__(self, optimizer: Optimizer, value: Any) -> None:
        number = self.number(optimizer, value)
        if self.name in optimizer.hyperparameters:
            optimizer.hyperparameters[self.name].assign(np.float64(number))
        else:
            optimizer.hyperparameters[self.name] = Variable(
                np.float64(number),
                trainable=False,
                name=self.name,
                role="hyperparameter",
                path=f"{optimizer.name}/{self.name}",
            )


class LearningRate(Hyperparameter):
    """The learning rate: a hyperparameter, or what a schedule says about the steps so far."""

    def __get__(self, optimizer: Optimizer | None, owner: type) -> Any:
        if optimizer is None or optimizer.schedule is None:
            return super().__get__(optimizer, owner)
        return optimizer.schedule.at(int(optimizer.iterations))

    def __set__(self, optimizer: Optimizer, value: Any) -> None:
        schedule = schedules.deserialize(value) if isinstance(value, Mapping) else value
        made = hasattr(optimizer, "iterations")
        if made and (optimizer.schedule is not None or isinstance(schedule, LearningRateSchedule)):
            raise TypeError(
                f"{type(optimizer).__name__}: Expected a schedule when the optimizer is made, and a number to be set "
                f"only if it was made with one. Received: learning_rate={value!r}"
            )
        if isinstance(schedule, LearningRateSchedule):
            optimizer.schedule = schedule
        else:
            super().__set__(optimizer, value)


class WeightDecay(Hyperparameter):
    """The weight decay: a hyperparameter, or None of an optimizer that was made without."""

    def __get__(self, optimizer: Optimizer | None, owner: type) -> Any:
        return self if optimizer is None else optimizer.hyperparameters.get(self.name)

    def __set__(self, optimizer: Optimizer, value: Any) -> None:
        if hasattr(optimizer, "iterations") and (value is None) != (optimizer.weight_decay is None):
            raise ValueError(
                f"{type(optimizer).__name__}: Expected weight_decay when the optimizer is made; later only its value "
                f"changes. Received: weight_decay={value!r}"
            )
        if value is not None:
            super().__set__(optimizer, value)


class Optimizer(Constructed, ABC):
    """Changes variables along their gradients.

    `build` makes the slots, one tensor of state per variable and name; `apply` emits one step.

    learning_rate: a number, or a schedule (`gl.optimizers.schedules`), and then `learning_rate` cannot be set.
    weight_decay: w ← w − w·lr·weight_decay comes before each update (decoupled: Loshchilov & Hutter 2019); None for
        none. `exclude_from_weight_decay` spares variables.
    """

    learning_rate = LearningRate()
    weight_decay = WeightDecay()
    schedule: LearningRateSchedule | None = None

    def __init__(self, learning_rate: Any, weight_decay: float | None = None, name: str | None = None) -> None:
        self.name = unique_name(snake_case(type(self).__name__)) if name is None else name
        self.hyperparameters: dict[str, Variable] = {}
        self.spared: set[Variable] = set()
        self.spared_expressions: list[re.Pattern[str]] = []
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.iterations = Variable(
            0, dtype="int64", trainable=False, name="iterations", role="state", path=f"{self.name}/iterations"
        )
        self.slots: dict[tuple[Variable, str], Variable] = {}

    @property
    def variables(self) -> list[Variable]:
        """What an optimizer keeps: the number of steps, a learning rate that is a number, the slots in order."""
        rate = [] if self.schedule else [self.hyperparameters["learning_rate"]]
        return [self.iterations, *rate, *self.slots.values()]

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The names of the tensors that are kept for each variable."""
        return ()

    def build(self, variables: Iterable[Variable]) -> None:
        """Make the slots, of zeros, of variables that have none yet."""
        for variable in variables:
            for name in self.slot_names:
                if (variable, name) not in self.slots:
                    full_name = f"{variable.path.replace('/', '_')}_{name}"
                    self.slots[variable, name] = Variable(
                        "zeros",
                        variable.shape,
                        variable.dtype,
                        trainable=False,
                        name=full_name,
                        role="state",
                        path=f"{self.name}/{full_name}",
                    )

    def slot(self, variable: Variable, name: str) -> Variable:
        """The tensor `name` that is kept for `variable`."""
        return self.slots[variable, name]

    def apply(self, grads: Sequence[Value], variables: Sequence[Variable]) -> None:
        """Emit one step: assign new values to the variables, the slots and the number of steps, in the open trace."""
        if len(grads) != len(variables):
            raise ValueError(f"Expected as many gradients as variables, {len(variables)}. Received: {len(grads)}")
        self.build(variables)
        rate, step_size = self.rate(), self.step_size()
        for gradient, variable in zip(grads, variables, strict=True):
            if self.weight_decay is not None and self.decays(variable):
                decay = ops.cast(rate * self.weight_decay, variable.dtype)
                variable.assign(variable - variable * decay)
            self.update(variable, gradient, ops.cast(step_size, variable.dtype))
        self.iterations.assign(self.iterations + 1)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Value, Variable]]) -> None:
        """`apply` for pairs of gradient and variable."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    def check_hyperparameters(self, values: Mapping[str, Any]) -> None:
        """Raise `ValueError` unless hyperparameters could be set to these values, by name."""
        for name, value in values.items():
            getattr(type(self), name).number(self, value)

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Let some variables not decay: those of a list, and those in whose path a regular expression matches.

        Raises `ValueError` for what is no regular expression.
        """
        expressions = [_expression(name) for name in var_names or ()]
        self.spared.update(var_list or ())
        self.spared_expressions.extend(expressions)

    def decays(self, variable: Variable) -> bool:
        """Whether weight decay, if there is any, is for this variable."""
        return variable not in self.spared and not any(
            expression.search(variable.path) for expression in self.spared_expressions
        )

    def rate(self) -> Value:
        """The learning rate of this step, a scalar."""
        return as_value(self.learning_rate) if self.schedule is None else self.schedule(self.iterations)

    def step_size(self) -> Value:
        """The scalar that updates are multiplied by: computed once per step, for all variables."""
        return self.rate()

    @abstractmethod
    def update(self, variable: Variable, gradient: Value, step_size: Value) -> None:
        """Assign `variable` and its slots their new values; `step_size` is a scalar of the variable's dtype."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again, without its slots."""
        config: dict[str, Any] = {name: float(variable) for name, variable in self.hyperparameters.items()}
        if self.schedule is not None:
            config["learning_rate"] = schedules.serialize(self.schedule)
        return {"name": self.name, "weight_decay": None, **config}

    def __repr__(self) -> str:
        arguments = [f"{name}={float(variable):g}" for name, variable in self.hyperparameters.items()]
        if self.schedule is not None:
            arguments.insert(0, f"learning_rate={self.schedule!r}")
        return f"<{type(self).__name__} {', '.join(arguments)}>"


class SGD(Optimizer):
    """Gradient descent: w ← w − lr·g, with momentum if that is not 0.

    With momentum μ: m ← μ·m − lr·g and w ← w + m, with `nesterov` w ← w + μ·m − lr·g, m the new one (Sutskever et al.
    2013; Keras's form). Whether there is momentum is decided when the optimizer is made; its value may change.
    """

    momentum = Hyperparameter(1.0, closed=True)

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name)
        self.momentum = momentum
        self.nesterov = bool(nesterov)
        self._has_momentum = float(momentum) != 0

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ("momentum",) if self._has_momentum else ()

    def update(self, variable: Variable, gradient: Value, step_size: Value) -> None:
        step = step_size * gradient
        if not self._has_momentum:
            variable.assign(variable - step)
            return
        momentum = self.slot(variable, "momentum")
        factor = ops.cast(self.momentum, variable.dtype)
        velocity = factor * momentum - step
        momentum.assign(velocity)
        variable.assign(variable + (factor * velocity - step if self.nesterov else velocity))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"nesterov": self.nesterov}


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient (Kingma & Ba 2015, with the bias corrections in the step size).

    m ← m + (1 − β₁)(g − m), v ← v + (1 − β₂)(g² − v), w ← w − lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε); with `amsgrad`
    the largest v so far stands in the denominator (Reddi et al. 2018).
    """

    beta_1 = Hyperparameter(1.0)
    beta_2 = Hyperparameter(1.0)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = bool(amsgrad)

    @property
    def slot_names(self) -> tuple[str, ...]:
        return ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def step_size(self) -> Value:
        step = ops.cast(self.iterations + 1, "float32")
        root = ops.sqrt(_one_minus_power(self.beta_2, step))
        return self.rate() * root / _one_minus_power(self.beta_1, step)

    def update(self, variable: Variable, gradient: Value, step_size: Value) -> None:
        beta_1, beta_2, epsilon = (ops.cast(h, variable.dtype) for h in (self.beta_1, self.beta_2, self.epsilon))
        momentum, velocity = self.slot(variable, "momentum"), self.slot(variable, "velocity")
        momentum.assign(momentum + (gradient - momentum) * (1.0 - beta_1))
        velocity.assign(velocity + (ops.square(gradient) - velocity) * (1.0 - beta_2))
        if self.amsgrad:
            largest = self.slot(variable, "velocity_hat")
            largest.assign(ops.maximum(largest, velocity))
            velocity = largest
        variable.assign(variable - momentum * step_size / (ops.sqrt(velocity) + epsilon))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"amsgrad": self.amsgrad}


def _expression(name: Any) -> re.Pattern[str]:
    try:
        return re.compile(name)
    except (re.error, TypeError, OverflowError) as error:
        raise ValueError(f"Expected var_names as regular expressions. Received: {name!r} ({error})") from None


def _as_float32(value: Any) -> float:
    """The number as programs receive it, NaN for what is none: a string of digits is a mistake, not a number."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        return float("nan")
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(float(value)))
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _one_minus_power(beta: Variable, step: Value) -> Value:
    """1 − βᵗ as −(e^(t·log β) − 1): for β near 1 the difference would keep few of f32's digits."""
    return -ops.expm1(step * ops.log(beta))


OptimizerLike = str | Optimizer | Mapping[str, Any] | type[Optimizer]

_CATALOGUE: ClassCatalogue[Optimizer] = ClassCatalogue("optimizer", Optimizer, {"sgd": SGD, "adam": Adam})


def get(identifier: OptimizerLike) -> Optimizer:
    """Return the optimizer of a name, a class, a `{"class_name", "config"}` mapping, or the instance itself.

    Raises `ValueError` naming the nearest known optimizers for an unknown name.
    """
    return _CATALOGUE.get(identifier)
