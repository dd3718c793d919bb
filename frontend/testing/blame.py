"""The first node at fault: one whose gradient does not fit the differences of the op itself, or whose code is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import indent

import numpy as np

from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import NoGradientError
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.ops.markers import CustomGradient
from gradloom.compiler.types import TensorType
from gradloom.naming import numbered
from gradloom.testing.differences import Derivative
from gradloom.testing.evaluation import needed, run, unit, wide
from gradloom.testing.kinks import alone, by_differences, local
from gradloom.testing.problem import DIRECTIONS, Point, Problem, direction, hidden_part, label, signed


def where(node: Value) -> str:
    """A node with its layer and the line that made it, in square brackets, where they are known."""
    origins = "; ".join(sorted({str(origin) for origin in node.graph.provenance[node] if str(origin)}))
    return f"{node!r}" + (f"  [{origins}]" if origins else "")


def first_wrong_gradient(problem: Problem, point: Point, order: int, conventions: bool = False) -> str:
    """Say which node of those that were differentiated is the first whose cotangents are wrong; "" if none is.

    Each is looked at by itself, at the values that its operands have: its cotangents for a random one of its result,
    along random directions, against differences of what it computes. For `order` 2 the nodes of the gradient are
    differentiated, too. With `conventions`, kinks are judged by what ops say of them, else passed by.
    """
    gradient = [problem.levels[order - 1]] if order <= len(problem.levels) else problem.derivatives[0]
    # A gradient need not have been computed from what it is the gradient of.
    roots = [*problem.outputs, *([] if order == 1 else gradient)]
    # The gradient is differentiated by the cotangents, too.
    moving = {*problem.inputs, *problem.cotangents}
    rng = np.random.default_rng(3)
    for node in needed(roots):
        if node in moving or not node.dtype.is_float or not any(operand in moving for operand in node.inputs):
            continue
        moving.add(node)
        if node in point.fixed or not isinstance(node.op, TensorOp):
            continue
        try:
            alone = _Alone(problem, point, node, rng, conventions)
            found = alone.mismatch()
        except NoGradientError:
            continue
        if found:
            return f"{where(node)}\n    {found}{alone.text()}"
    return ""


class _Alone:
    """One node as a function of its operands: its gradient, and its differences."""

    def __init__(
        self, problem: Problem, point: Point, node: Value, rng: np.random.Generator, conventions: bool
    ) -> None:
        self.problem = problem
        self.point = point
        self.node = node
        self.rng = rng
        self.conventions = conventions
        self.values = [point.values[operand] for operand in node.inputs]
        self.upstream = signed(rng, node.shape)
        self.graph: Graph | None = None
        self.result = node

    def mismatch(self) -> str:
        """What is wrong with the node's cotangents; "" if nothing is, or if it is at a kink."""
        custom = isinstance(self.node.op, CustomGradient)
        cotangents = self._custom_cotangents() if custom else self._cotangents()
        for place in range(1 if custom else 0, len(self.values)):
            if self.node.inputs[place].dtype.is_float and self.values[place].size:
                message = self._wrong_for(place, wide(cotangents[place]), custom)
                if message:
                    return message
        return ""

    def _wrong_for(self, place: int, cotangent: np.ndarray, custom: bool) -> str:
        along: np.ndarray | None = direction(self.rng, self.values[place])
        for _ in range(DIRECTIONS):
            if along is None:
                break
            tangents = [np.zeros(x.shape) for x in self.values]
            tangents[place] = along
            right = self._custom(tangents) if custom else self._op(tangents)
            expected, received, tolerance = self._compared(along, cotangent, right)
            if not abs(received - expected) <= tolerance:
                operand = self.node.inputs[place]
                return (
                    f"its cotangent for operand {place} (%{operand.number}), along a direction: {received:.9g} where "
                    f"{expected:.9g} is right"
                )
            along = hidden_part(along, cotangent, tolerance)
        return ""

    def text(self) -> str:
        """The node with its gradient as a graph of its own; "" where a Python function is its gradient."""
        if self.graph is None:
            return ""
        return f"\n  alone, with its gradient:\n{indent(str(self.graph).rstrip(), '    ')}"

    def _compared(self, along: np.ndarray, cotangent: np.ndarray, right: Derivative) -> tuple[float, float, float]:
        """What the derivative along a direction should be, what it is, and how far it may be off."""
        with np.errstate(all="ignore"):
            expected, received = float(np.sum(right.value * self.upstream)), float(np.sum(cotangent * along))
            size = float(np.sum(np.abs(right.value * self.upstream)) + np.sum(np.abs(cotangent * along)))
            rounding = (1e-8 + 1e3 * unit(self.node)) * size
            tolerance = 10 * float(np.sum(np.abs(right.error * self.upstream))) + rounding
        return expected, received, tolerance

    def _op(self, tangents: Sequence[np.ndarray]) -> Derivative:
        node = self.result
        assert isinstance(node.op, TensorOp)
        if self.conventions:
            return local(node, self.values, tangents)
        with np.errstate(all="ignore"):
            distance = node.op.kink_distance(*self.values)
        return by_differences(alone(node, self.values, tangents), node, distance)

    def _cotangents(self) -> list[np.ndarray]:
        graph = self.graph = Graph("node")
        operands = [graph.input(f"x{at}", TensorType(v.dtype, v.shape)) for at, v in enumerate(self.node.inputs)]
        result = self.result = graph.apply(self.node.op, *operands, provenance=())
        upstream = graph.input("upstream", TensorType(result.dtype.arithmetic, result.shape))
        floats = [operand for operand in operands if operand.dtype.is_float]
        found = dict(zip(floats, gradients([result], floats, [upstream]), strict=True))
        graph.output("result", result)
        for operand in floats:
            graph.output(f"gradient_{label(operand)}", found[operand])
        given = {f"x{at}": array for at, array in enumerate(self.values)}
        results = run(graph.values, {**given, "upstream": self.upstream.astype(upstream.dtype.numpy)})
        return [results[found[x]] if x in found else np.zeros(x.shape) for x in operands]

    def _custom(self, tangents: Sequence[np.ndarray]) -> Derivative:
        """What a function with a gradient of its own computes, when one of its arguments moves."""
        result, *arguments = self.node.inputs
        return by_differences(
            self.point.line([result], dict(zip(arguments, tangents[1:], strict=True))), result, math.inf
        )

    def _custom_cotangents(self) -> list[np.ndarray]:
        graph, op = self.problem.graph, self.node.op
        assert isinstance(op, TensorOp)
        name = numbered("upstream", graph.labels)
        with self.problem.trace:
            given = graph.input(name, TensorType(self.node.dtype.arithmetic, self.node.shape))
            emitted = op.vjp(self.node, given)
        wanted = [value for value in emitted if value is not None]
        arrays = {**self.point.arrays, name: self.upstream.astype(given.dtype.numpy)}
        results = run(needed(wanted, self.point.values), arrays, self.point.values)
        return [
            np.zeros(operand.shape) if value is None else np.broadcast_to(wide(results[value]), operand.shape)
            for value, operand in zip(emitted, self.node.inputs, strict=True)
        ]


def first_wrong_value(
    order: Sequence[Value], got: Mapping[Value, np.ndarray], wrong: Callable[[Value, np.ndarray], str]
) -> str:
    """Say which node is the first that is `wrong` in a run that kept all of them; "" if none is."""
    for node in order:
        if node in got and (message := wrong(node, got[node])):
            return f"{where(node)}\n    {message}"
    return ""
