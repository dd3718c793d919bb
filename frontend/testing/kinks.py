"""Kinks on the way of a function: how near they are, and the derivative that the ops' conventions give at them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gradloom.compiler.ir import Constant, Input, Value
from gradloom.compiler.ops.base import Elementwise, TensorOp
from gradloom.compiler.ops.markers import CustomGradient, StopGradient
from gradloom.testing.differences import Derivative, central
from gradloom.testing.evaluation import Known
from gradloom.testing.lines import Line

AVOID, INTERVAL, CONVENTION = KINKS = ("avoid", "interval", "convention")

SMALLEST_STEP = 2.0**-24
"""With a smaller first step, as a part of what moves, too few digits would be left: a kink so near is one here."""


def distances(nodes: Sequence[Value], values: Known) -> dict[Value, float]:
    """How far each node is from its next kink, for the nodes that have one."""
    found = {}
    for node in nodes:
        if isinstance(node.op, TensorOp):
            with np.errstate(all="ignore"):
                distance = node.op.kink_distance(*(values[operand] for operand in node.inputs))
            if distance < math.inf:
                found[node] = distance
    return found


def first_step(line: Line, distance: Mapping[Value, float], start: float | None = None) -> float:
    """Return the largest step from `start` on that crosses no kink: no operand of a kinked node moves as far as that.

    It is 0 where the point is at a kink that the line leads over.
    """
    step = line.first_step if start is None else start
    while step >= SMALLEST_STEP * line.unit:
        if not crossed(line, distance, step):
            return step
        step /= 4
    return 0.0


def crossed(line: Line, distance: Mapping[Value, float], step: float) -> set[Value]:
    """The nodes whose kink a step along a line, in one of both ways, may cross."""
    ends = [line.at(step), line.at(-step)] if distance else []
    return {node for node, far in distance.items() if not _stays(node, line.start, ends, far)}


def _stays(node: Value, values: Known, ends: Sequence[Mapping[Value, np.ndarray]], distance: float) -> bool:
    """Whether no element moves as far as the next kink: of an elementwise op its own, else that of any."""
    moved = np.zeros(node.shape if isinstance(node.op, Elementwise) else ())
    for operand in node.inputs:
        if operand.dtype.is_float:
            for end in ends:
                if operand in end:
                    with np.errstate(invalid="ignore"):
                        change = np.nan_to_num(np.abs(end[operand] - values[operand]), nan=math.inf)
                    moved = np.maximum(moved, change if moved.ndim else np.max(change, initial=0.0))
    far = (moved > 0) & (moved >= distance / 1.5)
    if not isinstance(node.op, Elementwise):
        return not far.any()
    operands = np.broadcast_arrays(*(values[operand] for operand in node.inputs))
    while far.any():
        # The distance is that of the nearest element; those that move so far may be farther from theirs.
        with np.errstate(all="ignore"):
            distance = node.op.kink_distance(*(operand[far] for operand in operands))
        farther = far & (moved >= distance / 1.5)
        if np.array_equal(farther, far):
            return False
        far = farther
    return True


def tangents(nodes: Sequence[Value], values: Known, direction: Mapping[Value, np.ndarray]) -> dict[Value, np.ndarray]:
    """Return the derivative of each node along a direction of the inputs, by the ops' conventions at kinks.

    Everywhere else it is found by differences of the op's own reference: no gradient of any op takes part.
    """
    found: dict[Value, np.ndarray] = {}
    for node in nodes:
        if not node.dtype.is_float:
            continue
        zero = np.zeros(node.shape)
        if isinstance(node.op, Input):
            found[node] = direction.get(node, zero)
        elif isinstance(node.op, Constant | StopGradient) or not isinstance(node.op, TensorOp):
            found[node] = zero
        elif isinstance(node.op, CustomGradient):
            found[node] = found[node.inputs[0]]
        else:
            tangents = [found.get(x, np.zeros(x.shape)) for x in node.inputs]
            right = local(node, [values[x] for x in node.inputs], tangents)
            found[node] = np.where(np.isfinite(right.error), right.value, math.nan)
    return found


def local(node: Value, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> Derivative:
    """The derivative of one op along tangents of its operands: by its convention, else by differences."""
    op = node.op
    assert isinstance(op, TensorOp)
    with np.errstate(all="ignore"):
        distance = op.kink_distance(*operands)
        known = op.at_kink(operands, tangents) if distance < math.inf else None
    if known is None:
        return by_differences(alone(node, operands, tangents), node, distance)
    return Derivative(np.broadcast_to(known, node.shape).astype(np.float64), np.zeros(node.shape))


def alone(node: Value, operands: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> Line:
    """One op, while its operands move."""
    start, moving = (dict(zip(node.inputs, arrays, strict=True)) for arrays in (operands, tangents))
    return Line([*start, node], {}, start, moving, {})


def by_differences(line: Line, value: Value, distance: float) -> Derivative:
    """The derivative of a node along a line on which the next kink is at a distance; unknown if that is too near."""
    if not any(np.any(tangent) for tangent in line.tangents.values()):
        return Derivative(np.zeros(value.shape), np.zeros(value.shape))
    step = first_step(line, {value: distance} if distance < math.inf else {})
    return (
        central(line.curve(value), step) if step else Derivative(np.zeros(value.shape), np.full(value.shape, math.inf))
    )
