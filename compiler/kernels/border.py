"""The kernel that fills the border of a buffer with zeros, so that windows may reach beyond the images in it."""

from __future__ import annotations

from gradloom.compiler.kernels.evaluate import Footprint
from gradloom.compiler.kernels.lowering import Lowered, columns
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer
from gradloom.compiler.loops.index import Index


def lower_border(buffer: Buffer, lanes: int) -> Lowered:
    """Zero the lines above and below each image, and the columns beside it; a block is an image."""
    b = Builder(f"border/{buffer.name}")
    b.param(buffer)
    images, height, width, channels = buffer.shape
    top, bottom, left, right = buffer.border

    def zero(first: Index, count: int) -> None:
        """`count` adjacent elements from `first` on."""
        columns(b, count, lanes, lambda j: b.store(buffer, first + j, b.zero(buffer.type.dtype)))

    with b.parallel(images) as image:
        start = image.index.scaled(height * width * channels)
        line = width * channels
        zero(start, top * line)
        zero(start + (height - bottom) * line, bottom * line)
        with b.loop(0, height - top - bottom, name="line") as loop:
            first = start + top * line + loop.index.scaled(line)
            zero(first, left * channels)
            zero(first + (width - right) * channels, right * channels)
    footprint = Footprint(writes=True, partitions={None})
    return Lowered(b.kernel(images), {buffer: footprint}, {})
