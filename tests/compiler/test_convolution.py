"""Convolution against its definition as a sum, its gradients as adjoints, and what `conv` makes of its arguments."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function_runner import run, sample
from gradloom.compiler import ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from op_cases import types


@dataclass(frozen=True)
class Convolved:
    """A convolution with operands that fit."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int
    x: np.ndarray
    kernel: np.ndarray

    @property
    def attributes(self) -> tuple[Any, ...]:
        return self.strides, self.padding, self.dilation, self.groups


@st.composite
def convolutions(draw: st.DrawFn) -> Convolved:
    """Strides beyond the window, padding beyond it, pixels that no window reaches: whatever the op accepts."""
    few = st.integers(1, 3)
    strides, dilation, window = ((draw(few), draw(few)) for _ in range(3))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    extent = [(taps - 1) * spread + 1 for taps, spread in zip(window, dilation, strict=True)]
    size = [draw(st.integers(max(1, extent[n] - sum(padding[n])), extent[n] + 4)) for n in range(2)]
    groups, channels, filters, batch = draw(few), draw(few), draw(few), draw(st.integers(0, 2))
    seed = draw(st.integers(0, 2**32 - 1))
    x = sample(seed, batch, *size, channels * groups)
    kernel = sample(seed + 1, *window, channels, filters * groups)
    return Convolved(strides, (padding[0], padding[1]), dilation, groups, x, kernel)


def by_definition(c: Convolved) -> np.ndarray:
    """Each element of the result as the sum over taps and channels, padding skipped."""
    batch, height, width, _ = c.x.shape
    taps_down, taps_across, channels, filters = c.kernel.shape
    rows, columns = (
        len(range(-before, size + after - (taps - 1) * spread, stride))
        for size, taps, spread, stride, (before, after) in zip(
            (height, width), (taps_down, taps_across), c.dilation, c.strides, c.padding, strict=True
        )
    )
    result = np.zeros((batch, rows, columns, filters))
    for b, row, column, f in np.ndindex(result.shape):
        first = f // (filters // c.groups) * channels
        for i, j, channel in product(range(taps_down), range(taps_across), range(channels)):
            h = row * c.strides[0] - c.padding[0][0] + i * c.dilation[0]
            w = column * c.strides[1] - c.padding[1][0] + j * c.dilation[1]
            if 0 <= h < height and 0 <= w < width:
                result[b, row, column, f] += c.x[b, h, w, first + channel] * c.kernel[i, j, channel, f]
    return result


@settings(max_examples=60)
@given(convolutions())
def test_convolution_is_its_sum(c: Convolved) -> None:
    expected = by_definition(c)
    result = run(lambda x, kernel: x.graph.apply(Conv2D(*c.attributes), x, kernel), c.x, c.kernel)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=60)
@given(convolutions(), st.integers(0, 2**32 - 1))
def test_gradients_are_adjoint_to_convolution(c: Convolved, seed: int) -> None:
    # ⟨conv(x, k), y⟩ is linear in each of x, k and y: its gradients are what stands beside them.
    expected = by_definition(c)
    y = sample(seed, *expected.shape)
    size, window = c.x.shape[1:3], c.kernel.shape[:2]

    def both(x: Value, kernel: Value, y: Value) -> list[Value]:
        by_x = x.graph.apply(Conv2DInputGrad((size[0], size[1]), *c.attributes), y, kernel)
        return [by_x, x.graph.apply(Conv2DKernelGrad((window[0], window[1]), *c.attributes), x, y)]

    by_x, by_kernel = run(both, c.x, c.kernel, y)
    assert by_x.shape == c.x.shape and by_kernel.shape == c.kernel.shape
    weighted = np.sum(expected * y)
    np.testing.assert_allclose(np.sum(by_x * c.x), weighted, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.sum(by_kernel * c.kernel), weighted, rtol=1e-10, atol=1e-10)
    if c.x.size:
        # One pixel's derivative is the convolution of an image that is 1 there and 0 elsewhere.
        pixel = tuple(np.random.default_rng(seed).integers(0, c.x.shape))
        one = np.zeros_like(c.x)
        one[pixel] = 1
        along = by_definition(Convolved(*c.attributes, one, c.kernel))
        np.testing.assert_allclose(by_x[pixel], np.sum(along * y), rtol=1e-10, atol=1e-10)


