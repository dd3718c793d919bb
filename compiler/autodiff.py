"""Reverse-mode differentiation: gradients as nodes of the same graph, in one walk over it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from gradloom.compiler.errors import GradloomError, NoGradientError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.ops.movement import BroadcastTo, Reshape
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.provenance import Provenance, origin_scope
from gradloom.compiler.types import OPEN, TensorType


def gradients(
    outputs: Sequence[Value], wrt: Sequence[Value], cotangents: Sequence[Value | None] | None = None
) -> list[Value]:
    """Return the derivatives of `outputs`, weighted by `cotangents`, by each of `wrt`, as nodes of their graph.

    A cotangent has its output's type, f32 for bf16; by default it is 1, so that outputs are summed. What no output
    depends on gets zeros. Every node between is visited once. Raises `NoGradientError` for integers and bools among
    `outputs` or `wrt`, and for an op without a gradient, naming it and its layer.
    """
    outputs, wrt = list(outputs), list(wrt)
    seeds = [None] * len(outputs) if cotangents is None else list(cotangents)
    _check(outputs, wrt, seeds)
    between = _between(outputs, wrt)
    contributions: dict[Value, list[Value]] = {value: [] for value in between}
    for output, seed in zip(outputs, seeds, strict=True):
        if output in contributions:
            contributions[output].append(_ones(output) if seed is None else seed)
    wanted, found = set(wrt), {}
    for node in reversed(between):
        parts = contributions.pop(node)
        if not parts:
            continue
        with origin_scope(_origins(node)):
            cotangent = _total(parts, node)
            if node in wanted:
                found[node] = cotangent
            for operand, part in zip(node.inputs, _vjp(node, cotangent, contributions), strict=True):
                if part is not None and operand in contributions:
                    contributions[operand].append(part)
    return [found[value] if value in found else _zeros(value) for value in wrt]


def _check(outputs: Sequence[Value], wrt: Sequence[Value], seeds: Sequence[Value | None]) -> None:
    for value in (*outputs, *wrt):
        if not value.dtype.is_float or OPEN in value.shape:
            raise NoGradientError(f"Expected floats of known shape to differentiate. Received: {value!r}")
    # By identity: equal graphs are still two.
    if len({id(value.graph) for value in (*outputs, *wrt)}) > 1:
        raise GradloomError("Expected values of one graph to differentiate")
    for output, seed in zip(outputs, seeds, strict=True):
        wanted = TensorType(output.dtype.arithmetic, output.shape)
        if seed is not None and seed.type != wanted:
            raise ShapeError(f"Expected a cotangent of its output's type {wanted}. Received: {seed.type}")


def _between(outputs: Sequence[Value], wrt: Sequence[Value]) -> list[Value]:
    """The nodes that outputs depend on and that depend on one of `wrt`, in topological order."""
    if not outputs or not wrt:
        return []
    needed, moved = set(outputs), set(wrt)
    values = outputs[0].graph.values[: max(output.number for output in outputs) + 1]
    for value in reversed(values):
        if value in needed:
            needed.update(value.inputs)
    for value in values:
        # Derivatives pass through floats only.
        if value in needed and value.dtype.is_float and any(operand in moved for operand in value.inputs):
            moved.add(value)
    return [value for value in values if value in needed and value in moved]


def _vjp(node: Value, cotangent: Value, active: dict[Value, list[Value]]) -> Sequence[Value | None]:
    """The cotangents of a node's operands; none where no operand leads to what is differentiated by."""
    if not any(operand in active for operand in node.inputs):
        return [None] * len(node.inputs)
    if not isinstance(node.op, TensorOp):
        raise NoGradientError(_located(f"op {node.op.name!r} has no gradient", node))
    try:
        return node.op.vjp(node, cotangent)
    except NoGradientError as error:
        raise NoGradientError(_located(str(error), node)) from None


def _located(message: str, node: Value) -> str:
    where = "; ".join(sorted(str(origin) for origin in node.graph.provenance[node] if str(origin)))
    return f"{message}: {node!r}" + (f"  [{where}]" if where else "")


def _origins(node: Value) -> list[Provenance]:
    """A gradient node belongs to its forward node's layer and line, and knows that node."""
    return [Provenance(origin.layer, origin.source, node.number) for origin in node.graph.provenance[node]]


def _total(parts: Sequence[Value], node: Value) -> Value:
    """The sum of a node's cotangents: first those of one shape, so that each shape is summed down just once."""
    by_shape: dict[tuple[int, ...], Value] = {}
    for part in parts:
        known = by_shape.get(part.shape)
        by_shape[part.shape] = part if known is None else known + part
    first, *rest = (_unbroadcast(part, node.shape) for part in by_shape.values())
    for part in rest:
        first = first + part
    return first


def _unbroadcast(cotangent: Value, shape: tuple[int, ...]) -> Value:
    """Sum over the axes along which an operand of `shape` was repeated."""
    graph = cotangent.graph
    extra = len(cotangent.shape) - len(shape)
    if extra < 0:
        # A cotangent that is equal everywhere may come as a scalar.
        return graph.apply(BroadcastTo(shape), cotangent)
    aligned = (1,) * extra + shape
    axes = tuple(
        axis for axis, size in enumerate(aligned) if axis < extra or (size == 1 and cotangent.shape[axis] != 1)
    )
    if axes:
        cotangent = graph.apply(Sum(axes), cotangent)
    if cotangent.shape != shape and cotangent.type.size == prod(shape):
        return graph.apply(Reshape(shape), cotangent)
    return cotangent if cotangent.shape == shape else graph.apply(BroadcastTo(shape), cotangent)


def _ones(value: Value) -> Value:
    return _filled(value, 1)


def _zeros(value: Value) -> Value:
    return _filled(value, 0)


def _filled(value: Value, number: int) -> Value:
    scalar = value.graph.constant(number, value.dtype.arithmetic)
    return value.graph.apply(BroadcastTo(value.shape), scalar) if value.shape else scalar
