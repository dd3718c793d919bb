"""Kernels of elementwise groups: every result has one shape, and each element is computed from the same position."""

from __future__ import annotations

import math

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import (
    Lowered,
    Lowering,
    Task,
    block_unit,
    column_hint,
    columns,
    cost_of,
    each_block,
    row_hint,
    tail,
)
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Elementwise, Position
from gradloom.compiler.passes.reading import storage


def lower_map(task: Task) -> Lowered:
    """Lower a group of kind "map"."""
    return lower_flat(task) if is_flat(task) else lower_rows(task)


def is_flat(task: Task) -> bool:
    """All tensors have the results' shape or one element, so that one axis can stand for all."""
    shape = task.group.results[0].shape
    size = math.prod(shape)
    if any(any(task.stored[v].border) for v in _read(task)) or any(any(b.border) for b in task.targets.values()):
        return False
    return len(shape) != 1 and all(
        isinstance(member.op, Elementwise)
        and all(operand.shape == shape or operand.type.size == 1 for operand in member.inputs)
        and member.type.size in (1, size)
        for member in task.group.members
    )


def _read(task: Task) -> set[Value]:
    """The values that the group reads from memory."""
    operands = {storage(operand) for member in task.group.members for operand in member.inputs}
    return (operands | set(task.group.results)) & task.stored.keys()


def lower_flat(task: Task) -> Lowered:
    """One loop over all elements in row-major order."""
    lowering = Lowering(task, flat=True)
    b, results = lowering.b, task.group.results
    size, lanes = results[0].type.size, task.lanes
    if size <= lanes:
        with lowering.blocks(1 if size else 0):
            for begin, width, active in tail(0, size):
                with b.vectorized(width, active):
                    lowering.store(results, (ix.lanes(ix.constant(begin), active),))
        return lowering.finish(1 if size else 0)
    unit = block_unit(task.machine, size // lanes, cost_of(task.group.members)) * lanes
    # The last block also takes the partial vector at the end.
    whole = size // lanes * lanes
    blocks = -(-whole // unit)
    with lowering.blocks(blocks) as block:
        start = block.scaled(unit)
        with b.vectorized(lanes), b.loop(0, lowering.span(block, unit, whole), lanes, high=unit - lanes) as loop:
            lowering.store(results, (ix.lanes(start + loop.index, lanes),))
        for begin, width, active in tail(whole, size):
            last = b.compare("eq", b.expr(block), blocks - 1)
            with b.when(last), b.vectorized(width, active):
                lowering.store(results, (ix.lanes(ix.constant(begin), active),))
    return lowering.finish(blocks)


def lower_rows(task: Task) -> Lowered:
    """A loop over all axes but the last, and vectors along the last one."""
    lowering = Lowering(task)
    b, results = lowering.b, task.group.results
    shape = results[0].shape or (1,)
    outer, width = shape[:-1], shape[-1]
    rows = math.prod(outer)
    if not rows * width:
        return lowering.finish(0)
    if rows == 1 and (unit := column_hint(task, width)) is not None:
        blocks = -(-width // unit)
        leading = (ix.constant(0),) * len(outer)
        with lowering.blocks(blocks) as block:
            each_block(b, block, unit, width, lambda first, count: _columns(lowering, leading, first, count))
        return lowering.finish(blocks)
    cost = cost_of(task.group.members) * width / min(task.lanes, width)
    unit = block_unit(task.machine, rows, cost, row_hint(task, shape) if len(shape) == 2 else None)
    blocks = -(-rows // unit)
    with (
        lowering.blocks(blocks) as block,
        b.loop(0, lowering.span(block, unit, rows), high=unit - 1, name="row") as row,
    ):
        leading = b.unravel(block.scaled(unit) + row.index, outer)
        _columns(lowering, leading, ix.constant(0), width)
    return lowering.finish(blocks)


def _columns(lowering: Lowering, leading: Position, first: Index, count: int) -> None:
    """Adjacent elements along the last axis (of a scalar, its only one)."""
    results = lowering.task.group.results
    rank = len(results[0].shape)
    columns(lowering.b, count, lowering.task.lanes, lambda j: lowering.store(results, (*leading, first + j)[:rank]))
