"""Kernels of reductions that keep the last axis: sums over a batch, with the kept axis in the vector lanes.

n elements are combined in chains of 256, whose results are combined in a chain: none is longer than 256 + n / 256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import (
    Lowered,
    Lowering,
    Task,
    block_unit,
    chunks,
    column_hint,
    cost_of,
    each_block,
)
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position, Reduction

VECTORS = 4
"""Vectors of columns that are summed side by side: enough independent chains to hide the latency of an addition."""

CHAIN = 256
"""Elements that are combined one after the other; the results of such chains are then combined in one more."""


def lower_reduce(task: Task) -> Lowered:
    """Lower a group of kind "reduce": reductions over one set of axes, and what is computed from the results."""
    lowering = Lowering(task)
    b = lowering.b
    reductions = [value for value in task.group.members if isinstance(value.op, Reduction)]
    shape = reductions[0].shape
    outer, width = shape[:-1], shape[-1]
    rows = math.prod(outer)
    if not rows * width:
        return lowering.finish(0)
    summed = math.prod(reductions[0].inputs[0].shape) // (rows * width)
    cost = cost_of(task.group.members) * summed / task.lanes
    if rows > 1:
        unit = block_unit(task.machine, rows, cost * width)
        blocks = -(-rows // unit)
        with lowering.blocks(blocks) as block, b.loop(0, lowering.span(block, unit, rows), high=unit - 1) as loop:
            leading = b.unravel(block.scaled(unit) + loop.index, outer)
            _columns(lowering, reductions, leading, ix.constant(0), width)
        return lowering.finish(blocks)
    vectors = -(-width // task.lanes)
    unit = column_hint(task, width) or block_unit(task.machine, vectors, cost * task.lanes) * task.lanes
    blocks = -(-width // unit)
    leading = (ix.constant(0),) * len(outer)
    with lowering.blocks(blocks) as block:
        each_block(b, block, unit, width, lambda first, count: _columns(lowering, reductions, leading, first, count))
    return lowering.finish(blocks)


def _columns(lowering: Lowering, reductions: Sequence[Value], leading: Position, first: Index, width: int) -> None:
    """Reduce `width` adjacent columns from `first` on, a few vectors at a time."""
    b, lanes = lowering.b, lowering.task.lanes
    together = lanes * VECTORS
    whole = width // together
    if whole > 1:
        with b.loop(0, whole * together, together, name="j") as loop:
            _vectors(
                lowering, reductions, leading, first + loop.index, [(n * lanes, lanes, lanes) for n in range(VECTORS)]
            )
    elif whole:
        _vectors(lowering, reductions, leading, first, chunks(together, lanes))
    if width % together:
        _vectors(lowering, reductions, leading, first + whole * together, chunks(width % together, lanes))


def _vectors(
    lowering: Lowering,
    reductions: Sequence[Value],
    leading: Position,
    first: Index,
    vectors: Sequence[tuple[int, int, int]],
) -> None:
    """Reduce the vectors of columns (start, lanes, active) behind `first` in one loop over the reduced axes."""
    b, evaluator = lowering.b, lowering.evaluator
    operand = reductions[0].inputs[0]
    op = reductions[0].op
    assert isinstance(op, Reduction)
    sizes = [operand.shape[axis] for axis in op.axes]
    jobs = [(reduction, *vector) for vector in vectors for reduction in reductions]
    identities = [_identity(lowering, reduction, width) for reduction, _, width, _ in jobs]

    def combine(partial: Sequence[Expr], place: Index) -> list[Expr]:
        """Take in the elements at one place along the reduced axes."""
        reduced = b.unravel(place, sizes)
        totals = []
        for so_far, (reduction, start, width, active) in zip(partial, jobs, strict=True):
            with b.vectorized(width, active):
                kept = (*leading, ix.lanes(first + start, active))
                element = evaluator.read(reduction.inputs[0], _merge(kept, reduced, op.axes))
                totals.append(b.binary(reduction.op.opcode, so_far, b.broadcast(element, width)))  # type: ignore[attr-defined]
        return totals

    count = math.prod(sizes)
    if count <= CHAIN:
        with b.loop(0, count, initial=identities, name="k") as loop:
            loop.next(*combine(loop.carried, loop.index))
    else:
        with b.loop(0, -(-count // CHAIN), initial=identities, name="chain") as loop:
            length = lowering.span(loop.index, CHAIN, count)
            with b.loop(0, length, initial=identities, high=CHAIN - 1, name="k") as link:
                link.next(*combine(link.carried, loop.index.scaled(CHAIN) + link.index))
            loop.next(
                *(
                    b.binary(reduction.op.opcode, total, partial)  # type: ignore[attr-defined]
                    for total, partial, (reduction, *_) in zip(loop.carried, link.results, jobs, strict=True)
                )
            )
    results: dict[tuple[Value, int], Expr] = {
        (reduction, start): result for result, (reduction, start, _, _) in zip(loop.results, jobs, strict=True)
    }
    for start, width, active in vectors:
        with b.vectorized(width, active):
            for reduction in reductions:
                result = results[reduction, start]
                evaluator.given[reduction] = lambda position, result=result: result  # type: ignore[misc]
            lowering.store(lowering.task.group.results, (*leading, ix.lanes(first + start, active)))


def _identity(lowering: Lowering, reduction: Value, lanes: int) -> Expr:
    op, dtype = reduction.op, reduction.inputs[0].dtype
    assert isinstance(op, Reduction)
    return lowering.b.const(op.identity(dtype), dtype, lanes)


def _merge(kept: Position, reduced: Position, axes: Sequence[int]) -> Position:
    """The position in the operand, from the position in the result and the one along the reduced axes."""
    kept_axes, reduced_axes = iter(kept), iter(reduced)
    return tuple(next(reduced_axes if axis in axes else kept_axes) for axis in range(len(kept) + len(reduced)))
