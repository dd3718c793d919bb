"""The micro-kernel of matrix products: lanes along the columns, prologues in its loads, an epilogue on its result.

A tile of rows × vectors stays in registers while loops run over the depth; each turn broadcasts one element of A per
row and multiplies it by vectors of B. Where the columns of B are not adjacent in memory, or B is dear to compute, a
panel of it is first packed into scratch; so are rows of A that are stored in bf16. Where the machine multiplies pairs
of bf16, a turn takes two steps of the depth. Where A does not stay in the cache, a block takes several panels of
columns, and all of them in turn multiply each strip of rows that does stay: A then comes from far away once for a block
and not once for a panel. Where the depth is long and the tiles would stream their operands from far away again and
again (kernel gradients of convolutions), the outer loops over the depth stand outside of the tiles, whose sums wait in
scratch in between.

Every element of the result is one chain of multiply-adds in the order of the depth, whatever the tile: results do not
depend on tiles and threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.division import PACK_ROWS, SPARE, division_of
from gradloom.compiler.kernels.lowering import (
    Lowered,
    Lowering,
    Task,
    chunks,
    column_hint,
    each_block,
    each_part,
)
from gradloom.compiler.kernels.product import MatrixProduct, Product
from gradloom.compiler.kernels.staged_rows import StagedRows, row_bytes
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.ops.movement import Transpose
from gradloom.compiler.passes.reading import storage
from gradloom.compiler.types import BF16, I32, TensorType

FAR = 1024
"""Bytes between neighbours along the depth of B from which on each is a page of its own."""

GROUPS = 2
"""Blocks for each core where its panels of columns do not all stay in its cache: few, so that A is read few times."""

Vectors = Sequence[tuple[int, int, int]]
"""The vectors of a panel: the first column, the lanes, and how many of them count."""


Row = Callable[[Position], Expr]
"""Reads the elements of a row of A by their positions in the depth."""


@dataclass(frozen=True)
class Panel:
    """Columns of B that a tile spans: the first of them, where in scratch they are packed, and their vectors."""

    first: Index
    packed: Index
    vectors: Vectors


class OuterProduct:
    """A kernel of one matrix product."""

    def __init__(self, task: Task, product: Product) -> None:
        self.task = task
        self.product = product
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        self.lanes = task.lanes
        machine = task.machine
        division = division_of(task, product)
        self.by_columns, self.vectors = division.by_columns, division.vectors
        self.tile = even_tile(product.rows, max(1, (machine.registers - SPARE - self.vectors) // self.vectors))
        self.width = self.vectors * self.lanes
        self.outer = self._outer_loops()
        stored = product.a.dtype == BF16 and not (self.outer or product.batch or product.strided_a)
        self.pairs = stored and machine.multiplies_bf16 and product.depth[-1] % 2 == 0 and product.rows > self.tile
        self.depth = (*product.depth[:-1], product.depth[-1] // 2) if self.pairs else product.depth
        converts = stored and not self.pairs and product.depth[-1] >= self.lanes
        self.rows_at_once = self._rows_at_once() if converts else 0
        self.by_columns = self.by_columns and self.rows_at_once in (0, product.rows)
        self.group, self.strip = self._group()
        self.stages_strips = self.group > 1 and self._is_far_a()
        self.rows: StagedRows | None = None
        self.packed: Buffer | None = None
        self.sums: Buffer | None = None

    def lower(self) -> Lowered:
        product, lowering = self.product, self.lowering
        batches = math.prod(product.batch)
        if not batches * product.rows * product.columns:
            return lowering.finish(0)
        self._wish_for_panels()
        if self._packs():
            dtype = I32 if self.pairs else product.node.dtype
            type_ = TensorType(dtype, (self.group, math.prod(self.depth), self.width))
            self.packed = self.b.allocate(Buffer("panels", type_, "scratch"))
        tiles = -(-product.rows // self.tile)
        most_blocks = 4 * self.task.machine.cores if self.outer or self.pairs else 64
        unit = product.rows if self.by_columns else self.tile * -(-tiles // most_blocks)
        if self.rows_at_once:
            unit = min(unit, self.rows_at_once)
            self.rows = StagedRows(lowering, product, unit, self.lanes)
            if self.by_columns:
                self.rows.fill(ix.constant(0), product.rows)
        elif self.stages_strips:
            self.rows = StagedRows(lowering, product, self.strip, self.lanes)
        if self.outer:
            type_ = TensorType(product.node.dtype, (unit, self.width))
            self.sums = self.b.allocate(Buffer("sums", type_, "scratch"))
        columns = self.group * self.width
        blocks = batches * -(-product.columns // columns) if self.by_columns else -(-product.rows // unit)
        with lowering.blocks(blocks) as block:
            if self.by_columns:
                which, part = self.b.divmod(block, blocks // batches)
                batch = self.b.unravel(which, product.batch)
                each_block(
                    self.b,
                    part,
                    columns,
                    product.columns,
                    lambda first, width: self._block(batch, ix.constant(0), product.rows, first, width),
                )
            else:
                each_block(self.b, block, unit, product.rows, self._rows)
        return lowering.finish(blocks)

    def _outer_loops(self) -> int:
        """How many of the depth's loops stand outside of the tiles: so many that what is inside stays in the cache."""
        product = self.product
        if len(product.depth) < 2 or product.rows <= self.tile or product.strided_b:
            return 0
        width = product.a.shape[-1] + self.width
        for outer in range(len(product.depth)):
            if math.prod(product.depth[outer:]) * width * product.a.dtype.itemsize <= self.task.machine.l2_bytes:
                return outer
        return 0

    def _rows_at_once(self) -> int:
        """How many rows of A are converted ahead: all, if they stay in the cache, else as many tiles as do.

        All of them as well where these would be few: B is read again for each block of rows, and A for each panel.
        """
        product, cache = self.product, self.task.machine.l2_bytes
        bytes_ = row_bytes(product, self.lanes)
        rows = max(1, cache // 2 // bytes_ // self.tile) * self.tile
        fits, few = product.rows <= rows, rows < self.width
        return product.rows if self.by_columns and (fits or few) else min(rows, product.rows)

    def _group(self) -> tuple[int, int]:
        """The panels in a block of columns, and the rows in a strip that all of them multiply in turn.

        A strip stays in the L1 cache where the panels stay in L2, else in L2: then panels come from far away once for
        each strip, which must not be much more than what is spared, A once for each panel.
        """
        product, machine = self.product, self.task.machine
        if not self.by_columns or product.batch or self.outer:
            return 1, product.rows
        row = max(1, math.prod(product.depth)) * product.a.dtype.itemsize
        most = machine.l2_bytes // 2 // (row * self.width)
        panels = -(-product.columns // self.width)
        hint = column_hint(self.task, product.columns)
        far = machine.l2_bytes // 4 // row
        if hint is not None and hint % self.width == 0:
            group = hint // self.width
        elif panels >= 2 * machine.cores and (product.rows * row > machine.l2_bytes // 2 or self._is_far_a()):
            group = -(-panels // machine.cores)
            if group > most:
                group = -(-group // GROUPS) if 2 * far >= self.width else 1
        else:
            group = 1
        if group == 1:
            return 1, product.rows
        held = machine.l1_bytes // 2 // row if group <= most else far
        if self._is_far_a():
            # Whole vectors are staged: a masked store takes as long as a dozen others.
            unit = math.lcm(self.tile, self.lanes)
            return group, unit * max(1, held // unit)
        return group, even_tile(-(-product.rows // self.tile), max(1, held // self.tile)) * self.tile

    def _is_far_a(self) -> bool:
        """Whether A is stored by columns, and read by many tiles."""
        product = self.product
        return isinstance(product, MatrixProduct) and product.strided_a and product.rows >= PACK_ROWS * self.tile

    def _packs(self) -> bool:
        """Whether a panel of B is copied into scratch before it is used."""
        product = self.product
        if self.pairs:
            return True
        if product.rows <= self.tile or self.outer:
            return False
        holder = self.task.stored.get(storage(product.b))
        strided = product.strided_b or isinstance(product.b.op, Transpose)
        stride = product.b.shape[-1] * product.b.dtype.itemsize
        far = stride >= FAR and product.rows >= PACK_ROWS * self.tile and not (holder and holder.panel)
        return strided or holder is None or far

    def _wish_for_panels(self) -> None:
        """Say that B had better lie in panels, if it is a matrix whose panels are read one by one."""
        product = self.product
        holder = self.task.stored.get(product.b)
        if holder is not None and not product.strided_b and not product.batch and not self.outer:
            width = product.b.shape[-1]
            if width == product.columns and width > self.width and width % self.width == 0:
                self.lowering.panels[holder] = self.width

    def _rows(self, start: Index, rows: int) -> None:
        """All columns of a block of rows."""
        if self.rows is not None:
            self.rows.fill(start, rows)
        each_part(
            self.b,
            self.product.columns,
            self.width,
            lambda first, width: self._block((), start, rows, first, width),
            "n",
        )

    def _block(self, batch: Position, start: Index, rows: int, first: Index, width: int) -> None:
        """`rows` rows from `start` on of the panels in `width` columns: strip by strip, panel by panel."""

        def panels(body: Callable[[Panel], None]) -> None:
            depth = math.prod(self.depth)
            each_part(
                self.b,
                width,
                self.width,
                lambda at, count: body(Panel(first + at, at.scaled(depth), chunks(count, self.lanes))),
                "n",
            )

        if self.packed is not None:
            panels(lambda panel: self._pack(batch, panel))

        def strip(at: Index, count: int) -> None:
            if self.stages_strips and self.rows is not None:
                self.rows.fill(start + at, count)
            panels(lambda panel: self._panel(batch, start + at, count, panel))

        each_part(self.b, rows, min(rows, self.strip), strip, "s")

    def _panel(self, batch: Position, start: Index, rows: int, panel: Panel) -> None:
        """`rows` rows from `start` on of a panel of columns."""
        product = self.product
        if not self.outer:
            self._tiles(rows, lambda at, count: self._whole_tile(batch, start + at, count, panel))
            return
        self._tiles(rows, lambda at, count: self._set_sums(at, self._zeros(count, panel), panel))
        self._around(
            product.depth[: self.outer],
            lambda depth: self._tiles(
                rows, lambda at, count: self._add_to_sums(batch, start + at, at, count, depth, panel)
            ),
        )
        self._tiles(rows, lambda at, count: self._finish_sums(batch, start + at, at, count, panel))

    def _tiles(self, rows: int, body: Callable[[Index, int], None]) -> None:
        """Run `body(first row, rows)` for all tiles of `rows` rows."""
        each_part(self.b, rows, self.tile, body, "m")

    def _around(self, sizes: Sequence[int], body: Callable[[Position], None], depth: Position = ()) -> None:
        """Run `body` inside of loops over `sizes`."""
        if not sizes:
            body(depth)
        elif sizes[0] == 1:
            self._around(sizes[1:], body, (*depth, ix.constant(0)))
        else:
            with self.b.loop(0, sizes[0], name="k") as loop:
                self._around(sizes[1:], body, (*depth, loop.index))

    # Packing.

    def _pack(self, batch: Position, panel: Panel) -> None:
        """Copy a panel of B into scratch, one row of the panel after the other."""
        packed, product = self.packed, self.product
        assert packed is not None

        def row(depth: Position) -> None:
            at_row = panel.packed + self.b.ravel(depth, self.depth).scaled(self.width)
            for start, lanes, active in panel.vectors:
                with self.b.vectorized(lanes, active):
                    column = ix.lanes(panel.first + start, active)
                    if self.pairs:
                        element = self._words(depth, column)
                    else:
                        element = self._factor(product.b, product.at_b(batch, depth, column))
                    self.b.store(packed, ix.lanes(at_row + start, active), element)

        self._around(self.depth, row)

    def _words(self, depth: Position, column: Index) -> Expr:
        """Two neighbours along the depth of B in a word: the upper halves of both as f32."""
        b, product = self.b, self.product
        *outer, pair = depth
        lower, upper = (
            b.bitcast(
                self._factor(
                    product.b,
                    product.at_b(
                        (),
                        (
                            *outer,
                            pair.scaled(2) + n,
                        ),
                        column,
                    ),
                ),
                I32,
            )
            for n in (0, 1)
        )
        return b.binary("or", b.binary("shr", lower, 16), upper)

    def _b_vector(self, batch: Position, depth: Position, panel: Panel, start: int, active: int) -> Expr:
        if self.packed is not None:
            row = panel.packed + self.b.ravel(depth, self.depth).scaled(self.width)
            return self.b.load(self.packed, ix.lanes(row + start, active))
        at = self.product.at_b(batch, depth, ix.lanes(panel.first + start, active))
        return self._factor(self.product.b, at)

    def _factor(self, operand: Value, at: Position) -> Expr:
        """An element of an operand in the dtype in which it is multiplied."""
        return self.b.convert(self.lowering.evaluator.read(operand, at), self.product.node.dtype)

    # Tiles.

    def _whole_tile(self, batch: Position, row: Index, rows: int, panel: Panel) -> None:
        places = [self.product.place(self.b, row + r) for r in range(rows)]
        left = [self._row_of_a(batch, place, row + r) for r, place in enumerate(places)]
        sums = self._contract(batch, left, (), panel, self._zeros(rows, panel))
        for r, place in enumerate(places):
            self._finish(batch, place, sums[r * len(panel.vectors) : (r + 1) * len(panel.vectors)], panel)

    def _row_of_a(self, batch: Position, place: Position, row: Index) -> Row:
        """How the elements of a row of A are read, `place` being the row's number taken apart."""
        product, rows, b = self.product, self.rows, self.b
        if self.pairs:

            def word(depth: Position) -> Expr:
                with b.vectorized(2):
                    pair = (*depth[:-1], ix.lanes(depth[-1].scaled(2), 2))
                    return b.word(self.lowering.evaluator.read(product.a, product.at_a((), place, pair)))

            return word
        if rows is None:
            return lambda depth: self._factor(product.a, product.at_a(batch, place, depth))
        return lambda depth: rows.read(row, depth)

    def _zeros(self, rows: int, panel: Panel) -> list[Expr]:
        return [self.b.zero(self.product.node.dtype, lanes) for _ in range(rows) for _, lanes, _ in panel.vectors]

    def _contract(
        self,
        batch: Position,
        left: Sequence[Row],
        depth: Position,
        panel: Panel,
        sums: Sequence[Expr],
    ) -> tuple[Expr, ...]:
        """The micro-kernel: add to the sums of a tile what the depth's loops from the current one on yield."""
        if len(depth) == len(self.depth):
            return self._turn(batch, left, depth, panel, sums)
        if self.depth[len(depth)] == 1:
            return self._contract(batch, left, (*depth, ix.constant(0)), panel, sums)
        with self.b.loop(0, self.depth[len(depth)], initial=sums, name="k") as loop:
            loop.next(*self._contract(batch, left, (*depth, loop.index), panel, loop.carried))
        return loop.results

    def _turn(
        self,
        batch: Position,
        left: Sequence[Row],
        depth: Position,
        panel: Panel,
        sums: Sequence[Expr],
    ) -> tuple[Expr, ...]:
        b = self.b
        multiply = b.dot2 if self.pairs else partial(multiply_add, b)
        right = []
        for start, lanes, active in panel.vectors:
            with b.vectorized(lanes, active):
                right.append(b.broadcast(self._b_vector(batch, depth, panel, start, active), lanes))
        results = list(sums)
        for r, row in enumerate(left):
            with b.vectorized(1):
                element = row(depth)
            for n, vector in enumerate(right):
                slot = r * len(right) + n
                results[slot] = multiply(element, vector, results[slot])
        return tuple(results)

    def _finish(
        self,
        batch: Position,
        place: Position,
        sums: Sequence[Expr],
        panel: Panel,
    ) -> None:
        """The epilogue of one row of a tile."""
        for (start, lanes, active), result in zip(panel.vectors, sums, strict=True):
            with self.b.vectorized(lanes, active):
                position = self.product.at_result(batch, place, ix.lanes(panel.first + start, active))
                finish_tile(self.lowering, self.product.node, position, result)

    # Sums that wait in scratch.

    def _add_to_sums(
        self,
        batch: Position,
        row: Index,
        at: Index,
        rows: int,
        depth: Position,
        panel: Panel,
    ) -> None:
        left = [self._row_of_a(batch, self.product.place(self.b, row + r), row + r) for r in range(rows)]
        sums = self._get_sums(at, rows, panel)
        self._set_sums(at, self._contract(batch, left, depth, panel, sums), panel)

    def _finish_sums(
        self,
        batch: Position,
        row: Index,
        at: Index,
        rows: int,
        panel: Panel,
    ) -> None:
        for r in range(rows):
            sums = self._get_sums(at + r, 1, panel)
            self._finish(batch, self.product.place(self.b, row + r), sums, panel)

    def _get_sums(self, at: Index, rows: int, panel: Panel) -> list[Expr]:
        assert self.sums is not None
        found = []
        for r in range(rows):
            for start, lanes, active in panel.vectors:
                with self.b.vectorized(lanes, active):
                    element = self.b.load(self.sums, ix.lanes((at + r).scaled(self.width) + start, active))
                    found.append(self.b.broadcast(element, lanes))
        return found

    def _set_sums(self, at: Index, sums: Sequence[Expr], panel: Panel) -> None:
        assert self.sums is not None
        for slot, value in enumerate(sums):
            r, n = divmod(slot, len(panel.vectors))
            start, lanes, active = panel.vectors[n]
            with self.b.vectorized(lanes, active):
                self.b.store(self.sums, ix.lanes((at + r).scaled(self.width) + start, active), value)


def multiply_add(b: Builder, x: Expr, y: Expr, z: Expr) -> Expr:
    """x·y + z: one rounding for floats."""
    return b.fma(x, y, z) if z.dtype.is_float else b.add(b.mul(x, y), z)


def finish_tile(lowering: Lowering, node: Value, position: Position, result: Expr) -> None:
    """The epilogue: everything that the group computes from one vector of the contraction's result."""
    lowering.evaluator.given[node] = lambda at: result
    lowering.store(lowering.task.group.results, position)


def even_tile(size: int, most: int) -> int:
    """Rows of a tile, at most `most`, such that `size` falls into tiles as even as possible."""
    return -(-size // -(-size // most)) if size else 1
