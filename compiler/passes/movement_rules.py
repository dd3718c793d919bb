"""Rewrite rules of movement ops: what moves nothing vanishes, what moves twice moves once, and views end at inputs.

All of them are exact, unless they say otherwise: moving an element changes none of its bits.
"""

from __future__ import annotations

from gradloom.compiler.ir import Constant, Input, Value
from gradloom.compiler.ops.base import Elementwise
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.markers import Marker
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.passes.fold import literal
from gradloom.compiler.passes.rewrite import Draft, Rule, rule_on


@rule_on(Marker)
def marker(graph: Draft, value: Value) -> Value | None:
    """stop_gradient(x) → x, and likewise for the other marks that only gradients see."""
    return value.inputs[0]


@rule_on(Reshape)
def reshape_to_same(graph: Draft, value: Value) -> Value | None:
    """reshape(x, shape of x) → x"""
    (x,) = value.inputs
    return x if x.shape == value.shape else None


@rule_on(Reshape)
def reshape_reshape(graph: Draft, value: Value) -> Value | None:
    """reshape(reshape(x, s), t) → reshape(x, t)"""
    (inner,) = value.inputs
    return graph.apply(value.op, inner.inputs[0]) if isinstance(inner.op, Reshape) else None


@rule_on(Reshape)
def reshape_gather(graph: Draft, value: Value) -> Value | None:
    """reshape(gather(t, i)) → gather(reshape(t), i) where the axes of i are kept: the table is in memory, and a view"""
    (inner,) = value.inputs
    if not isinstance(inner.op, Gather):
        return None
    table, indices = inner.inputs
    if value.shape[: indices.ndim] != indices.shape:
        return None
    rows = graph.apply(Reshape((table.shape[0], *value.shape[indices.ndim :])), table)
    return graph.apply(Gather(), rows, indices)


@rule_on(Transpose)
def transpose_identity(graph: Draft, value: Value) -> Value | None:
    """transpose(x, 0 1 2 …) → x"""
    assert isinstance(value.op, Transpose)
    return value.inputs[0] if value.op.permutation == tuple(range(value.ndim)) else None


@rule_on(Transpose)
def transpose_transpose(graph: Draft, value: Value) -> Value | None:
    """transpose(transpose(x, p), q) → transpose(x, p∘q)"""
    (inner,) = value.inputs
    if not isinstance(inner.op, Transpose):
        return None
    assert isinstance(value.op, Transpose)
    return graph.apply(Transpose(tuple(inner.op.permutation[axis] for axis in value.op.permutation)), inner.inputs[0])


@rule_on(Transpose)
def transpose_unit_axes(graph: Draft, value: Value) -> Value | None:
    """transpose(x, p) → reshape(x) where p moves nothing but axes of size 1"""
    assert isinstance(value.op, Transpose)
    (x,) = value.inputs
    moved = [axis for axis in value.op.permutation if x.shape[axis] != 1]
    return graph.apply(Reshape(value.shape), x) if moved == sorted(moved) else None


@rule_on(BroadcastTo)
def broadcast_to_same(graph: Draft, value: Value) -> Value | None:
    """broadcast(x, shape of x) → x"""
    (x,) = value.inputs
    return x if x.shape == value.shape else None


@rule_on(BroadcastTo)
def broadcast_broadcast(graph: Draft, value: Value) -> Value | None:
    """broadcast(broadcast(x, s), t) → broadcast(x, t)"""
    (inner,) = value.inputs
    return graph.apply(value.op, inner.inputs[0]) if isinstance(inner.op, BroadcastTo) else None


@rule_on(BroadcastTo)
def broadcast_leading(graph: Draft, value: Value) -> Value | None:
    """broadcast(reshape(x, 1…×s), t) → broadcast(x, t) for x of shape s: leading axes come by themselves"""
    stripped = without_leading(value.inputs[0])
    return None if stripped is None else graph.apply(value.op, stripped)


def without_leading(value: Value) -> Value | None:
    """The x of `value = reshape(x, 1…×s)`, where s is the shape of x; None for any other value."""
    if not isinstance(value.op, Reshape):
        return None
    (x,) = value.inputs
    new = value.ndim - x.ndim
    return x if new > 0 and value.shape == (1,) * new + x.shape else None


@rule_on(Reshape, Transpose, Slice, Reverse)
def move_filled(graph: Draft, value: Value) -> Value | None:
    """reshape(broadcast(c, s), t) → broadcast(c, t) for a single number c; likewise transpose, slice and reverse"""
    (x,) = value.inputs
    if not isinstance(x.op, BroadcastTo) or x.inputs[0].type.size != 1:
        return None
    return graph.apply(BroadcastTo(value.shape), graph.apply(Reshape(()), x.inputs[0]))


@rule_on(Slice)
def slice_whole(graph: Draft, value: Value) -> Value | None:
    """slice(x, 0, size of x) → x"""
    (x,) = value.inputs
    return x if x.shape == value.shape else None


@rule_on(Slice)
def slice_slice(graph: Draft, value: Value) -> Value | None:
    """slice(slice(x)) → slice(x)"""
    (inner,) = value.inputs
    if not isinstance(inner.op, Slice) or not value.type.size:
        return None
    assert isinstance(value.op, Slice)
    axes = range(value.ndim)
    stride = tuple(inner.op.stride[i] * value.op.stride[i] for i in axes)
    start = tuple(inner.op.start[i] + inner.op.stride[i] * value.op.start[i] for i in axes)
    stop = tuple(start[i] + stride[i] * (value.shape[i] - 1) + 1 for i in axes)
    return graph.apply(Slice(start, stop, stride), inner.inputs[0])