REFUSED: list[tuple[Op, str, type[Exception], str]] = [
    (Conv2D(), "f32[2,5,5,4] f32[3,3,3,8]", ShapeError, "kernel for 4 channels in 1 groups"),
    (Conv2D(groups=2), "f32[2,5,5,4] f32[3,3,4,8]", ShapeError, "kernel for 4 channels in 2 groups"),
    (Conv2D(groups=2), "f32[2,5,5,4] f32[3,3,2,7]", ShapeError, "divides the kernel's 7 filters"),
    (Conv2D(groups=0), "f32[2,5,5,4] f32[3,3,2,7]", ShapeError, "groups=0"),
    (Conv2D((0, 1)), "f32[2,5,5,4] f32[3,3,4,8]", ShapeError, "strides and dilation >= 1"),
    (Conv2D(dilation=(1, 0)), "f32[2,5,5,4] f32[3,3,4,8]", ShapeError, "strides and dilation >= 1"),
    (Conv2D(padding=((0, 0), (0, -1))), "f32[2,5,5,4] f32[3,3,4,8]", ShapeError, "padding >= 0"),
    (Conv2D(padding=((0, 1), (0, 0))), "f32[2,5,5,4] f32[7,3,4,8]", ShapeError, r"height 5 \+ padding \(0, 1\) = 6"),
    (Conv2D(dilation=(1, 3)), "f32[2,5,5,4] f32[3,3,4,8]", ShapeError, "window 3 .over 7"),
    (Conv2D(), "f32[2,5,5,4] f32[0,3,4,8]", ShapeError, "window of at least 1"),
    (Conv2D(), "f32[5,5,4] f32[3,3,4,8]", ShapeError, "batch, height, width, channels"),
    (Conv2D(), "f32[2,5,5,4] f32[3,4,8]", ShapeError, "Expected a kernel"),
    (Conv2D(), "u8[2,5,5,4] u8[3,3,4,8]", DTypeError, "one float dtype"),
    (Conv2D(), "f32[2,5,5,4] f64[3,3,4,8]", DTypeError, "one float dtype"),
    (Conv2DInputGrad((5, 5)), "f32[2,4,3,8] f32[3,3,4,8]", ShapeError, r"\[batch, 3, 3, 8\]"),
    (Conv2DInputGrad((5, 5)), "f32[2,3,3,7] f32[3,3,4,8]", ShapeError, r"\[batch, 3, 3, 8\]"),
    (Conv2DKernelGrad((3, 3)), "f32[2,5,5,4] f32[2,3,4,8]", ShapeError, r"\[batch, 3, 3, 8\]"),
    (Conv2DKernelGrad((3, 3)), "f32[2,5,5,4] f32[1,3,3,8]", ShapeError, "as many images"),
    (Conv2DKernelGrad((3, 3), groups=3), "f32[2,5,5,4] f32[2,3,3,9]", ShapeError, "images' 4 channels"),
]


