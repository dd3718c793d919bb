"""Convolution kernels on Winograd's transformed tiles: transform, multiply matrices, transform back, block by block.

A block of tiles is transformed into scratch, one matrix [tiles, channels] for each of the points of a tile; each is
multiplied by the matrix [channels, filters] of the transformed kernel, one panel of filters after the other; what comes
back is transformed to pixels, on which the epilogue runs. So the transformed tiles never leave the core's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, chunks, columns, each_block, each_part
from gradloom.compiler.kernels.outer_product import Vectors, even_tile, finish_tile
from gradloom.compiler.kernels.winograd_tiles import (
    VECTORS,
    Grid,
    Planes,
    both_axes,
    by_row,
    first_lanes,
    multiply_tile,
    window,
)
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Contraction, Position
from gradloom.compiler.ops.movement import Transpose
from gradloom.compiler.ops.winograd import TAPS, WinogradConv2D, WinogradKernel, transforms
from gradloom.compiler.passes.reading import storage


def lower_winograd_kernel(task: Task) -> Lowered:
    """Transform a kernel: a block is some channels.

    A transposed kernel is read in squares of a vector's size: each cache line that one row of lanes takes an element
    from serves all other rows.
    """
    (node,) = (value for value in task.group.members if isinstance(value.op, WinogradKernel))
    assert isinstance(node.op, WinogradKernel)
    (kernel,) = node.inputs
    matrix, lowering = transforms(node.op.tile).kernel, Lowering(task)
    b, channels, filters = lowering.b, node.shape[2], node.shape[3]

    def transform(channel: Index, o: Index) -> None:
        taps = [
            [lowering.evaluator.read(kernel, (ix.constant(u), ix.constant(v), channel, o)) for v in range(TAPS)]
            for u in range(TAPS)
        ]
        broadcast = [[b.broadcast(b.convert(tap, node.dtype), b.lanes) for tap in row] for row in taps]
        for i, line in enumerate(both_axes(b, matrix, broadcast)):
            for j, point in enumerate(line):
                finish_tile(lowering, node, (ix.constant(i), ix.constant(j), channel, o), point)

    def some_channels(first: Index, count: int) -> None:
        def square(o: Index) -> None:
            with b.loop(0, count, name="c") as loop:
                transform(first + loop.index, o)

        if isinstance(kernel.op, Transpose):
            columns(b, filters, task.lanes, square)
        else:
            with b.loop(0, count, name="c") as loop:
                columns(b, filters, task.lanes, lambda o: transform(first + loop.index, o))

    if not channels * filters:
        return lowering.finish(0)
    blocks = -(-channels // task.lanes)
    with lowering.blocks(blocks) as block:
        each_block(b, block, task.lanes, channels, some_channels)
    return lowering.finish(blocks)


class Forward:
    """A kernel of one `winograd_conv2d`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        (self.node,) = (value for value in task.group.members if isinstance(value.op, Contraction))
        assert isinstance(self.node.op, WinogradConv2D)
        self.op = self.node.op
        self.x, self.kernel = self.node.inputs
        self.matrices = transforms(self.op.tile)
        self.side = self.op.tile + TAPS - 1
        images, height, width, self.filters = self.node.shape
        self.channels = self.x.shape[3]
        self.grid = (images, -(-height // self.op.tile), -(-width // self.op.tile))
        self.lanes = task.lanes
        self.panel = self.lanes * min(VECTORS, -(-self.filters // self.lanes))
        self.rows = (task.machine.registers - VECTORS - 2) * self.lanes // self.panel

    def lower(self) -> Lowered:
        tiles, b, lowering = math.prod(self.grid), self.b, self.lowering
        if not tiles * self.filters:
            return lowering.finish(0)
        holder = self.task.stored.get(storage(self.kernel))
        if holder is not None and self.filters > self.panel and not self.filters % self.panel:
            lowering.panels[holder] = self.panel
        panels = -(-self.filters // self.panel)
        unit = self._unit(tiles)
        # A kernel far larger than all tiles is read once: each core transforms all tiles for its own filters.
        by_columns = tiles <= max(unit, self.filters // 4) and panels >= self.task.machine.cores
        if by_columns:
            unit = tiles
        count = min(unit, tiles)
        self.tiles = Planes(b, "tiles", self.node.dtype, (self.side, count, self.channels), self.lanes)
        self.products = Planes(b, "products", self.node.dtype, (self.side, count, self.panel), self.lanes)
        if by_columns:
            self._transform(ix.constant(0), tiles)
            with lowering.blocks(panels) as block:
                each_block(
                    b, block, self.panel, self.filters, lambda o, width: self._panel(ix.constant(0), tiles, o, width)
                )
            return lowering.finish(panels)
        blocks = -(-tiles // unit)
        with lowering.blocks(blocks) as block:
            each_block(b, block, unit, tiles, self._tiles)
        return lowering.finish(blocks)

    def _unit(self, tiles: int) -> int:
        """The tiles of a block: as many as stay in the cache, in equal blocks for all cores."""
        machine = self.task.machine
        held = machine.l2_bytes // 2 // (self.side**2 * (self.channels + self.panel) * self.node.dtype.itemsize)
        most = max(self.rows, held // self.rows * self.rows)
        if tiles <= most:
            return tiles
        blocks = -(-tiles // (most * machine.cores)) * machine.cores
        return even_tile(tiles, -(-tiles // blocks))

    def _tiles(self, first: Index, count: int) -> None:
        """All filters of a block of tiles."""
        self._transform(first, count)
        each_part(self.b, self.filters, self.panel, lambda o, width: self._panel(first, count, o, width), "n")

    def _place(self, tile: Index) -> tuple[Index, Index, Index]:
        """A tile's image, and its first line and column."""
        image, down, across = self.b.unravel(tile, self.grid)
        return image, down.scaled(self.op.tile), across.scaled(self.op.tile)

    def _transform(self, first: Index, count: int) -> None:
        """Transform the input tiles of a block."""
        b, ((top, _), (left, _)) = self.b, self.op.padding

        def channels(tile: Index, image: Index, line: Index, column: Index, c: Index) -> None:
            pixels = window(self.lowering, self.x, (image, line + -top, column + -left, c), self.side)
            self.tiles.keep(b, tile, c, both_axes(b, self.matrices.input, pixels))

        with b.loop(0, count, name="tile") as loop:
            place = self._place(first + loop.index)
            columns(b, self.channels, self.lanes, lambda c: channels(loop.index, *place, c))

    def _panel(self, first: Index, count: int, o: Index, width: int) -> None:
        """A panel of filters for a block of tiles."""
        vectors = chunks(width, self.lanes)
        with self.b.loop(0, self.side**2, name="point") as loop:
            self._multiply(count, loop.index, o, vectors)
        self._transform_back(first, count, o, vectors)

    def _multiply(self, count: int, point: Index, o: Index, vectors: Vectors) -> None:
        """The products at one point: [tiles, channels] by [channels, filters of the panel]."""
        b, (i, j) = self.b, self.b.unravel(point, (self.side, self.side))

        def multiply(start: Index, rows: int) -> None:
            sums = multiply_tile(
                b,
                [b.zero(self.node.dtype, lanes) for _ in range(rows) for _, lanes, _ in vectors],
                vectors,
                self.channels,
                lambda r, c: b.load(self.tiles.buffer, self.tiles.at(point, start + r, c)),
                lambda at, c: b.convert(self.lowering.evaluator.read(self.kernel, (i, j, c, o + at)), self.node.dtype),
            )
            for r, at, result in by_row(b, sums, vectors):
                b.store(self.products.buffer, self.products.at(point, start + r, at), result)

        each_part(b, count, even_tile(count, self.rows), multiply, "m")

    def _transform_back(self, first: Index, count: int, o: Index, vectors: Vectors) -> None:
        """Transform products to pixels, and finish them."""
        b = self.b
        with b.loop(0, count, name="tile") as loop:
            image, line, column = self._place(first + loop.index)
            for at, lanes, active in vectors:
                with b.vectorized(lanes, active):
                    points = self.products.kept(b, loop.index, first_lanes(at, active))
                    pixels = both_axes(b, self.matrices.output, points)
                    self._finish(image, line, column, o + first_lanes(at, active), pixels)

    def _finish(self, image: Index, line: Index, column: Index, o: Index, pixels: Grid) -> None:
        """The epilogue of a tile's pixels: of those within the image."""
        _, height, width, _ = self.node.shape
        for i, row in enumerate(pixels):
            for j, pixel in enumerate(row):
                position = (image, line + i, column + j, o)
                limits = [(line + i, height), (column + j, width)]
                self._within(limits, lambda position=position, pixel=pixel: self._store(position, pixel))  # type: ignore[misc]

    def _store(self, position: Position, pixel: Expr) -> None:
        finish_tile(self.lowering, self.node, position, pixel)

    def _within(self, limits: Sequence[tuple[Index, int]], body: Callable[[], None]) -> None:
        """Run `body` where each index is below its limit."""
        if not limits:
            body()
            return
        (at, limit), *others = limits
        if at.high is not None and at.high < limit:
            self._within(others, body)
        else:
            with self.b.when(self.b.compare("lt", self.b.expr(at), limit)):
                self._within(others, body)
