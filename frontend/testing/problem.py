"""A function traced for a check: one graph with its results, its gradients, and its derivative along a direction.

The graph is never rebuilt, since `custom_gradient`'s rules are Python functions that belong to its nodes. Besides the
function's arguments it has inputs for a cotangent of each result and for directions, so that one graph serves all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ops.markers import StopGradient
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.naming import distinct, numbered
from gradloom.testing.differences import Curve
from gradloom.testing.evaluation import Arrays, Known, needed, rounding, run
from gradloom.testing.float64_graph import Float64Graph
from gradloom.testing.lines import Line, sizes
from gradloom.trees import flatten, leaf_names
from gradloom.variables import Trace, Variable


@dataclass(frozen=True)
class Function:
    """A function with the arrays of its arguments by name, and how it is called on others in their places.

    weights: the variables of a layer, whose arrays come last.
    """

    python: Callable[..., Any]
    name: str
    arrays: Mapping[str, np.ndarray]
    call: Callable[[Sequence[Any]], Any]
    args: tuple[Any, ...]
    weights: tuple[Variable, ...] = ()

    def moved_to(self, arrays: Arrays) -> Function:
        """The same function at another point."""
        return replace(self, arrays=dict(arrays))


@dataclass
class Problem:
    """A traced function; `inputs` and `outputs` are those that can be differentiated.

    cotangents, directions: inputs of their types.
    levels: the scalar Σ cotangent·result, then, for each order that is checked, Σ weight·(gradient of the last).
    sized: for each direction and weight the input that it moves or weighs, and whose size it has.
    derivatives: the gradient of each level by each input.
    along: the derivative of each result along the directions, symbolically (see `derivative_along`).
    """

    graph: Graph
    inputs: list[Value]
    outputs: list[Value]
    cotangents: list[Value]
    directions: list[Value]
    levels: list[Value]
    derivatives: list[list[Value]]
    along: list[Value]
    sized: dict[Value, Value]
    trace: Trace

    def __post_init__(self) -> None:
        self.forward = needed(self.outputs)
        # A value kept from gradients is a constant, for differences too; one in a gradient is a part of that gradient.
        self._stopped = [value for value in self.forward if isinstance(value.op, StopGradient)]

    @property
    def results(self) -> list[Value]:
        """What programs compute: the function's results, and its gradients of each order."""
        return [output.value for output in self.graph.outputs]

    def point(self, arrays: Arrays, seed: int) -> Point:
        """The values of all nodes at a point, with cotangents and directions drawn from a seed."""
        rng = np.random.default_rng(seed)
        given = {**self.trace.arguments(), **self.graph.captured, **arrays}
        if sum(output.type.size for output in self.outputs) == 1:
            # The gradient of a scalar is best shown as it is.
            given |= {label(value): np.ones(value.shape, value.dtype.numpy) for value in self.cotangents}
        for value in self.graph.inputs:
            if label(value) not in given:
                given[label(value)] = signed(rng, value.shape)
                if value in self.sized:
                    size = sizes(np.asarray(given[label(self.sized[value])]))
                    # A sum scales with its weights: they are about 1, lest it overflows where the gradients do not.
                    given[label(value)] *= size if value in self.directions else size / np.max(size, initial=0.0)
            given[label(value)] = np.asarray(given[label(value)]).astype(value.dtype.numpy, copy=False)
        return Point(self, given, run(self.graph.values, given), self._stopped)


@dataclass
class Point:
    """The arrays of all nodes of a problem, exactly, and how far rounding moves them."""

    problem: Problem
    arrays: dict[str, np.ndarray]
    values: dict[Value, np.ndarray]
    stopped: list[Value]

    def __post_init__(self) -> None:
        self.fixed: Known = {value: self.values[value] for value in self.stopped}
        self._spread: dict[Value, np.ndarray] | None = None

    def spread(self, value: Value) -> np.ndarray:
        """How far roundings move a node's elements."""
        if self._spread is None:
            self._spread = rounding(self.problem.graph.values, self.arrays, self.values, self.fixed)
        return self._spread[value]

    def line(self, values: Sequence[Value], tangents: Known) -> Line:
        """The nodes that `values` need, while some, inputs for example, move by t·tangent."""
        fixed = {node: array for node, array in self.fixed.items() if node not in tangents}
        return Line(needed(values, {*fixed, *tangents}), self.arrays, self.values, tangents, fixed)

    def curve(self, value: Value, tangents: Known) -> Curve:
        """One float node on that line."""
        found = self.line([value], tangents).curve(value)
        return replace(found, noise=lambda t: found.noise(t) if t else self.spread(value))


