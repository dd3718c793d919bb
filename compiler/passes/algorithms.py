"""Algorithm choice: convolutions with 3x3 kernels go by Winograd's minimal filtering where that costs less.

Costs are counted in multiply-adds; memory traffic in those that all cores do meanwhile. F(2x2) is no less exact than
the definition and may stand in anywhere; F(4x4) is less exact (some 1e-5 of a result's RMS) and stands in only for
inference, where kernels are transformed once per set of weights. Kernels that are rounded to bf16 are transformed as
they were before, and stay f32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.choices import DEFINITION, NO_CHOICES, Choices
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad, Convolution
from gradloom.compiler.ops.elementwise import before_rounding, stored_as
from gradloom.compiler.ops.movement import Reverse, Transpose
from gradloom.compiler.ops.winograd import TAPS, TILES, WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.passes import convolution_rules
from gradloom.compiler.passes.fixed import changes_inputs, is_fixed
from gradloom.compiler.passes.rewrite import Draft, Rewritten, Rule, rewrite, rule_on
from gradloom.compiler.types import F32

STREAM = 3.2
"""Multiply-adds in the time in which a byte comes from memory: a small balance for a CPU, but kernels come in order."""

TRANSFORM = 6
"""Multiply-adds in the time in which a point of a tile is loaded, transformed and stored."""

GAIN = 0.8
"""The part of the definition's cost below which another algorithm is preferred."""

LEAST = 16
"""Channels and filters from which on a transformed product keeps the micro-kernel busy."""


CREDIBLE = 2
"""How many times the least cost an algorithm may cost and still turn out to be the fastest."""

WINOGRAD = {f"F({tile}x{tile})": tile for tile in TILES}
"""Winograd's algorithms by name, with their tiles."""


def choose_algorithms(graph: Graph, choices: Choices = NO_CHOICES) -> Graph:
    """Return the graph with convolutions replaced where another algorithm was chosen, or else seems cheaper."""
    return with_algorithms(graph, choices).graph


def with_algorithms(graph: Graph, choices: Choices = NO_CHOICES) -> Rewritten:
    """Return what `choose_algorithms` does, with the rules that applied."""
    return rewrite(graph, (*convolution_rules.RULES, *algorithm_rules(graph, choices)))


def with_padding(graph: Graph) -> Graph:
    """Return the graph as algorithms are chosen for it: zeros around images are the convolutions' own padding."""
    return rewrite(graph, convolution_rules.RULES).graph


def algorithm_rules(graph: Graph, choices: Choices) -> tuple[Rule, ...]:
    """The rules for one graph: what they may do follows from whether it writes onto its parameters."""
    inference = not changes_inputs(graph)

    def tile_for(value: Value) -> int | None:
        """The tile for a convolution, None for the definition."""
        fixed, choice = inference and has_fixed_kernel(value), choices.of(value)
        if choice is not None and choice.algorithm == DEFINITION:
            return None
        tile = None if choice is None else WINOGRAD[choice.algorithm]
        return tile if tile in _tiles(value, fixed) else WINOGRAD.get(algorithms(value, fixed)[0])

    @rule_on(Conv2D)
    def winograd_conv2d(draft: Draft, value: Value) -> Value | None:
        """conv2d(x, k) → winograd_conv2d(x, winograd_kernel(k)); an infinite x may make its whole tile NaN"""
        (x, kernel), op = value.inputs, value.op
        assert isinstance(op, Conv2D)
        if (tile := tile_for(value)) is None:
            return None
        transformed = draft.apply(WinogradKernel(tile), before_rounding(kernel))
        return draft.apply(WinogradConv2D(tile, op.padding), x, stored_as(x.dtype, transformed))

    @rule_on(Conv2DInputGrad)
    def winograd_input_grad(draft: Draft, value: Value) -> Value | None:
        """conv2d_input_grad(dy, k) → winograd_conv2d(dy, winograd_kernel(transpose(reverse(k))))"""
        (dy, kernel), op = value.inputs, value.op
        assert isinstance(op, Conv2DInputGrad)
        if (tile := tile_for(value)) is None:
            return None
        turned = draft.apply(Transpose((0, 1, 3, 2)), draft.apply(Reverse((0, 1)), before_rounding(kernel)))
        (top, bottom), (left, right) = op.padding
        reach = TAPS - 1
        padding = ((reach - top, reach - bottom), (reach - left, reach - right))
        transformed = draft.apply(WinogradKernel(tile), turned)
        return draft.apply(WinogradConv2D(tile, padding), dy, stored_as(dy.dtype, transformed))

    @rule_on(Conv2DKernelGrad)
    def winograd_kernel_grad(draft: Draft, value: Value) -> Value | None:
        """conv2d_kernel_grad(x, dy) → winograd_conv2d_kernel_grad(x, dy)"""
        (x, dy), op = value.inputs, value.op
        assert isinstance(op, Conv2DKernelGrad)
        if (tile := tile_for(value)) is None:
            return None
        return draft.apply(WinogradConv2DKernelGrad(tile, op.padding), x, dy)

    return winograd_conv2d, winograd_input_grad, winograd_kernel_grad


