"""What nodes read: which memory, which elements of it axis by axis, and what they need directly or not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Elementwise
from gradloom.compiler.ops.movement import BroadcastTo, Reshape

Labels = tuple[int | None, ...]

Node = TypeVar("Node", bound=Hashable)


def storage(value: Value) -> Value:
    """The value whose memory holds `value`: a reshape shares its operand's."""
    while isinstance(value.op, Reshape):
        value = value.inputs[0]
    return value


def reads(value: Value) -> tuple[Value, ...]:
    """What a kernel reads to compute a value: its operands, or what lies below a chain of reshapes."""
    return (storage(value),) if isinstance(value.op, Reshape) else value.inputs


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


def reaches(starts: Iterable[Node], goal: Node, needs: Callable[[Node], Iterable[Node]]) -> bool:
    """Whether `goal` is one of `starts`, or one of them needs it, directly or not."""
    waiting, seen = list(starts), set[Node]()
    while waiting:
        node = waiting.pop()
        if node is goal:
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(needs(node))
    return False