@rule_on(Pad)
def pad_nothing(graph: Draft, value: Value) -> Value | None:
    """pad(x, no zeros) → x"""
    (x,) = value.inputs
    return x if x.shape == value.shape else None


@rule_on(Concatenate)
def concatenate_one(graph: Draft, value: Value) -> Value | None:
    """concatenate(x) → x; operands without elements are dropped"""
    kept = [x for x in value.inputs if x.type.size]
    if len(kept) == len(value.inputs) > 1 or not kept:
        return None
    return kept[0] if len(kept) == 1 else graph.apply(value.op, *kept)


@rule_on(Reverse)
def reverse_unit_axes(graph: Draft, value: Value) -> Value | None:
    """reverse(x, axes of size 1) → x"""
    assert isinstance(value.op, Reverse)
    axes = tuple(axis for axis in value.op.axes if value.shape[axis] > 1)
    if axes == value.op.axes and axes:
        return None
    return graph.apply(Reverse(axes), value.inputs[0]) if axes else value.inputs[0]


@rule_on(Reverse)
def reverse_reverse(graph: Draft, value: Value) -> Value | None:
    """reverse(reverse(x, a), b) → reverse(x, the axes in one of a and b)"""
    (inner,) = value.inputs
    if not isinstance(inner.op, Reverse):
        return None
    assert isinstance(value.op, Reverse)
    return graph.apply(Reverse(tuple(sorted({*inner.op.axes} ^ {*value.op.axes}))), inner.inputs[0])


@rule_on(Elementwise)
def broadcast_into_elementwise(graph: Draft, value: Value) -> Value | None:
    """f(broadcast(x), y) → f(x, y) where y has the result's shape already, else broadcast(f(x, y)); f broadcasts itself

    Likewise for a reshape that adds leading axes, and for a literal filled with one number.
    """
    bare = [_before_broadcast(graph, operand) for operand in value.inputs]
    if all(operand is old for operand, old in zip(bare, value.inputs, strict=True)):
        return None
    result = graph.apply(value.op, *bare)
    return result if result.shape == value.shape else graph.apply(BroadcastTo(value.shape), result)


def _before_broadcast(graph: Draft, operand: Value) -> Value:
    """The smaller value that broadcasting turns into `operand`, or `operand` itself."""
    if isinstance(operand.op, BroadcastTo):
        return operand.inputs[0]
    if isinstance(operand.op, Constant) and operand.ndim:
        number = literal(operand)
        return operand if number is None else graph.constant(number)
    stripped = without_leading(operand)
    return operand if stripped is None else stripped


@rule_on(Reshape)
def reshape_elementwise(graph: Draft, value: Value) -> Value | None:
    """reshape(f(x, c)) → f(reshape(x), c), down to inputs and gathered rows, where a reshape is a view

    Applies where every operand is a single number or has the shape of the result, and nobody else reads the result.
    """
    (inner,) = value.inputs
    if not isinstance(inner.op, Elementwise) or not _reshape_sinks(graph, inner):
        return None
    operands = [graph.apply(Reshape(() if x.shape != inner.shape else value.shape), x) for x in inner.inputs]
    return graph.apply(inner.op, *operands)


def _reshape_sinks(graph: Draft, value: Value) -> bool:
    """Whether a reshape of `value` can move down to views, without computing anything twice."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node.op, Input | Constant | Gather | Reshape):
            continue
        if not isinstance(node.op, Elementwise) or graph.shared(node):
            return False
        if any(x.shape != node.shape and x.type.size != 1 for x in node.inputs):
            return False
        pending += [x for x in node.inputs if x.shape == node.shape]
    return True


@rule_on(Transpose)
def transpose_elementwise(graph: Draft, value: Value) -> Value | None:
    """transpose(f(transpose(x, p), y)) → f(x', transpose(y)) where all operands of f absorb the transpose

    A transpose is absorbed by a transpose, by a single number, and by an operand that only axes of size 1 are moved in.
    """
    (inner,) = value.inputs
    if not isinstance(inner.op, Elementwise) or graph.shared(inner):
        return None
    assert isinstance(value.op, Transpose)
    order = value.op.permutation
    if not any(isinstance(x.op, Transpose) for x in inner.inputs):
        return None
    if not all(x.type.size == 1 or isinstance(x.op, Transpose) or _order_kept(x, order) for x in inner.inputs):
        return None
    return graph.apply(inner.op, *(transposed_operand(x, order) for x in inner.inputs))


def _order_kept(operand: Value, order: tuple[int, ...]) -> bool:
    """Whether a transpose of the result leaves the order of the operand's elements as it is."""
    shape = (1,) * (len(order) - operand.ndim) + operand.shape
    moved = [axis for axis in order if shape[axis] != 1]
    return moved == sorted(moved)


def transposed_operand(operand: Value, order: tuple[int, ...]) -> Value:
    """The operand of an elementwise op whose result is wanted with its axes in another order."""
    apply = operand.graph.apply
    if operand.type.size == 1:
        return operand if not operand.ndim else apply(Reshape(()), operand)
    shape = (1,) * (len(order) - operand.ndim) + operand.shape
    return apply(Transpose(order), operand if shape == operand.shape else apply(Reshape(shape), operand))


RULES: tuple[Rule, ...] = (
    marker,
    reshape_to_same,
    reshape_reshape,
    reshape_gather,
    transpose_identity,
    transpose_transpose,
    transpose_unit_axes,
    broadcast_to_same,
    broadcast_broadcast,
    broadcast_leading,
    move_filled,
    slice_whole,
    slice_slice,
    pad_nothing,
    concatenate_one,
    reverse_unit_axes,
    reverse_reverse,
    broadcast_into_elementwise,
    reshape_elementwise,
    transpose_elementwise,
)