def algorithms(value: Value, fixed: bool) -> list[str]:
    """The algorithms that a contraction may be computed by: the cost model's choice first, then those nearly as cheap.

    `fixed` kernels are transformed before.
    """
    tiles = _tiles(value, fixed)
    if not tiles:
        return [DEFINITION]
    costs = {name: _winograd_cost(value, tile, fixed) for name, tile in WINOGRAD.items() if tile in tiles}
    best, direct = min(costs, key=lambda name: costs[name]), _direct_cost(value)
    chosen = best if costs[best] < GAIN * direct else DEFINITION
    costs[DEFINITION] = direct
    others = [name for name, cost in costs.items() if name != chosen and cost <= CREDIBLE * costs[chosen]]
    return [chosen, *others]


def has_fixed_kernel(value: Value) -> bool:
    """Whether the kernel of a convolution stays the same from step to step of a graph that writes onto no input."""
    return isinstance(value.op, Conv2D) and is_fixed(value.inputs[1])


def _tiles(value: Value, fixed: bool) -> Sequence[int]:
    """The tiles by which a convolution, or a gradient of one, may be computed."""
    op = value.op
    if not isinstance(op, Convolution) or not _transformable(op, value):
        return ()
    if isinstance(op, Conv2DInputGrad) and any(side >= TAPS for pair in op.padding for side in pair):
        return ()
    result, _ = _result_and_kernel(value)
    if isinstance(op, Conv2DKernelGrad) and any(size % TILES[0] for size in result.shape[1:3]):
        return ()
    return TILES if fixed else TILES[:1]


def _transformable(op: Convolution, value: Value) -> bool:
    """Whether a convolution, or a gradient of one, has transforms: its kernel is 3x3, dense, and moves by one pixel."""
    result, kernel = _result_and_kernel(value)
    plain = op.groups == 1 and (op.strides, op.dilation) == ((1, 1), (1, 1)) and kernel.shape[:2] == (TAPS, TAPS)
    return plain and value.dtype == F32 and min(kernel.shape[2:]) >= LEAST and bool(result.type.size)


def _result_and_kernel(value: Value) -> tuple[Value, Value]:
    """A convolution's result and kernel, or what has their shapes in a gradient."""
    return (value.inputs[1], value) if isinstance(value.op, Conv2DKernelGrad) else (value, value.inputs[1])


def _winograd_cost(value: Value, tile: int, fixed: bool) -> float:
    result, kernel = _result_and_kernel(value)
    images, height, width, _ = result.shape
    pairs, side = math.prod(kernel.shape[2:]), tile + TAPS - 1
    tiles = images * math.ceil(height / tile) * math.ceil(width / tile)
    products = tiles * pairs
    transforms = TRANSFORM * (tiles * sum(kernel.shape[2:]) + (0 if fixed else pairs))
    traffic = pairs * value.inputs[1].dtype.itemsize * (1 if fixed else 3)
    return side**2 * (products + transforms + STREAM * traffic)


def _direct_cost(value: Value) -> float:
    result, kernel = _result_and_kernel(value)
    images, height, width, _ = result.shape
    return TAPS**2 * math.prod(kernel.shape[2:]) * (images * height * width + STREAM * value.inputs[1].dtype.itemsize)
