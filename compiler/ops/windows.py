"""Windows that slide over images [batch, height, width, channels]: how many fit, for convolution and pooling."""

from __future__ import annotations

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.types import OPEN, TensorType

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
"""Rows of padding above and below, columns left and right."""


def images(operand: TensorType) -> TensorType:
    """The operand, if it is a batch of images of known shape."""
    if operand.rank != 4 or OPEN in operand.shape:
        raise ShapeError(f"Expected a tensor of known shape [batch, height, width, channels]. Received: {operand}")
    return operand


def height_and_width(operand: TensorType) -> Pair:
    """The size of images."""
    _, height, width, _ = operand.shape
    return height, width


def one_float_dtype(first: TensorType, second: TensorType) -> None:
    """Refuse operands that are not of one float dtype."""
    if first.dtype != second.dtype or not first.dtype.is_float:
        raise DTypeError(f"Expected two operands of one float dtype. Received: {first}, {second}")


def check_attributes(strides: Pair, padding: Padding, dilation: Pair = (1, 1)) -> None:
    """Refuse what no window can be moved by."""
    if min(strides) < 1 or min(dilation) < 1:
        raise ShapeError(f"Expected strides and dilation >= 1. Received: strides={strides}, dilation={dilation}")
    if min(count for pair in padding for count in pair) < 0:
        raise ShapeError(f"Expected padding >= 0. Received: padding={padding}")


def count_windows(size: Pair, window: Pair, strides: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Pair:
    """How many windows fit vertically and horizontally; raises `ShapeError` where not even one does.

    The taps of a window stand `dilation` apart.
    """
    counts = []
    for axis, name in enumerate(("height", "width")):
        extent = (window[axis] - 1) * dilation[axis] + 1
        room = size[axis] + sum(padding[axis])
        if window[axis] < 1 or extent > room:
            raise ShapeError(
                f"Expected a window of at least 1 and at most the padded {name}. Received: window {window[axis]} "
                f"(over {extent} by its dilation), {name} {size[axis]} + padding {padding[axis]} = {room}"
            )
        counts.append((room - extent) // strides[axis] + 1)
    return counts[0], counts[1]


def same_padding(size: Pair, window: Pair, strides: Pair, dilation: Pair = (1, 1)) -> Padding:
    """The padding with which ceil(size / stride) windows fit; where it is odd, the larger half lies behind."""
    pairs = []
    for axis in range(2):
        extent = (window[axis] - 1) * dilation[axis] + 1
        count = -(-size[axis] // strides[axis])
        total = max((count - 1) * strides[axis] + extent - size[axis], 0)
        pairs.append((total // 2, total - total // 2))
    return pairs[0], pairs[1]
