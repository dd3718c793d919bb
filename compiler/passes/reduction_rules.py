"""Rewrite rules of reductions and contractions: unit axes, nested reductions, transposes that a flag can say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Reduction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.movement import Reshape, Transpose
from gradloom.compiler.passes.rewrite import Draft, Rule, rule_on


def _along(op: Reduction, axes: tuple[int, ...]) -> Reduction:
    """The same reduction along other axes."""
    attributes: dict[str, Any] = {"axes": axes}
    return replace(op, **attributes)  # type: ignore[type-var]


@rule_on(Reduction)
def reduce_unit_axes(graph: Draft, value: Value) -> Value | None:
    """sum(x, axes of size 1) → reshape(x), likewise for the other reductions.

    Exact, but that −0 stays −0 where a sum that begins with +0 would make +0 of it.
    """
    assert isinstance(value.op, Reduction)
    (x,) = value.inputs
    axes = tuple(axis for axis in value.op.axes if x.shape[axis] != 1)
    if (axes == value.op.axes and axes) or x.dtype != value.dtype:
        return None
    if not axes:
        return graph.apply(Reshape(value.shape), x)
    shape = tuple(size for axis, size in enumerate(x.shape) if axis in axes or axis not in value.op.axes)
    dropped = [axis for axis in value.op.axes if axis not in axes]
    moved = tuple(axis - sum(gone < axis for gone in dropped) for axis in axes)
    return graph.apply(_along(value.op, moved), graph.apply(Reshape(shape), x))


@rule_on(Reduction)
def reduce_reduce(graph: Draft, value: Value) -> Value | None:
    """sum(sum(x, a), b) → sum(x, a∪b), likewise for the other reductions.

    Exact for extrema and integers; float sums and products are combined in another order, within their error bound
    (a sum may overflow in one order and not in the other).
    """
    assert isinstance(value.op, Reduction)
    (inner,) = value.inputs
    if type(inner.op) is not type(value.op) or graph.shared(inner):
        return None
    assert isinstance(inner.op, Reduction)
    (x,) = inner.inputs
    kept = [axis for axis in range(x.ndim) if axis not in inner.op.axes]
    axes = {*inner.op.axes, *(kept[axis] for axis in value.op.axes)}
    return graph.apply(_along(value.op, tuple(sorted(axes))), x)


@rule_on(Reduction)
def reduce_transpose(graph: Draft, value: Value) -> Value | None:
    """sum(transpose(x, p), a) → sum(x, p[a]) where the axes that are left keep their order, likewise for the others.

    Exact for extrema and integers; float sums and products are combined in another order, within their error bound.
    """
    assert isinstance(value.op, Reduction)
    (inner,) = value.inputs
    if not isinstance(inner.op, Transpose):
        return None
    order = inner.op.permutation
    left = [source for axis, source in enumerate(order) if axis not in value.op.axes]
    if left != sorted(left):
        return None
    return graph.apply(_along(value.op, tuple(sorted(order[axis] for axis in value.op.axes))), inner.inputs[0])


def swaps_matrix(op: object) -> bool:
    """Whether an op transposes the last two axes and leaves all others where they are."""
    if not isinstance(op, Transpose) or len(op.permutation) < 2:
        return False
    leading = len(op.permutation) - 2
    return op.permutation == (*range(leading), leading + 1, leading)


@rule_on(Matmul)
def matmul_of_transpose(graph: Draft, value: Value) -> Value | None:
    """xᵀ · y → matmul(x, y) that reads x transposed, likewise for y. Exact: the same products in the same order."""
    op, (a, b) = value.op, value.inputs
    assert isinstance(op, Matmul)
    if swaps_matrix(a.op):
        return graph.apply(Matmul(not op.transpose_a, op.transpose_b), a.inputs[0], b)
    if swaps_matrix(b.op):
        return graph.apply(Matmul(op.transpose_a, not op.transpose_b), a, b.inputs[0])
    return None


@rule_on(Transpose)
def transpose_of_matmul(graph: Draft, value: Value) -> Value | None:
    """(a · b)ᵀ → bᵀ · aᵀ, where nobody else reads a · b. Exact but for the order in which products are added."""
    (product,) = value.inputs
    if not swaps_matrix(value.op) or not isinstance(product.op, Matmul) or graph.shared(product):
        return None
    a, b = product.inputs
    return graph.apply(Matmul(not product.op.transpose_b, not product.op.transpose_a), b, a)


RULES: tuple[Rule, ...] = (
    reduce_unit_axes,
    reduce_reduce,
    reduce_transpose,
    matmul_of_transpose,
    transpose_of_matmul,
)