@pytest.mark.parametrize(("op", "operands", "error", "message"), REFUSED, ids=lambda part: str(part))
def test_an_ill_typed_convolution_is_refused(op: Op, operands: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        op.type_of(*types(operands))
    assert "Received" in str(caught.value)


# Functions.


def attributes(function: Any, shape: tuple[int, ...], kernel: tuple[int, ...], **arguments: Any) -> tuple[Any, Value]:
    graph = Graph()
    x, k = (graph.input(name, types(f"f32{list(size)}")[0]) for name, size in (("x", shape), ("k", kernel)))
    result = function(x, k, **arguments)
    return result.op, result


@settings(max_examples=60)
@given(size=st.integers(1, 12), taps=st.integers(1, 5), stride=st.integers(1, 4), spread=st.integers(1, 3))
def test_same_padding_makes_a_window_for_each_stride(size: int, taps: int, stride: int, spread: int) -> None:
    arguments = {"strides": (stride, 1), "dilation_rate": (spread, 1), "padding": "same"}
    op, result = attributes(ops.conv, (1, size, 3, 2), (taps, 1, 2, 4), **arguments)
    assert result.shape == (1, -(-size // stride), 3, 4)
    (before, after), across = op.padding
    assert across == (0, 0) and after - before in (0, 1)
    # No more padding than the last window needs.
    last = (result.shape[1] - 1) * stride + (taps - 1) * spread
    assert before + after == 0 or last == before + size + after - 1


def test_odd_padding_lies_below_and_to_the_right() -> None:
    op, _ = attributes(ops.conv, (1, 256, 256, 3), (3, 3, 3, 8), strides=2, padding="same")
    assert op.padding == ((0, 1), (0, 1))
    op, _ = attributes(ops.conv, (1, 256, 256, 3), (3, 3, 3, 8), strides=2, padding=((1, 1), [1, 1]))
    assert op.padding == ((1, 1), (1, 1))


def test_conv_finds_its_groups_and_promotes() -> None:
    op, result = attributes(ops.conv, (2, 8, 8, 6), (3, 3, 2, 9))
    assert op.groups == 3 and result.shape == (2, 6, 6, 9)
    pixels = np.arange(32, dtype=np.uint8).reshape(1, 4, 4, 2)
    result = run(ops.conv, pixels, np.ones((4, 4, 2, 1), np.float32))
    assert result.dtype == np.float32 and result.tolist() == [[[[sum(range(32))]]]]


def test_depthwise_convolution_keeps_channels_apart() -> None:
    x, kernel = sample(0, 2, 5, 6, 3), sample(1, 3, 2, 3, 4)
    found = run(lambda x, k: ops.depthwise_conv(x, k, strides=2, padding="same", dilation_rate=1), x, kernel)
    alone = [
        run(lambda x, k: ops.conv(x, k, strides=2, padding="same"), x[..., [c]], kernel[:, :, [c]]) for c in range(3)
    ]
    np.testing.assert_allclose(found, np.concatenate(alone, axis=-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"padding": "full"}, ValueError, '"valid", "same"'),
        ({"padding": 1}, ValueError, '"valid", "same"'),
        ({"strides": 0, "padding": "same"}, ShapeError, "strides and dilation >= 1"),
        ({"strides": (1, 2, 3)}, ValueError, "one integer or two"),
        ({"strides": 1.5}, ValueError, "one integer or two"),
        ({"data_format": "channels_first"}, ValueError, "channels_last"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attributes(ops.conv, (1, 8, 8, 3), (3, 3, 3, 8), **arguments)
    with pytest.raises(error, match=message):
        attributes(ops.depthwise_conv, (1, 8, 8, 3), (3, 3, 3, 8), **arguments)


def test_kernels_that_fit_no_groups_are_refused() -> None:
    with pytest.raises(ShapeError, match="channels divide the 8"):
        attributes(ops.conv, (1, 8, 8, 8), (3, 3, 3, 8))
    with pytest.raises(ShapeError, match="multiplier"):
        attributes(ops.depthwise_conv, (1, 8, 8, 8), (3, 3, 1, 8))
    with pytest.raises(ShapeError, match="batch, height"):
        attributes(ops.conv, (8, 8, 8), (3, 3, 8, 8), padding="same")


def test_the_gradient_of_a_kernel_without_filters_is_empty() -> None:
    op = Conv2DKernelGrad((3, 3), padding=((1, 1), (1, 1)))
    assert op.reference(np.ones((2, 5, 4, 3)), np.ones((2, 5, 4, 0))).shape == (3, 3, 3, 0)
