"""Rewrite rules of convolutions: zeros around an image are the convolution's own padding. All of them are exact."""

from __future__ import annotations

from dataclasses import replace

from gradloom.compiler.ir import Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.movement import Pad, Slice
from gradloom.compiler.passes.rewrite import Draft, Rule, rule_on


@rule_on(Conv2D, Conv2DKernelGrad)
def convolve_padded(graph: Draft, value: Value) -> Value | None:
    """conv2d(pad(x), k) → conv2d(x, k) with padding, and likewise conv2d_kernel_grad(pad(x), dy)"""
    (inner, other), op = value.inputs, value.op
    assert isinstance(op, Conv2D | Conv2DKernelGrad)
    if not isinstance(inner.op, Pad) or any(inner.op.interior):
        return None
    low, high = inner.op.low, inner.op.high
    if low[0] or low[3] or high[0] or high[3]:
        return None
    (top, bottom), (left, right) = op.padding
    padding = ((top + low[1], bottom + high[1]), (left + low[2], right + high[2]))
    return graph.apply(replace(op, padding=padding), inner.inputs[0], other)


@rule_on(Slice)
def slice_input_grad(graph: Draft, value: Value) -> Value | None:
    """slice(conv2d_input_grad(dy, k)) → conv2d_input_grad(dy, k) with padding, where lines and columns are cut off"""
    (inner,), cut = value.inputs, value.op
    assert isinstance(cut, Slice)
    op = inner.op
    if not isinstance(op, Conv2DInputGrad) or any(stride != 1 for stride in cut.stride):
        return None
    if value.shape[0] != inner.shape[0] or value.shape[3] != inner.shape[3]:
        return None
    sides = []
    for axis, (before, after) in zip((1, 2), op.padding, strict=True):
        sides.append((before + cut.start[axis], after + inner.shape[axis] - cut.stop[axis]))
    return graph.apply(replace(op, shape=(value.shape[1], value.shape[2]), padding=(sides[0], sides[1])), *inner.inputs)


RULES: tuple[Rule, ...] = (convolve_padded, slice_input_grad)
