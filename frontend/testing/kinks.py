"""Kinks on the way of a function: how near they are, and the derivative that the ops' conventions give at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gradloom.compiler.ir import Constant, Input, Value
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.ops.markers import CustomGradient, StopGradient
from gradloom.testing.differences import central
from gradloom.testing.evaluation import Known

AVOID, INTERVAL, CONVENTION = KINKS = ("avoid", "interval", "convention")

FIRST_STEP = 2.0**-5
"""The largest step of differences."""

SMALLEST_STEP = 2.0**-24
"""With a smaller first step, too few digits would be left: a kink so near is one at the point itself."""


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


def first_step(
    line: Callable[[float], Mapping[Value, np.ndarray]], values: Known, distance: Mapping[Value, float], start: float
) -> tuple[float, Value | None]:
    """Return the largest step from `start` on that crosses no kink, and which node's kink bounds it.

    The step is 0 where the point is at a kink that the line leads over. Steps are halved until no operand of a kinked
    node moves as far as the kink.
    """
    step, bound = start, None
    while distance:
        ends = line(step), line(-step)
        crossed = next((node for node, far in distance.items() if not _stays(node, values, ends, far)), None)
        if crossed is None:
            break
        step, bound = step / 4, crossed
        if step < SMALLEST_STEP:
            return 0.0, bound
    return step, bound


def _stays(node: Value, values: Known, ends: Sequence[Mapping[Value, np.ndarray]], distance: float) -> bool:
    moved = 0.0
    for operand in node.inputs:
        if operand.dtype.is_float:
            for end in ends:
                if operand in end:
                    with np.errstate(invalid="ignore"):
                        change = np.abs(end[operand] - values[operand])
                    moved = max(moved, float(np.max(np.nan_to_num(change, nan=math.inf), initial=0.0)))
    return moved == 0 or moved < distance / 1.5


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
            found[node] = local(node, [values[x] for x in node.inputs], [found.get(x) for x in node.inputs])
    return found


def local(node: Value, operands: Sequence[np.ndarray], moving: Sequence[np.ndarray | None]) -> np.ndarray:
    """The derivative of one op along tangents of its operands, None for those that do not move."""
    op = node.op
    assert isinstance(op, TensorOp)
    along = [np.zeros(x.shape) if t is None else t for x, t in zip(operands, moving, strict=True)]
    with np.errstate(all="ignore"):
        distance = op.kink_distance(*operands)
        known = op.at_kink(operands, along) if distance < math.inf else None
    if known is not None:
        return np.broadcast_to(known, node.shape).astype(np.float64)

    def line(t: float) -> np.ndarray:
        moved = [x if d is None else (x + t * d).astype(x.dtype) for x, d in zip(operands, moving, strict=True)]
        return op.reference(*moved)

    reach = max((float(np.max(np.abs(t), initial=0.0)) for t in moving if t is not None), default=0.0)
    if reach == 0:
        return np.zeros(node.shape)
    step = min(FIRST_STEP, 0.4 * distance) / max(reach, 1.0)
    return central(line, step).value if step else np.full(node.shape, np.nan)
