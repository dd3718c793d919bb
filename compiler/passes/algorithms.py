"""Algorithm choice: convolutions with 3x3 kernels go by Winograd's minimal filtering where that costs less.

Costs are counted in multiply-adds; memory traffic in those that all cores do meanwhile. F(2x2) is no less exact than
the definition and may stand in anywhere; F(4x4) is less exact (some 1e-5 of a result's RMS) and stands in only for
inference, where kernels are transformed once per set of weights.
"""

from __future__ import annotations

import math

from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad, Convolution
from gradloom.compiler.ops.movement import Reverse, Transpose
from gradloom.compiler.ops.winograd import TAPS, TILES, WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.passes import convolution_rules
from gradloom.compiler.passes.fixed import changes_inputs, is_fixed
from gradloom.compiler.passes.rewrite import Draft, Rule, rewrite, rule_on
from gradloom.compiler.types import F32

STREAM = 3.2
"""Multiply-adds in the time in which a byte comes from memory: a small balance for a CPU, but kernels come in order."""

TRANSFORM = 6
"""Multiply-adds in the time in which a point of a tile is loaded, transformed and stored."""

GAIN = 0.8
"""The part of the definition's cost below which another algorithm is preferred."""

LEAST = 16
"""Channels and filters from which on a transformed product keeps the micro-kernel busy."""


def choose_algorithms(graph: Graph) -> Graph:
    """Return the graph with convolutions replaced where a cheaper algorithm computes them."""
    return rewrite(graph, (*convolution_rules.RULES, *algorithm_rules(graph))).graph


def algorithm_rules(graph: Graph) -> tuple[Rule, ...]:
    """The rules for one graph: what they may do follows from whether it writes onto its parameters."""
    inference = not changes_inputs(graph)

    @rule_on(Conv2D)
    def winograd_conv2d(draft: Draft, value: Value) -> Value | None:
        """conv2d(x, k) → winograd_conv2d(x, winograd_kernel(k)); an infinite x may make its whole tile NaN"""
        (x, kernel), op = value.inputs, value.op
        assert isinstance(op, Conv2D)
        tile = _tile(op, value, kernel, inference and is_fixed(kernel))
        if tile is None:
            return None
        return draft.apply(WinogradConv2D(tile, op.padding), x, draft.apply(WinogradKernel(tile), kernel))

    @rule_on(Conv2DInputGrad)
    def winograd_input_grad(draft: Draft, value: Value) -> Value | None:
        """conv2d_input_grad(dy, k) → winograd_conv2d(dy, winograd_kernel(transpose(reverse(k))))"""
        (dy, kernel), op = value.inputs, value.op
        assert isinstance(op, Conv2DInputGrad)
        tile = _tile(op, value, kernel, False)
        if tile is None or any(side >= TAPS for pair in op.padding for side in pair):
            return None
        turned = draft.apply(Transpose((0, 1, 3, 2)), draft.apply(Reverse((0, 1)), kernel))
        (top, bottom), (left, right) = op.padding
        reach = TAPS - 1
        padding = ((reach - top, reach - bottom), (reach - left, reach - right))
        return draft.apply(WinogradConv2D(tile, padding), dy, draft.apply(WinogradKernel(tile), turned))

    @rule_on(Conv2DKernelGrad)
    def winograd_kernel_grad(draft: Draft, value: Value) -> Value | None:
        """conv2d_kernel_grad(x, dy) → winograd_conv2d_kernel_grad(x, dy)"""
        (x, dy), op = value.inputs, value.op
        assert isinstance(op, Conv2DKernelGrad)
        tile = _tile(op, dy, value, False)
        if tile is None or any(size % tile for size in dy.shape[1:3]):
            return None
        return draft.apply(WinogradConv2DKernelGrad(tile, op.padding), x, dy)

    return winograd_conv2d, winograd_input_grad, winograd_kernel_grad


def _transformable(op: Convolution, value: Value, kernel: Value) -> bool:
    """Whether a convolution, or a gradient of one, has transforms: its kernel is 3x3, dense, and moves by one pixel."""
    plain = op.groups == 1 and (op.strides, op.dilation) == ((1, 1), (1, 1)) and kernel.shape[:2] == (TAPS, TAPS)
    return plain and value.dtype == F32 and min(kernel.shape[2:]) >= LEAST


def _tile(op: Convolution, value: Value, kernel: Value, fixed: bool) -> int | None:
    """The tile with which a convolution is cheapest, None where the definition is.

    `value` is its result, or what stands for it in a gradient. `fixed` kernels are transformed before.
    """
    if not _transformable(op, value, kernel) or not value.type.size:
        return None
    images, height, width, _ = value.shape
    pairs = math.prod(kernel.shape[2:])
    item = value.dtype.itemsize

    def cost(tile: int) -> float:
        side = tile + TAPS - 1
        tiles = images * math.ceil(height / tile) * math.ceil(width / tile)
        products = tiles * pairs
        transforms = TRANSFORM * (tiles * sum(kernel.shape[2:]) + (0 if fixed else pairs))
        traffic = pairs * item * (1 if fixed else 3)
        return side**2 * (products + transforms + STREAM * traffic)

    direct = TAPS**2 * pairs * (images * height * width + STREAM * item)
    tiles = TILES if fixed else TILES[:1]
    best = min(tiles, key=cost)
    return best if cost(best) < GAIN * direct else None
