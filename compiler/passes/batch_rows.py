"""Batch rows: whether each row of a graph's results follows from the same row of its arguments alone.

Then a batch may be padded, and what stands in the padding is nobody's business. Two graphs of one computation, for
batches of different sizes, show where the batch is: it is the axis along which they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from gradloom.compiler.ir import Graph, Input, Op, Value
from gradloom.compiler.ops.base import Elementwise, Reduction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.markers import Marker
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.pooling import MaxPool, SumPool
from gradloom.compiler.types import TensorType

Axes = tuple[int | None, ...]
"""For each operand the axis of the batch, None where it has none."""


def rows_are_independent(graph: Graph, other: Graph) -> bool:
    """Whether every row of every result of `graph` follows from that row of the arguments alone, as in `other`.

    The graphs are traces of one function for batches of two sizes. False also where it is not known: where rows meet,
    where a constant depends on the size, where new state depends on the batch.
    """
    values, others = graph.live(), other.live()
    if len(values) != len(others) or len(graph.outputs) != len(other.outputs):
        return False
    numbers = {value: number for number, value in enumerate(values)}
    other_numbers = {value: number for number, value in enumerate(others)}
    batch: dict[Value, int | None] = {}
    for value, twin in zip(values, others, strict=True):
        if [numbers[v] for v in value.inputs] != [other_numbers[v] for v in twin.inputs]:
            return False
        differing = _differing(value.type, twin.type)
        if differing is None or len(differing) > 1 or type(value.op) is not type(twin.op):
            return False
        batch[value] = axis = differing[0] if differing else None
        if isinstance(value.op, Input):
            kept = _kept_input(graph, value, other, twin, axis)
        elif axis is None:
            kept = value.op == twin.op and all(batch[operand] is None for operand in value.inputs)
        else:
            kept = _keeps_rows(value, tuple(batch[operand] for operand in value.inputs), axis)
            kept = kept and _same_operation(value.op, twin.op)
        if not kept:
            return False
    return all(
        numbers[output.value] == other_numbers[twin.value]
        and batch[output.value] == (0 if output.donor is None else None)
        for output, twin in zip(graph.outputs, other.outputs, strict=True)
    ) and all(_has_all_rows(graph, output.value) for output in graph.outputs if output.donor is None)


def _differing(one: TensorType, other: TensorType) -> list[int] | None:
    """The axes along which two types differ; None for types of another dtype or rank."""
    if one.dtype != other.dtype or one.rank != other.rank:
        return None
    return [axis for axis in range(one.rank) if one.shape[axis] != other.shape[axis]]


def _kept_input(graph: Graph, value: Value, other: Graph, twin: Value, axis: int | None) -> bool:
    """Whether an input is one row for each sample, or the same for both batches."""
    op, twin_op = value.op, twin.op
    assert isinstance(op, Input) and isinstance(twin_op, Input)
    if op.role == "argument":
        return axis == 0 and op.label == twin_op.label
    if op.role == "captured":
        return axis is None and np.array_equal(graph.captured[op.label], other.captured[twin_op.label], equal_nan=True)
    return op == twin_op


def _same_operation(op: Op, twin: Op) -> bool:
    """Whether two ops differ at most in sizes that they name."""
    if isinstance(op, Slice) and isinstance(twin, Slice):
        return (op.start, op.stride) == (twin.start, twin.stride)
    return op == twin or isinstance(op, (Reshape, BroadcastTo))


def _has_all_rows(graph: Graph, value: Value) -> bool:
    """Whether a result has as many rows as the arguments."""
    rows = {v.shape[0] for v in graph.inputs if isinstance(v.op, Input) and v.op.role == "argument"}
    return rows == {value.shape[0]}


def _keeps_rows(value: Value, axes: Axes, axis: int) -> bool:
    """Whether a node whose result has the batch along `axis` reads of its operands, each row, that row alone."""
    if all(operand is None for operand in axes):
        # The same for all samples, if it is only repeated; a random number or a position is not.
        return isinstance(value.op, BroadcastTo)
    for kind, rule in RULES.items():
        if isinstance(value.op, kind):
            return rule(value, axes, axis)
    return False


def _aligned(value: Value, axes: Axes, axis: int) -> bool:
    """Broadcast by NumPy's rule: axes correspond from the last one backwards."""
    return all(
        at is None or value.type.rank - axis == operand.type.rank - at
        for operand, at in zip(value.inputs, axes, strict=True)
    )


