"""Positions: which elements of its operands a node reads, axis by axis."""

from __future__ import annotations

from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Elementwise
from gradloom.compiler.ops.movement import BroadcastTo, Reshape

Labels = tuple[int | None, ...]


def labels_below(value: Value, operand: Value, labels: Labels) -> Labels:
    """Which axis of the reader runs along each axis of an operand, from those that run along the value's axes.

    A label of None stands for a position that is computed.
    """
    rank = operand.type.rank
    if isinstance(value.op, Elementwise | BroadcastTo):
        return labels[len(labels) - rank :]
    if isinstance(value.op, Reshape) and _squeezed(value.shape) == _squeezed(operand.shape):
        moving = iter([label for label, size in zip(labels, value.shape, strict=True) if size != 1])
        return tuple(None if size == 1 else next(moving) for size in operand.shape)
    return (None,) * rank


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
