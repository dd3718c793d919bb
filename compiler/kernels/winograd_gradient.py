"""Kernels of the gradient of a convolution's kernel, on Winograd's transformed tiles."""

from __future__ import annotations

import math

from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, chunks, columns, each_block, each_part
from gradloom.compiler.kernels.outer_product import Vectors, even_tile, finish_tile
from gradloom.compiler.kernels.winograd_tiles import (
    VECTORS,
    Planes,
    both_axes,
    by_row,
    first_lanes,
    multiply_tile,
    window,
)
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Contraction
from gradloom.compiler.ops.winograd import TAPS, WinogradConv2DKernelGrad, transforms, transposed

SPAN = 64
"""Channels in a block: with its filters' sums for all points they stay in the cache."""

TILES_AT_ONCE = 32
"""Tiles that are transformed before they are multiplied."""


class KernelGradient:
    """A kernel of one `winograd_conv2d_kernel_grad`: a block is some channels with some filters.

    Their sums over all tiles stay in scratch while tiles, a few at a time, are transformed and multiplied.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        (self.node,) = (value for value in task.group.members if isinstance(value.op, Contraction))
        assert isinstance(self.node.op, WinogradConv2DKernelGrad)
        self.op = self.node.op
        self.x, self.cotangent = self.node.inputs
        self.matrices = transforms(self.op.tile)
        self.side = self.op.tile + TAPS - 1
        images, height, width, self.filters = self.cotangent.shape
        self.channels = self.x.shape[3]
        self.grid = (images, height // self.op.tile, width // self.op.tile)
        self.lanes = task.lanes
        self.panel = self.lanes * min(VECTORS, -(-self.filters // self.lanes))
        self.rows = (task.machine.registers - VECTORS - 2) * self.lanes // self.panel

    def lower(self) -> Lowered:
        b, lowering = self.b, self.lowering
        if not self.channels * self.filters:
            return lowering.finish(0)
        span, width = min(self.channels, SPAN), min(self.filters, SPAN * 2)
        while width > self.panel and self._blocks(span, width) < 2 * self.task.machine.cores:
            width = -(-width // (2 * self.panel)) * self.panel
        self.count = count = max(1, min(math.prod(self.grid), TILES_AT_ONCE))
        self.tiles, self.slopes, self.sums = (
            Planes(b, name, self.node.dtype, (self.side, *shape), self.lanes)
            for name, shape in (("tiles", (count, span)), ("slopes", (count, width)), ("sums", (span, width)))
        )
        with lowering.blocks(self._blocks(span, width)) as block:
            by_filters, by_channels = b.divmod(block, -(-self.channels // span))

            def filters(first: Index, span: int) -> None:
                each_block(b, by_filters, width, self.filters, lambda o, width: self._block(first, span, o, width))

            each_block(b, by_channels, span, self.channels, filters)
        return lowering.finish(self._blocks(span, width))

    def _blocks(self, span: int, width: int) -> int:
        return -(-self.channels // span) * -(-self.filters // width)

    def _block(self, first: Index, span: int, o: Index, width: int) -> None:
        """All tiles for `span` channels and `width` filters."""
        b, sums, zero = self.b, self.sums.buffer, self.b.zero(self.node.dtype)
        columns(b, sums.type.size, self.lanes, lambda at: b.store(sums, at, zero))
        each_part(
            b,
            math.prod(self.grid),
            self.count,
            lambda start, count: self._tiles(start, count, first, span, o, width),
            "tiles",
        )
        with b.loop(0, span, name="c") as loop:
            columns(b, width, self.lanes, lambda at: self._finish(loop.index, at, first, o))

    def _finish(self, channel: Index, at: Index, first: Index, o: Index) -> None:
        """The epilogue of all taps for one channel and a vector of filters."""
        b = self.b
        points = self.sums.kept(b, channel, at)
        for u, row in enumerate(both_axes(b, transposed(self.matrices.kernel), points)):
            for v, tap in enumerate(row):
                position = (ix.constant(u), ix.constant(v), first + channel, o + at)
                finish_tile(self.lowering, self.node, position, tap)

    def _tiles(self, start: Index, count: int, first: Index, span: int, o: Index, width: int) -> None:
        """Add the products of `count` tiles to the sums."""
        b, tile = self.b, self.op.tile
        (top, _), (left, _) = self.op.padding
        with b.loop(0, count, name="tile") as loop:
            image, down, across = b.unravel(start + loop.index, self.grid)
            line, column = down.scaled(tile), across.scaled(tile)

            def channels(c: Index) -> None:
                pixels = window(self.lowering, self.x, (image, line + -top, column + -left, first + c), self.side)
                self.tiles.keep(b, loop.index, c, both_axes(b, self.matrices.input, pixels))

            def filters(at: Index) -> None:
                pixels = window(self.lowering, self.cotangent, (image, line, column, o + at), tile)
                self.slopes.keep(b, loop.index, at, both_axes(b, transposed(self.matrices.output), pixels))

            columns(b, span, self.lanes, channels)
            columns(b, width, self.lanes, filters)
        with b.loop(0, self.side**2, name="point") as loop:
            each_part(
                b,
                width,
                self.panel,
                lambda o, width: self._multiply(loop.index, count, span, o, chunks(width, self.lanes)),
                "n",
            )

    def _multiply(self, point: Index, count: int, span: int, column: Index, vectors: Vectors) -> None:
        """Add at one point [channels, tiles] times [tiles, filters of a panel]."""
        b = self.b

        def multiply(start: Index, rows: int) -> None:
            def place(r: int, at: Index) -> Index:
                return self.sums.at(point, start + r, column + at)

            sums = []
            for r in range(rows):
                for at, lanes, active in vectors:
                    with b.vectorized(lanes, active):
                        sums.append(b.broadcast(b.load(self.sums.buffer, place(r, first_lanes(at, active))), lanes))
            sums = multiply_tile(
                b,
                sums,
                vectors,
                count,
                lambda r, tile: b.load(self.tiles.buffer, self.tiles.at(point, tile, start + r)),
                lambda at, tile: b.load(self.slopes.buffer, self.slopes.at(point, tile, column + at)),
            )
            for r, columns_, result in by_row(b, sums, vectors):
                b.store(self.sums.buffer, place(r, columns_), result)

        each_part(b, span, even_tile(span, self.rows), multiply, "m")
