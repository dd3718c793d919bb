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
from gradloom.testing.differences import central
from gradloom.testing.evaluation import needed, run, unit, wide
from gradloom.testing.kinks import FIRST_STEP, SMALLEST_STEP
from gradloom.testing.problem import Point, Problem, label, signed


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
    roots = problem.outputs if order == 1 else [problem.levels[order - 1]] if order <= len(problem.levels) else []
    roots = roots or problem.derivatives[0]
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
            local = _Local(problem, point, node, rng, conventions)
            found = local.mismatch()
        except NoGradientError:
            continue
        if found:
            return f"{where(node)}\n    {found}{local.text()}"
    return ""


class _Local:
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

    def mismatch(self) -> str:
        """What is wrong with the node's cotangents; "" if nothing is, or if it is at a kink."""
        op, custom = self.node.op, isinstance(self.node.op, CustomGradient)
        assert isinstance(op, TensorOp)
        with np.errstate(all="ignore"):
            distance = math.inf if custom else op.kink_distance(*self.values)
        if distance < SMALLEST_STEP and not self.conventions:
            return ""
        line = self._custom if custom else self._reference
        cotangents = self._custom_cotangents() if custom else self._cotangents()
        for place in range(1 if custom else 0, len(self.values)):
            if self.node.inputs[place].dtype.is_float and self.values[place].size:
                along = signed(self.rng, self.values[place].shape)
                message = self._compared(place, along, cotangents[place], line, distance)
                if message:
                    return message
        return ""

    def text(self) -> str:
        """The node with its gradient as a graph of its own; "" where a Python function is its gradient."""
        if self.graph is None:
            return ""
        return f"\n  alone, with its gradient:\n{indent(str(self.graph).rstrip(), '    ')}"

    def _compared(
        self,
        place: int,
        along: np.ndarray,
        cotangent: np.ndarray,
        line: Callable[[int, np.ndarray], Callable[[float], np.ndarray]],
        distance: float,
    ) -> str:
        op = self.node.op
        assert isinstance(op, TensorOp)
        known = None
        if distance < math.inf:
            tangents = [along if at == place else np.zeros(x.shape) for at, x in enumerate(self.values)]
            known = op.at_kink(self.values, tangents)
        if known is None and distance < SMALLEST_STEP:
            return ""
        with np.errstate(all="ignore"):
            if known is not None:
                right, error = np.broadcast_to(known, self.node.shape), np.zeros(())
            else:
                found = central(line(place, along), min(FIRST_STEP, 0.3 * distance))
                right, error = found.value, found.error
            expected, received = float(np.sum(right * self.upstream)), float(np.sum(wide(cotangent) * along))
            size = float(np.sum(np.abs(right * self.upstream)) + np.sum(np.abs(cotangent * along)))
            rounding = (1e-8 + 1e3 * unit(self.node)) * size
            tolerance = 10 * float(np.sum(np.abs(error * self.upstream))) + rounding
        if abs(received - expected) <= tolerance or not np.isfinite(expected):
            return ""
        operand = self.node.inputs[place]
        return f"its cotangent for operand {place} (%{operand.number}), along a direction: {received:.9g} where " + (
            f"{expected:.9g} is right"
        )

    def _reference(self, place: int, along: np.ndarray) -> Callable[[float], np.ndarray]:
        op = self.node.op
        assert isinstance(op, TensorOp)

        def at(t: float) -> np.ndarray:
            moved = [x + t * along if at == place else x for at, x in enumerate(self.values)]
            return wide(op.reference(*(x.astype(known.dtype) for x, known in zip(moved, self.values, strict=True))))

        return at

    def _cotangents(self) -> list[np.ndarray]:
        graph = self.graph = Graph("node")
        operands = [graph.input(f"x{at}", TensorType(v.dtype, v.shape)) for at, v in enumerate(self.node.inputs)]
        result = graph.apply(self.node.op, *operands, provenance=())
        upstream = graph.input("upstream", TensorType(result.dtype.arithmetic, result.shape))
        floats = [operand for operand in operands if operand.dtype.is_float]
        found = dict(zip(floats, gradients([result], floats, [upstream]), strict=True))
        graph.output("result", result)
        for operand in floats:
            graph.output(f"gradient_{label(operand)}", found[operand])
        given = {f"x{at}": array for at, array in enumerate(self.values)}
        results = run(graph.values, {**given, "upstream": self.upstream.astype(upstream.dtype.numpy)})
        return [results[found[x]] if x in found else np.zeros(x.shape) for x in operands]

    def _custom(self, place: int, along: np.ndarray) -> Callable[[float], np.ndarray]:
        """What a function with a gradient of its own computes, when one of its arguments moves."""
        result, *arguments = self.node.inputs
        order = needed([result], set(arguments))

        def at(t: float) -> np.ndarray:
            moved = {
                argument: (array + t * along if number == place else array).astype(array.dtype)
                for number, (argument, array) in enumerate(zip(arguments, self.values[1:], strict=True), start=1)
            }
            return wide(run(order, self.point.arrays, {**self.point.fixed, **moved})[result])

        return at

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
