"""Kernels of scatters: rows added at positions known at run time, in the order of the rows."""

from __future__ import annotations

import math

from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, chunks, each_block
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.indexing import ScatterAdd, row_index


def lower_scatter(task: Task) -> Lowered:
    """Lower a group of kind "scatter".

    Blocks divide the columns of the rows, never the rows: two of them may go to the same place, and are added in their
    order whatever the number of threads.
    """
    (node,) = (value for value in task.group.members if isinstance(value.op, ScatterAdd))
    assert isinstance(node.op, ScatterAdd)
    updates, indices = node.inputs
    lowering = Lowering(task)
    b, evaluator = lowering.b, lowering.evaluator
    target = task.targets[node]
    width = math.prod(node.shape[1:])
    unit = 4 * task.lanes
    blocks = -(-width // unit)
    if not node.type.size:
        return lowering.finish(0)

    def some_columns(first: Index, count: int) -> None:
        for start, lanes, active in chunks(count, task.lanes):
            with b.vectorized(lanes, active):
                column = ix.lanes(first + start, active)
                with b.loop(0, node.op.size, name="row") as row:  # type: ignore[attr-defined]
                    b.store(target, row.index.scaled(width) + column, b.zero(node.dtype, lanes))
                with b.loop(0, indices.type.size, name="row") as row:
                    source = b.unravel(row.index, indices.shape)
                    with b.vectorized(1):
                        to = row_index(b, evaluator.read(indices, source), node.shape[0])
                    offset = to.scaled(width) + column
                    rest = b.unravel(column, node.shape[1:])
                    update = evaluator.read(updates, (*source, *rest))
                    b.store(target, offset, b.add(b.load(target, offset), b.broadcast(update, lanes)))

    evaluator.record(target, node, None, writes=True)
    with lowering.blocks(blocks) as block:
        each_block(b, block, unit, width, some_columns)
    return lowering.finish(blocks)