def build(function: Function, order: int, wide: bool) -> Problem:
    """Trace a function and differentiate it `order` times; with `wide`, with all of its floats in float64."""
    graph = Float64Graph(function.name) if wide else Graph(function.name)
    with Trace(graph) as trace:
        arguments = [graph.input(name, _type(array)) for name, array in function.arrays.items()]
        inputs = [value for value in arguments if value.dtype.is_float]
        leaves, structure = flatten(_called(function, arguments))
        results = [ops.as_value(leaf) for leaf in leaves]
        names = distinct(leaf_names(structure, "result"))
        for name, value in zip(names, results, strict=True):
            graph.output(name, value)
        outputs = [value for value in results if value.dtype.is_float]
        if not inputs or not outputs:
            raise TypeError(
                f"{function.name}: Expected floats among its arguments and results. "
                f"Received: {', '.join(str(value.type) for value in arguments)} -> "
                f"{', '.join(str(value.type) for value in results)}"
            )
        cotangents = _fresh(graph, "cotangent", outputs)
        levels = [_contraction(cotangents, outputs)]
        directions = _fresh(graph, "direction", inputs)
        sized = dict(zip(directions, inputs, strict=True))
        derivatives = [gradients(outputs, inputs, cotangents)]
        along = derivative_along(derivatives[0], directions, cotangents)
        for number in range(1, order):
            weights = _fresh(graph, f"weight{number}", inputs)
            sized |= dict(zip(weights, inputs, strict=True))
            levels.append(_contraction(weights, derivatives[-1]))
            derivatives.append(gradients([levels[-1]], inputs))
        for number, derivative in enumerate(derivatives, start=1):
            for value, by in zip(derivative, inputs, strict=True):
                graph.output(f"gradient of order {number} by {label(by)!r}", value)
    return Problem(graph, inputs, outputs, cotangents, directions, levels, derivatives, along, sized, trace)


def _called(function: Function, arguments: Sequence[Value]) -> Any:
    try:
        return function.call(arguments)
    except TypeError as error:
        # What NumPy and Python say of an operand that is no number does not tell why it is none.
        if re.search(r"not '?Value|'Value' does not support", str(error)):
            error.add_note(
                f"{function.name}: Expected functions of gl.ops, gl.ops.tanh for np.tanh, and no float(x): its "
                "arguments are symbolic values, as in gl.function"
            )
        raise


def derivative_along(gradient: Sequence[Value], direction: Sequence[Value], cotangents: Sequence[Value]) -> list[Value]:
    """Return J·v from Jᵀu: the reverse walk taken twice.

    Jᵀu is linear in the cotangent u. So the gradient by u of ⟨Jᵀu, v⟩ = ⟨u, Jv⟩ is Jv: no forward mode is needed, and
    what the gradient consists of must itself be differentiable.
    """
    return gradients([_contraction(direction, gradient)], cotangents)


def label(value: Value) -> str:
    """The label of an input."""
    assert isinstance(value.op, Input)
    return value.op.label


DIRECTIONS = 4
"""How many directions a gradient is checked along, at most: each is the hidden part of the one before."""


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between ½ and 1½ in magnitude, of both signs, none so small that it hides an error; exact in float32."""
    return np.asarray(rng.integers(512, 1536, shape) / 1024 * rng.choice([-1.0, 1.0], shape))


def direction(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """A random direction in which to move an array, of its elements' sizes."""
    return np.asarray(signed(rng, array.shape) * sizes(array))


def hidden_part(along: np.ndarray, gradient: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The part of a direction in which an error of the gradient would not show beside others, None if that is no part.

    An element is in it if a thousandth of what it adds to the derivative along the direction is within the tolerance.
    """
    hidden = np.where(np.abs(gradient * along) <= 1e3 * tolerance, along, 0.0)
    return None if np.array_equal(hidden, along) or not hidden.any() else hidden


def _type(array: np.ndarray) -> TensorType:
    return TensorType(as_dtype(array.dtype), array.shape)


def _fresh(graph: Graph, prefix: str, like: Sequence[Value]) -> list[Value]:
    """Inputs for numbers that multiply some values."""
    return [
        graph.input(numbered(prefix, graph.labels), TensorType(value.dtype.arithmetic, value.shape)) for value in like
    ]


def _contraction(weights: Sequence[Value], values: Sequence[Value]) -> Value:
    """Σ weight·value, over all elements of all values."""
    total: Value | None = None
    for weight, value in zip(weights, values, strict=True):
        part = ops.sum(weight * value)
        total = part if total is None else total + part
    assert total is not None
    return total
