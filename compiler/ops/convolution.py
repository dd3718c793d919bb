"""Two-dimensional convolution and its two gradients: contractions that are each other's derivatives.

Images are [batch, height, width, channels], kernels [height, width, channels / groups, filters]. As in all networks,
the kernel is not flipped. Padding adds zeros; whether such a zero times an infinite weight makes NaN or
nothing is left to the kernel that computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Windowed, for_arithmetic
from gradloom.compiler.ops.elementwise import stored_as
from gradloom.compiler.ops.windows import (
    Padding,
    Pair,
    check_attributes,
    count_windows,
    height_and_width,
    images,
    one_float_dtype,
)
from gradloom.compiler.types import OPEN, TensorType


def kernel_size(kernel: TensorType) -> Pair:
    """Height and width of a kernel."""
    height, width, _, _ = kernel.shape
    return height, width


class Convolution(Windowed):
    """What the three ops of a convolution share; subclasses are dataclasses with these fields.

    Group g of the channels meets group g of the filters; both counts are multiples of `groups`.
    """

    strides: Pair
    padding: Padding
    dilation: Pair
    groups: int

    def kernel(self, operand: TensorType) -> TensorType:
        """The operand, if it can be a kernel of these groups."""
        check_attributes(self.strides, self.padding, self.dilation)
        if operand.rank != 4 or OPEN in operand.shape:
            raise ShapeError(f"Expected a kernel [height, width, channels / groups, filters]. Received: {operand}")
        if self.groups < 1 or operand.shape[3] % self.groups:
            raise ShapeError(
                f"Expected a number of groups that divides the kernel's {operand.shape[3]} filters. "
                f"Received: groups={self.groups}"
            )
        return operand

    def result_size(self, size: Pair, window: Pair) -> Pair:
        """Height and width that the convolution of an image of `size` has."""
        return count_windows(size, window, self.strides, self.padding, self.dilation)

    def check_result(self, result: TensorType, size: Pair, kernel: TensorType) -> None:
        """Refuse a cotangent that is no result of convolving images of `size` with the kernel."""
        expected = self.result_size(size, kernel_size(kernel))
        if result.shape[1:3] != expected or result.shape[3] != kernel.shape[3]:
            raise ShapeError(
                f"Expected the shape [batch, {expected[0]}, {expected[1]}, {kernel.shape[3]}] of the convolution of "
                f"{size[0]}x{size[1]} images with a kernel of {kernel}. Received: {result}"
            )

    # The reference: one matrix product for each tap of the kernel, by strided slices of the padded images.

    def taps(self, window: Pair, result: Pair) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        """Each tap of the kernel, with the slice of padded images that it meets."""
        for i in range(window[0]):
            for j in range(window[1]):
                rows, columns = (
                    slice(tap * d, tap * d + (count - 1) * s + 1, s)
                    for tap, d, s, count in zip((i, j), self.dilation, self.strides, result, strict=True)
                )
                yield i, j, (slice(None), rows, columns)

    def padded(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), *self.padding, (0, 0)))

    def by_group(self, x: np.ndarray) -> np.ndarray:
        """[..., channels] as matrices [groups, elements, channels / groups]."""
        return np.moveaxis(x.reshape(math.prod(x.shape[:-1]), self.groups, x.shape[-1] // self.groups), 1, 0)

    def kernel_by_group(self, tap: np.ndarray) -> np.ndarray:
        """One tap [channels / groups, filters] as matrices [groups, channels / groups, filters / groups]."""
        return np.moveaxis(tap.reshape(tap.shape[0], self.groups, tap.shape[1] // self.groups), 1, 0)


@dataclass(frozen=True)
class Conv2D(Convolution):
    """y[b,h,w,o] = Σ x[b, h·s + i·d − p, w·s + j·d − p, c]·k[i,j,c,o]: `%4: f32[8,16,16,32] = conv2d %2 %3`.

    Operands are images x and kernel k.
    """

    name: ClassVar[str] = "conv2d"
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        x, kernel = images(operands[0]), self.kernel(operands[1])
        if x.shape[3] != kernel.shape[2] * self.groups:
            raise ShapeError(
                f"Expected a kernel for {x.shape[3]} channels in {self.groups} groups, [height, width, "
                f"channels / groups, filters]. Received: images {x}, kernel {kernel} for "
                f"{kernel.shape[2]}·{self.groups} channels"
            )
        height, width = self.result_size(height_and_width(x), kernel_size(kernel))
        return TensorType(x.dtype.arithmetic, (x.shape[0], height, width, kernel.shape[3]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, kernel = for_arithmetic(*operands)
        window = kernel.shape[0], kernel.shape[1]
        height, width = self.result_size((x.shape[1], x.shape[2]), window)
        result = np.zeros((x.shape[0], height, width, kernel.shape[3]), x.dtype)
        padded = self.padded(x)
        with np.errstate(all="ignore"):
            for i, j, place in self.taps(window, (height, width)):
                products = self.by_group(padded[place]) @ self.kernel_by_group(kernel[i, j])
                result += np.moveaxis(products, 0, 1).reshape(result.shape)
        return result

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        x, kernel = node.inputs
        cotangent = stored_as(x.dtype, cotangent)
        attributes = self.strides, self.padding, self.dilation, self.groups
        by_x = node.graph.apply(Conv2DInputGrad(height_and_width(x.type), *attributes), cotangent, kernel)
        by_kernel = node.graph.apply(Conv2DKernelGrad(kernel_size(kernel.type), *attributes), x, cotangent)
        return by_x, by_kernel


@dataclass(frozen=True)
class Conv2DInputGrad(Convolution):
    """The images' cotangent, of size `shape`: `%5: f32[8,18,18,3] = conv2d_input_grad %4 %3 {shape=[18,18]}`.

    Operands are the result's cotangent and the kernel: a transposed convolution.
    """

    name: ClassVar[str] = "conv2d_input_grad"
    shape: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        cotangent, kernel = images(operands[0]), self.kernel(operands[1])
        self.check_result(cotangent, self.shape, kernel)
        dtype = cotangent.dtype.arithmetic
        return TensorType(dtype, (cotangent.shape[0], *self.shape, kernel.shape[2] * self.groups))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        cotangent, kernel = for_arithmetic(*operands)
        batch, height, width, _ = cotangent.shape
        channels = kernel.shape[2] * self.groups
        result = self.padded(np.zeros((batch, *self.shape, channels), cotangent.dtype))
        by_group = self.by_group(cotangent)
        with np.errstate(all="ignore"):
            for i, j, place in self.taps((kernel.shape[0], kernel.shape[1]), (height, width)):
                products = by_group @ np.swapaxes(self.kernel_by_group(kernel[i, j]), 1, 2)
                result[place] += np.moveaxis(products, 0, 1).reshape(batch, height, width, channels)
        (top, _), (left, _) = self.padding
        return np.ascontiguousarray(result[:, top : top + self.shape[0], left : left + self.shape[1]])

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        result, kernel = node.inputs
        cotangent = stored_as(kernel.dtype, cotangent)
        attributes = self.strides, self.padding, self.dilation, self.groups
        by_result = node.graph.apply(Conv2D(*attributes), cotangent, kernel)
        by_kernel = node.graph.apply(Conv2DKernelGrad(kernel_size(kernel.type), *attributes), cotangent, result)
        return by_result, by_kernel


@dataclass(frozen=True)
class Conv2DKernelGrad(Convolution):
    """The kernel's cotangent, of size `shape`: `%5: f32[3,3,3,32] = conv2d_kernel_grad %2 %4 {shape=[3,3]}`.

    Operands are the images and the result's cotangent.
    """

    name: ClassVar[str] = "conv2d_kernel_grad"
    shape: Pair
    strides: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    def infer(self, *operands: TensorType) -> TensorType:
        one_float_dtype(*operands)
        x, cotangent = images(operands[0]), images(operands[1])
        if self.groups < 1 or x.shape[3] % self.groups:
            raise ShapeError(
                f"Expected a number of groups that divides the images' {x.shape[3]} channels. "
                f"Received: groups={self.groups}"
            )
        shape = (*self.shape, x.shape[3] // self.groups, cotangent.shape[3])
        kernel = self.kernel(TensorType(x.dtype.arithmetic, shape))
        self.check_result(cotangent, height_and_width(x), kernel)
        if x.shape[0] != cotangent.shape[0]:
            raise ShapeError(f"Expected as many images as cotangents. Received: {x}, {cotangent}")
        return kernel

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        x, cotangent = for_arithmetic(*operands)
        channels, filters = x.shape[3] // self.groups, cotangent.shape[3]
        result = np.zeros((*self.shape, channels, filters), x.dtype)
        padded, by_group = self.padded(x), self.by_group(cotangent)
        with np.errstate(all="ignore"):
            for i, j, place in self.taps(self.shape, (cotangent.shape[1], cotangent.shape[2])):
                products = np.swapaxes(self.by_group(padded[place]), 1, 2) @ by_group
                result[i, j] = np.moveaxis(products, 0, 1).reshape(channels, filters)
        return result

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        x, result = node.inputs
        cotangent = stored_as(x.dtype, cotangent)
        attributes = self.strides, self.padding, self.dilation, self.groups
        by_x = node.graph.apply(Conv2DInputGrad(height_and_width(x.type), *attributes), result, cotangent)
        by_result = node.graph.apply(Conv2D(*attributes), x, cotangent)
        return by_x, by_result
