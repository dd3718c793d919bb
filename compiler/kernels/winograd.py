"""Convolution kernels on Winograd's transformed tiles: transform, multiply matrices, transform back, block by block.

A block of tiles is transformed into scratch, one matrix [tiles, channels] for each of the points of a tile; each is
multiplied by the matrix [channels, filters] of the transformed kernel, one panel of filters after the other; what comes
back is transformed to pixels, on which the epilogue runs. So the transformed tiles never leave the core's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, chunks, columns, each_block
from gradloom.compiler.kernels.outer_product import Vectors, even_tile, finish_tile, multiply_add
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Contraction, Position
from gradloom.compiler.ops.movement import Transpose
from gradloom.compiler.ops.winograd import (
    TAPS,
    Matrix,
    WinogradConv2D,
    WinogradConv2DKernelGrad,
    WinogradKernel,
    transforms,
    transposed,
)
from gradloom.compiler.passes.fuse import storage
from gradloom.compiler.types import DType, TensorType

Grid = Sequence[Sequence[Expr]]
"""A tile's pixels or points, each a vector of channels."""

SPAN = 64
"""Channels in a block of a kernel gradient: with its filters' sums for all points they stay in the cache."""

TILES_AT_ONCE = 32
"""Tiles of a kernel gradient that are transformed before they are multiplied."""

VECTORS = 2
"""Vectors in a panel of filters: with all other registers for rows, each element that is loaded is used most often."""


def linear(b: Builder, matrix: Matrix, x: Sequence[Expr]) -> list[Expr]:
    """The rows of `matrix` · x.

    Points of interpolation come in pairs ±p, so that rows, or columns, agree up to signs: what they share is a sum that
    the builder emits once.
    """
    width = len(matrix[0])
    pairs = [(j, j + 1) for j in range(1, width - 1, 2) if all(abs(row[j]) == abs(row[j + 1]) for row in matrix)]
    return [_paired(b, row, x, pairs) if pairs else _by_parity(b, row, x) for row in matrix]


def _paired(b: Builder, row: Sequence[Fraction], x: Sequence[Expr], pairs: Sequence[tuple[int, int]]) -> Expr:
    """A row whose entries at each pair of columns agree up to the sign."""
    terms = []
    inside = {j for pair in pairs for j in pair}
    for j, entry in enumerate(row):
        if j not in inside:
            terms.append((entry, x[j]))
    for j, k in pairs:
        terms.append((row[j], b.add(x[j], x[k]) if row[j] == row[k] else b.sub(x[j], x[k])))
    return _sum(b, terms)


def _by_parity(b: Builder, row: Sequence[Fraction], x: Sequence[Expr]) -> Expr:
    """A row as the sum, or the difference, of its even and its odd terms: the row of the opposite point shares both."""
    even, odd = ([(entry, x[j]) for j, entry in enumerate(row) if j % 2 == parity and entry] for parity in (0, 1))
    if not even or not odd:
        return _sum(b, even or odd)
    if odd[0][0] < 0:
        return b.sub(_sum(b, even), _sum(b, [(-entry, value) for entry, value in odd]))
    return b.add(_sum(b, even), _sum(b, odd))


def _sum(b: Builder, terms: Sequence[tuple[Fraction, Expr]]) -> Expr:
    """Σ entry · value, beginning with an entry of 1 if there is one."""
    ordered = sorted(((entry, value) for entry, value in terms if entry), key=lambda term: term[0] != 1)
    entry, value = ordered[0]
    total = value if entry == 1 else b.mul(value, float(entry))
    for entry, value in ordered[1:]:
        if abs(entry) == 1:
            total = b.add(total, value) if entry == 1 else b.sub(total, value)
        else:
            total = b.fma(value, float(entry), total)
    return total


def both_axes(b: Builder, matrix: Matrix, tile: Grid) -> list[list[Expr]]:
    """`matrix` · tile · `matrix`ᵀ."""
    down = [linear(b, matrix, column) for column in zip(*tile, strict=True)]
    return [linear(b, matrix, row) for row in zip(*down, strict=True)]


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
        for i, line in enumerate(both_axes(b, matrix, [[b.broadcast(tap, b.lanes) for tap in row] for row in taps])):
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


