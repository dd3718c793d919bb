"""Convolution with 3x3 kernels by Winograd's minimal filtering: fewer multiplications, on transformed tiles.

F(m x m, 3 x 3) computes m x m pixels of a result from a tile of t x t pixels, t = m + 2, with t² multiplications for
each pair of channel and filter in place of 9·m². Tiles and kernels are transformed by constant matrices that follow
from Toom and Cook's interpolation: polynomials are multiplied by their values at t - 1 points and "at infinity" (Lavin
and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). These ops are chosen after differentiation, so
that they have no gradients of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ops.base import Contraction, Windowed, for_arithmetic
from gradloom.compiler.ops.windows import Padding, count_windows, height_and_width, images, one_float_dtype
from gradloom.compiler.types import OPEN, TensorType

TAPS = 3
"""Height and width of the kernels."""

POINTS = tuple(map(Fraction, (0, 1, -1, 2, -2)))
"""Where polynomials are evaluated, in the order in which larger tiles need more of them."""

TILES = (2, 4)
"""The sizes m of a tile's result."""

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """The matrices of F(m, 3): y = output · ((kernel · k) ⊙ (input · x)) for t inputs x, 3 taps k and m results y."""

    input: Matrix
    kernel: Matrix
    output: Matrix


@cache
def transforms(tile: int) -> Transforms:
    """The matrices for `tile` results along an axis."""
    points = POINTS[: tile + TAPS - 2]
    by_input, by_kernel = [], []
    for point in points:
        others = [other for other in points if other != point]
        by_input.append((*_product(others), Fraction(0)))
        scale = 1 / _evaluate(_product(others), point)
        by_kernel.append(tuple(scale * point**tap for tap in range(TAPS)))
    by_input.append(_product(points))
    by_kernel.append((Fraction(0), Fraction(0), Fraction(1)))
    by_output = tuple((*(point**i for point in points), Fraction(i == tile - 1)) for i in range(tile))
    return Transforms(tuple(by_input), tuple(by_kernel), by_output)


def transposed(matrix: Matrix) -> Matrix:
    """The matrix with rows and columns exchanged."""
    return tuple(zip(*matrix, strict=True))