def _reduce(value: Value, axes: Axes, axis: int) -> bool:
    (at,), op = axes, value.op
    assert isinstance(op, Reduction) and at is not None
    return at not in op.axes and axis == at - sum(reduced < at for reduced in op.axes)


def _transpose(value: Value, axes: Axes, axis: int) -> bool:
    assert isinstance(value.op, Transpose)
    return value.op.permutation[axis] == axes[0]


def _reshape(value: Value, axes: Axes, axis: int) -> bool:
    """In row-major order samples stay whole if as many elements' runs stand before the batch as did."""
    (operand,), (at,) = value.inputs, axes
    return prod(operand.shape[:at]) == prod(value.shape[:axis])


def _slice(value: Value, axes: Axes, axis: int) -> bool:
    op = value.op
    assert isinstance(op, Slice)
    return axes == (axis,) and op.start[axis] == 0 and op.stride[axis] == 1 and value.shape[axis] == _size(value, axis)


def _pad(value: Value, axes: Axes, axis: int) -> bool:
    return axes == (axis,) and value.shape[axis] == _size(value, axis)


def _size(value: Value, axis: int) -> int:
    return value.inputs[0].shape[axis]


def _reverse(value: Value, axes: Axes, axis: int) -> bool:
    assert isinstance(value.op, Reverse)
    return axes == (axis,) and axis not in value.op.axes


def _concatenate(value: Value, axes: Axes, axis: int) -> bool:
    assert isinstance(value.op, Concatenate)
    return value.op.axis != axis and set(axes) == {axis}


def _matmul(value: Value, axes: Axes, axis: int) -> bool:
    """Along a leading axis, or the rows of the first operand, or the columns of the second."""
    op, rank = value.op, value.type.rank
    assert isinstance(op, Matmul)
    for place, (operand, at) in enumerate(zip(value.inputs, axes, strict=True)):
        if at is None:
            continue
        from_last = operand.type.rank - at
        if from_last <= 2:
            stored_apart = op.transpose_b if place else op.transpose_a
            free = (2 if place == 0 else 1) if not stored_apart else (1 if place == 0 else 2)
            if from_last != free or axis != rank - (2 if place == 0 else 1):
                return False
        elif rank - axis != from_last:
            return False
    return True


def _images(value: Value, axes: Axes, axis: int) -> bool:
    """Images in the first operand, and nothing of the batch in a kernel."""
    return axes[0] == axis == 0 and all(at is None for at in axes[1:])


def _gather(value: Value, axes: Axes, axis: int) -> bool:
    """Rows of a table, known by the samples' indices; or what all samples know, of the samples' tables."""
    (table, indices), rank = axes, value.inputs[1].type.rank
    if table is None:
        return indices == axis
    return indices is None and table > 0 and axis == rank + table - 1


RULES: dict[type, Callable[[Value, Axes, int], bool]] = {
    Elementwise: _aligned,
    Marker: _aligned,
    BroadcastTo: _aligned,
    Reduction: _reduce,
    Transpose: _transpose,
    Reshape: _reshape,
    Slice: _slice,
    Pad: _pad,
    Reverse: _reverse,
    Concatenate: _concatenate,
    Matmul: _matmul,
    Conv2D: _images,
    MaxPool: _images,
    SumPool: _images,
    Gather: _gather,
}
"""What each op does to rows; all others are taken to mix them."""