class Planes:
    """Scratch for one matrix [rows, columns] at each point of a tile.

    Rows and planes that lie a power of two apart would all fall into the same few sets of the cache: each is longer by
    a vector than what it holds.
    """

    def __init__(self, b: Builder, name: str, dtype: DType, shape: tuple[int, int, int], lanes: int) -> None:
        points, rows, width = shape
        self.row = width + lanes
        self.plane = rows * self.row + lanes
        self.buffer = b.allocate(Buffer(name, TensorType(dtype, (points, self.plane)), "scratch"))

    def at(self, point: Index, row: Index, column: Index) -> Index:
        """Where an element lies."""
        return point.scaled(self.plane) + row.scaled(self.row) + column


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
        points, count = self.side**2, min(unit, tiles)
        self.tiles = Planes(b, "tiles", self.node.dtype, (points, count, self.channels), self.lanes)
        self.products = Planes(b, "products", self.node.dtype, (points, count, self.panel), self.lanes)
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
        whole, left = divmod(self.filters, self.panel)
        if whole:
            with self.b.loop(0, whole * self.panel, self.panel, name="n") as loop:
                self._panel(first, count, loop.index, self.panel)
        if left:
            self._panel(first, count, ix.constant(whole * self.panel), left)

    def _place(self, tile: Index) -> tuple[Index, Index, Index]:
        """A tile's image, and its first line and column."""
        image, down, across = self.b.unravel(tile, self.grid)
        return image, down.scaled(self.op.tile), across.scaled(self.op.tile)

    def _transform(self, first: Index, count: int) -> None:
        """Transform the input tiles of a block."""
        b, ((top, _), (left, _)) = self.b, self.op.padding

        def channels(tile: Index, image: Index, line: Index, column: Index, c: Index) -> None:
            pixels = [
                [self.lowering.evaluator.read(self.x, (image, line + (i - top), column + (j - left), c)) for j in span]
                for i in span
            ]
            _keep(b, self.tiles, tile, c, both_axes(b, self.matrices.input, pixels))

        span = range(self.side)
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
                lambda at, c: self.lowering.evaluator.read(self.kernel, (i, j, c, o + at)),
            )
            for r, at, result in by_row(b, sums, vectors):
                b.store(self.products.buffer, self.products.at(point, start + r, at), result)

        each_tile(b, count, even_tile(count, self.rows), multiply)

    def _transform_back(self, first: Index, count: int, o: Index, vectors: Vectors) -> None:
        """Transform products to pixels, and finish them."""
        b = self.b
        with b.loop(0, count, name="tile") as loop:
            image, line, column = self._place(first + loop.index)
            for at, lanes, active in vectors:
                with b.vectorized(lanes, active):
                    points = _kept(b, self.products, loop.index, _lanes(at, active), self.side)
                    pixels = both_axes(b, self.matrices.output, points)
                    self._finish(image, line, column, o + _lanes(at, active), pixels)

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
        count = max(1, min(math.prod(self.grid), TILES_AT_ONCE))
        self.count = count
        self.tiles, self.slopes, self.sums = (
            Planes(b, name, self.node.dtype, (self.side**2, *shape), self.lanes)
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
        b, tiles, count = self.b, math.prod(self.grid), self.count
        sums, zero = self.sums.buffer, b.zero(self.node.dtype)
        columns(b, sums.type.size, self.lanes, lambda at: b.store(sums, at, zero))
        whole = tiles // count * count
        if whole:
            with b.loop(0, whole, count, name="tiles") as loop:
                self._tiles(loop.index, count, first, span, o, width)
        if tiles - whole:
            self._tiles(ix.constant(whole), tiles - whole, first, span, o, width)
        with b.loop(0, span, name="c") as loop:
            columns(b, width, self.lanes, lambda at: self._finish(loop.index, at, first, o))

    def _finish(self, channel: Index, at: Index, first: Index, o: Index) -> None:
        """The epilogue of all taps for one channel and a vector of filters."""
        b = self.b
        points = _kept(b, self.sums, channel, at, self.side)
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
                pixels = self._window(self.x, image, line + -top, column + -left, self.side, first + c)
                _keep(b, self.tiles, loop.index, c, both_axes(b, self.matrices.input, pixels))

            def filters(at: Index) -> None:
                pixels = self._window(self.cotangent, image, line, column, tile, o + at)
                _keep(b, self.slopes, loop.index, at, both_axes(b, transposed(self.matrices.output), pixels))

            columns(b, span, self.lanes, channels)
            columns(b, width, self.lanes, filters)
        with b.loop(0, self.side**2, name="point") as loop:
            whole = width // self.panel * self.panel
            if whole:
                with b.loop(0, whole, self.panel, name="n") as panel:
                    self._multiply(loop.index, count, span, panel.index, chunks(self.panel, self.lanes))
            if width - whole:
                self._multiply(loop.index, count, span, ix.constant(whole), chunks(width - whole, self.lanes))

    def _window(self, value: Value, image: Index, line: Index, column: Index, side: int, channel: Index) -> Grid:
        """Pixels of an image, a vector of channels each."""
        read, lanes = self.lowering.evaluator.read, self.b.lanes
        return [
            [self.b.broadcast(read(value, (image, line + i, column + j, channel)), lanes) for j in range(side)]
            for i in range(side)
        ]

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
                        sums.append(b.broadcast(b.load(self.sums.buffer, place(r, _lanes(at, active))), lanes))
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

        each_tile(b, span, even_tile(span, self.rows), multiply)


def multiply_tile(
    b: Builder,
    sums: Sequence[Expr],
    vectors: Vectors,
    depth: int,
    left: Callable[[int, Index], Expr],
    right: Callable[[Index, Index], Expr],
) -> list[Expr]:
    """The micro-kernel: add left(row, k) · right(columns, k) over all k to the sums of a tile of rows by vectors."""
    with b.loop(0, depth, initial=sums, name="k") as loop:
        vectors_of_right = []
        for at, lanes, active in vectors:
            with b.vectorized(lanes, active):
                vectors_of_right.append(b.broadcast(right(_lanes(at, active), loop.index), lanes))
        results = []
        for r in range(len(sums) // len(vectors)):
            with b.vectorized(1):
                element = left(r, loop.index)
            for n, vector in enumerate(vectors_of_right):
                results.append(multiply_add(b, element, vector, loop.carried[r * len(vectors) + n]))
        loop.next(*results)
    return list(loop.results)


def by_row(b: Builder, sums: Sequence[Expr], vectors: Vectors) -> Iterator[tuple[int, Index, Expr]]:
    """Each sum of a tile with its row and its columns, inside of which it is to be stored."""
    for slot, result in enumerate(sums):
        r, n = divmod(slot, len(vectors))
        at, lanes, active = vectors[n]
        with b.vectorized(lanes, active):
            yield r, _lanes(at, active), result


def _keep(b: Builder, planes: Planes, row: Index, column: Index, points: Grid) -> None:
    """Store the points of a tile, a vector each."""
    for n, point in enumerate(point for line in points for point in line):
        b.store(planes.buffer, planes.at(ix.constant(n), row, column), point)


def _kept(b: Builder, planes: Planes, row: Index, column: Index, side: int) -> Grid:
    """The points of a tile that were stored."""
    return [
        [
            b.broadcast(b.load(planes.buffer, planes.at(ix.constant(i * side + j), row, column)), b.lanes)
            for j in range(side)
        ]
        for i in range(side)
    ]


def _lanes(start: int, active: int) -> Index:
    return ix.lanes(ix.constant(start), active)


def each_tile(b: Builder, count: int, rows: int, body: Callable[[Index, int], None]) -> None:
    """Run `body(first row, rows)` for all tiles of `count` rows."""
    whole = count // rows * rows
    if whole > rows:
        with b.loop(0, whole, rows, name="m") as loop:
            body(loop.index, rows)
    elif whole:
        body(ix.constant(0), rows)
    if count - whole:
        body(ix.constant(whole), count - whole)