def _product(roots: tuple[Fraction, ...] | list[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients, lowest first, of the product of x - r over all roots r."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [*(-root * c for c in coefficients), Fraction(0)]
        coefficients = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return tuple(coefficients)


def _evaluate(coefficients: tuple[Fraction, ...], x: Fraction) -> Fraction:
    return sum((c * x**n for n, c in enumerate(coefficients)), Fraction(0))


def _apply(matrix: Matrix, x: np.ndarray, axis: int) -> np.ndarray:
    """`matrix` · x along an axis."""
    rows = np.asarray([[float(entry) for entry in row] for row in matrix], x.dtype)
    with np.errstate(all="ignore"):
        return np.moveaxis(np.tensordot(rows, x, (1, axis)), 0, axis)


def _tiles(x: np.ndarray, tile: int, down: int, across: int) -> np.ndarray:
    """Overlapping tiles of padded images, as [line and column of the tile, image, tile down, tile across, channel]."""
    side = tile + TAPS - 1
    lines = [x[:, i::tile][:, :down] for i in range(side)]
    return np.stack([np.stack([line[:, :, j::tile][:, :, :across] for j in range(side)]) for line in lines])


def check_tile(tile: int) -> None:
    """Refuse tiles that there are no transforms for."""
    if tile not in TILES:
        raise ShapeError(f"Expected a tile of {' or '.join(map(str, TILES))} pixels. Received: tile={tile}")


@dataclass(frozen=True)
class WinogradKernel(Contraction):
    """A kernel [3,3,C,O] transformed for `winograd_conv2d`: `%4: f32[6,6,32,64] = winograd_kernel %3 {tile=4}`."""

    name: ClassVar[str] = "winograd_kernel"
    arity: ClassVar[int | None] = 1
    tile: int

    def infer(self, *operands: TensorType) -> TensorType:
        (kernel,) = operands
        check_tile(self.tile)
        if kernel.rank != 4 or OPEN in kernel.shape or kernel.shape[:2] != (TAPS, TAPS) or not kernel.dtype.is_float:
            raise ShapeError(f"Expected a kernel [3, 3, channels, filters] of floats. Received: {kernel}")
        side = self.tile + TAPS - 1
        return TensorType(kernel.dtype.arithmetic, (side, side, *kernel.shape[2:]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (kernel,), matrix = for_arithmetic(*operands), transforms(self.tile).kernel
        return _apply(matrix, _apply(matrix, kernel, 0), 1)


@dataclass(frozen=True)
class WinogradConv2D(Windowed):
    """conv2d of stride 1 with a transformed kernel: `%5: f32[8,16,16,64] = winograd_conv2d %2 %4 {tile=4}`.

    Images may be bf16: the kernel is f32 then, since transforms of rounded numbers would be rounded once more.
    """

    name: ClassVar[str] = "winograd_conv2d"
    tile: int
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        x, kernel = images(operands[0]), operands[1]
        one_float_dtype(x, kernel)
        check_tile(self.tile)
        side = self.tile + TAPS - 1
        if kernel.rank != 4 or kernel.shape[:3] != (side, side, x.shape[3]):
            raise ShapeError(
                f"Expected a transformed kernel [{side}, {side}, {x.shape[3]}, filters]. Received: {kernel}"
            )
        height, width = count_windows(height_and_width(x), (TAPS, TAPS), (1, 1), self.padding)
        return TensorType(x.dtype.arithmetic, (x.shape[0], height, width, kernel.shape[3]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x, kernel), matrices, m = for_arithmetic(*operands), transforms(self.tile), self.tile
        size = count_windows((x.shape[1], x.shape[2]), (TAPS, TAPS), (1, 1), self.padding)
        down, across = (-(-count // m) for count in size)
        spare = [(0, tiles * m - count) for tiles, count in zip((down, across), size, strict=True)]
        sides = [(before, after + more) for (before, after), (_, more) in zip(self.padding, spare, strict=True)]
        x = np.pad(x, ((0, 0), *sides, (0, 0)))
        tiles = _tiles(x, m, down, across)
        points = _apply(matrices.input, _apply(matrices.input, tiles, 0), 1)
        with np.errstate(all="ignore"):
            products = np.einsum("ijbhwc,ijco->ijbhwo", points, kernel, optimize=True)
        result = _apply(matrices.output, _apply(matrices.output, products, 0), 1)
        whole = result.transpose(2, 3, 0, 4, 1, 5).reshape(x.shape[0], down * m, across * m, kernel.shape[3])
        return np.ascontiguousarray(whole[:, : size[0], : size[1]])


@dataclass(frozen=True)
class WinogradConv2DKernelGrad(Windowed):
    """conv2d_kernel_grad of stride 1 on tiles: `%6: f32[3,3,32,64] = winograd_conv2d_kernel_grad %2 %5 {tile=2}`.

    Operands are the images and the result's cotangent, whose height and width are multiples of `tile`.
    """

    name: ClassVar[str] = "winograd_conv2d_kernel_grad"
    tile: int
    padding: Padding = ((0, 0), (0, 0))

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        x, cotangent = images(operands[0]), images(operands[1])
        check_tile(self.tile)
        expected = count_windows(height_and_width(x), (TAPS, TAPS), (1, 1), self.padding)
        if cotangent.shape[:3] != (x.shape[0], *expected) or any(size % self.tile for size in expected):
            raise ShapeError(
                f"Expected a cotangent [{x.shape[0]}, {expected[0]}, {expected[1]}, filters] with height and width "
                f"divisible by tile={self.tile}. Received: {cotangent}"
            )
        return TensorType(x.dtype.arithmetic, (TAPS, TAPS, x.shape[3], cotangent.shape[3]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        (x, cotangent), matrices, m = for_arithmetic(*operands), transforms(self.tile), self.tile
        down, across = cotangent.shape[1] // m, cotangent.shape[2] // m
        tiles = _tiles(np.pad(x, ((0, 0), *self.padding, (0, 0))), m, down, across)
        results = np.stack([np.stack([cotangent[:, i::m, j::m] for j in range(m)]) for i in range(m)])
        points = _apply(matrices.input, _apply(matrices.input, tiles, 0), 1)
        spread = transposed(matrices.output)
        slopes = _apply(spread, _apply(spread, results, 0), 1)
        with np.errstate(all="ignore"):
            sums = np.einsum("ijbhwc,ijbhwo->ijco", points, slopes, optimize=True)
        back = transposed(matrices.kernel)
        return _apply(back, _apply(back, sums, 0), 1)
