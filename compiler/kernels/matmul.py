"""Kernels of matrix products: a register-tiled micro-kernel, with prologues in its loads and an epilogue on its result.

Two ways to use the vector lanes:

* along the columns of the result (`_OuterProduct`): a tile of rows × vectors stays in registers while the loop runs
  over the contracted axis; each turn broadcasts one element of A per row and multiplies it by vectors of B. Where the
  columns of B are not adjacent in memory, or B is dear to compute, a panel of it is first packed into scratch.
* along the contracted axis (`_InnerProduct`): for a result of few columns whose operands both have the contracted axis
  last; the lanes are added up at the end.

Every element of the result is one chain of multiply-adds in the order of the contracted axis (per lane), whatever the
tile: results do not depend on tiles and threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, chunks, each_block, row_hint, tail
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.passes.fuse import storage
from gradloom.compiler.types import TensorType

PACK_ROWS = 4
"""Tiles of rows from which on packing a panel of B pays, where B is strided in memory."""


@dataclass(frozen=True)
class Product:
    """The sizes of a matrix product, its operands, and the axes along which each is read."""

    node: Value
    a: Value
    b: Value
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: int
    transpose_a: bool
    transpose_b: bool

    @classmethod
    def of(cls, node: Value) -> Product:
        op = node.op
        assert isinstance(op, Matmul)
        a, b = node.inputs
        depth = a.shape[-2] if op.transpose_a else a.shape[-1]
        *batch, rows, columns = node.shape
        return cls(node, a, b, tuple(batch), rows, columns, depth, op.transpose_a, op.transpose_b)

    def at_a(self, batch: Position, row: Index, depth: Index) -> Position:
        """The position in A of an element of its row `row`."""
        return (*self._leading(self.a, batch), *((depth, row) if self.transpose_a else (row, depth)))

    def at_b(self, batch: Position, depth: Index, column: Index) -> Position:
        """The position in B of an element of its column `column`."""
        return (*self._leading(self.b, batch), *((column, depth) if self.transpose_b else (depth, column)))

    def _leading(self, operand: Value, batch: Position) -> Position:
        own = operand.shape[:-2]
        return tuple(
            ix.constant(0) if size == 1 else at for at, size in zip(batch[len(batch) - len(own) :], own, strict=True)
        )


def lower_matmul(task: Task) -> Lowered:
    """Lower a group of kind "contraction" whose anchor is a matrix product."""
    (node,) = (value for value in task.group.members if isinstance(value.op, Matmul))
    product = Product.of(node)
    few_columns = product.columns < 2 * task.lanes or product.rows < PACK_ROWS
    if product.transpose_b and not product.transpose_a and few_columns and product.depth >= task.lanes:
        return _InnerProduct(task, product).lower()
    return _OuterProduct(task, product).lower()


class _OuterProduct:
    """Lanes along the columns of the result."""

    def __init__(self, task: Task, product: Product) -> None:
        self.task = task
        self.product = product
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        self.lanes = task.lanes
        machine = task.machine
        most = 4 if machine.registers >= 32 else 2
        self.by_columns, self.vectors = _division(product, -(-product.columns // self.lanes), most, machine.cores)
        # Two registers stay free for the elements of A on their way.
        registers = machine.registers - self.vectors - 2
        self.tile = _even_tile(product.rows, max(1, registers // self.vectors))
        self.panel = self.vectors * self.lanes
        self.packed: Buffer | None = None

    def lower(self) -> Lowered:
        product, lowering = self.product, self.lowering
        batches = math.prod(product.batch)
        panels = -(-product.columns // self.panel)
        if not batches * product.rows * product.columns:
            return lowering.finish(0)
        if self._packs():
            type_ = TensorType(product.b.dtype, (product.depth, self.panel))
            self.packed = self.b.allocate(Buffer("panel", type_, "scratch"))
        if self.by_columns:
            blocks = batches * panels
            with lowering.blocks(blocks) as block:
                which, panel = self.b.divmod(block, panels)
                batch = self.b.unravel(which, product.batch)
                each_block(
                    self.b,
                    panel,
                    self.panel,
                    product.columns,
                    lambda first, width: self._column_panel(batch, first, width),
                )
        else:
            tiles = -(-product.rows // self.tile)
            unit = self.tile * -(-tiles // 64)
            blocks = -(-product.rows // unit)
            with lowering.blocks(blocks) as block:
                self._row_panel(block, unit)
        return lowering.finish(blocks)

    def _packs(self) -> bool:
        """Whether a panel of B is copied into scratch before it is used."""
        product = self.product
        if product.rows <= self.tile:
            return False
        direct = storage(product.b) in self.task.stored
        strided = product.transpose_b or self._transposed(product.b)
        far = product.columns * product.b.dtype.itemsize >= 4096 and product.rows >= PACK_ROWS * self.tile
        return strided or not direct or far

    @staticmethod
    def _transposed(value: Value) -> bool:
        return getattr(value.op, "name", "") == "transpose"

    def _column_panel(self, batch: Position, first: Index, width: int) -> None:
        """All rows of a panel of columns."""
        if self.packed is not None:
            self._pack(batch, first, width)
        whole = self.product.rows // self.tile * self.tile
        if whole > self.tile:
            with self.b.loop(0, whole, self.tile, name="m") as loop:
                self._tile(batch, loop.index, self.tile, first, width)
        elif whole:
            self._tile(batch, ix.constant(0), self.tile, first, width)
        if left := self.product.rows - whole:
            self._tile(batch, ix.constant(whole), left, first, width)

    def _row_panel(self, block: Index, unit: int) -> None:
        """All columns of a block of rows."""

        def panel_of(first: Index, width: int) -> None:
            if self.packed is not None:
                self._pack((), first, width)
            each_block(
                self.b, block, unit, self.product.rows, lambda start, rows: self._row_tiles(start, rows, first, width)
            )

        whole, left = divmod(self.product.columns, self.panel)
        if whole:
            with self.b.loop(0, whole * self.panel, self.panel, name="n") as loop:
                panel_of(loop.index, self.panel)
        if left:
            panel_of(ix.constant(whole * self.panel), left)

    def _row_tiles(self, start: Index, rows: int, first: Index, width: int) -> None:
        whole = rows // self.tile * self.tile
        for row in range(0, whole, self.tile):
            self._tile((), start + row, self.tile, first, width)
        if rows - whole:
            self._tile((), start + whole, rows - whole, first, width)

    def _pack(self, batch: Position, first: Index, width: int) -> None:
        """Copy a panel of B into scratch, one row of the panel after the other."""
        assert self.packed is not None
        with self.b.loop(0, self.product.depth, name="k") as loop:
            for start, lanes, active in chunks(width, self.lanes):
                with self.b.vectorized(lanes, active):
                    at = self.product.at_b(batch, loop.index, ix.lanes(first + start, active))
                    element = self.lowering.evaluator.read(self.product.b, at)
                    self.b.store(self.packed, ix.lanes(loop.index.scaled(self.panel) + start, active), element)

    def _b_vector(self, batch: Position, depth: Index, first: Index, start: int, active: int) -> Expr:
        if self.packed is not None:
            return self.b.load(self.packed, ix.lanes(depth.scaled(self.panel) + start, active))
        at = self.product.at_b(batch, depth, ix.lanes(first + start, active))
        return self.lowering.evaluator.read(self.product.b, at)

    def _tile(self, batch: Position, row: Index, rows: int, first: Index, width: int) -> None:
        """The micro-kernel: `rows` × `width` elements of the result from the row and column given."""
        b, evaluator, product = self.b, self.lowering.evaluator, self.product
        vectors = chunks(width, self.lanes)
        initial = [b.zero(product.node.dtype, lanes) for _ in range(rows) for _, lanes, _ in vectors]
        with b.loop(0, product.depth, initial=initial, name="k") as loop:
            right = []
            for start, lanes, active in vectors:
                with b.vectorized(lanes, active):
                    right.append(b.broadcast(self._b_vector(batch, loop.index, first, start, active), lanes))
            sums = list(loop.carried)
            for r in range(rows):
                with b.vectorized(1):
                    left = evaluator.read(product.a, product.at_a(batch, row + r, loop.index))
                for n in range(len(vectors)):
                    slot = r * len(vectors) + n
                    sums[slot] = multiply_add(b, left, right[n], sums[slot])
            loop.next(*sums)
        for r in range(rows):
            for n, (start, lanes, active) in enumerate(vectors):
                result = loop.results[r * len(vectors) + n]
                with b.vectorized(lanes, active):
                    position = (*batch, row + r, ix.lanes(first + start, active))
                    finish_tile(self.lowering, product.node, position, result)


class _InnerProduct:
    """Lanes along the contracted axis."""

    def __init__(self, task: Task, product: Product) -> None:
        self.task = task
        self.product = product
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        self.rows = min(4, product.rows)
        self.columns = min(product.columns, 5 if task.machine.registers >= 32 else 2)

    def lower(self) -> Lowered:
        product, lowering = self.product, self.lowering
        batches = math.prod(product.batch)
        if not batches * product.rows * product.columns:
            return lowering.finish(0)
        hint = row_hint(self.task, product.a.shape) if not product.batch else None
        unit = hint if hint is not None and hint % self.rows == 0 else self.rows
        row_blocks = -(-product.rows // unit)
        with lowering.blocks(batches * row_blocks) as block:
            which, part = self.b.divmod(block, row_blocks)
            batch = self.b.unravel(which, product.batch)
            each_block(self.b, part, unit, product.rows, lambda start, rows: self._rows(batch, start, rows))
        return lowering.finish(batches * row_blocks)

    def _rows(self, batch: Position, start: Index, rows: int) -> None:
        for row in range(0, rows, self.rows):
            height = min(self.rows, rows - row)
            whole = self.product.columns // self.columns * self.columns
            if whole > 4 * self.columns:
                with self.b.loop(0, whole, self.columns, name="n") as loop:
                    self._tile(batch, start + row, height, loop.index, self.columns)
            else:
                for column in range(0, whole, self.columns):
                    self._tile(batch, start + row, height, ix.constant(column), self.columns)
            if left := self.product.columns - whole:
                self._tile(batch, start + row, height, ix.constant(whole), left)

    def _tile(self, batch: Position, row: Index, rows: int, column: Index, columns: int) -> None:
        b, product, lanes = self.b, self.product, self.task.lanes
        whole = product.depth // lanes * lanes
        sums = [b.zero(product.node.dtype, lanes) for _ in range(rows * columns)]
        with b.vectorized(lanes), b.loop(0, whole, lanes, sums, name="k") as loop:
            loop.next(
                *self._turn(batch, row, rows, column, columns, ix.lanes(loop.index, lanes), list(loop.carried), None)
            )
        totals = [b.reduce("add", result) for result in loop.results]
        for start, width, active in tail(whole, product.depth):
            with b.vectorized(width, active):
                zeros = [b.zero(product.node.dtype, width)] * len(totals)
                depth = ix.lanes(ix.constant(start), active)
                rest = self._turn(batch, row, rows, column, columns, depth, zeros, active)
            totals = [b.add(total, b.reduce("add", part)) for total, part in zip(totals, rest, strict=True)]
        with b.vectorized(1):
            for r in range(rows):
                for c in range(columns):
                    position = (*batch, row + r, column + c)
                    finish_tile(self.lowering, product.node, position, totals[r * columns + c])

    def _turn(
        self,
        batch: Position,
        row: Index,
        rows: int,
        column: Index,
        columns: int,
        depth: Index,
        sums: list[Expr],
        active: int | None,
    ) -> list[Expr]:
        """Add the products of one vector along the contracted axis to the sums."""
        b, evaluator, product = self.b, self.lowering.evaluator, self.product
        left = [evaluator.read(product.a, product.at_a(batch, row + r, depth)) for r in range(rows)]
        right = [evaluator.read(product.b, product.at_b(batch, depth, column + c)) for c in range(columns)]
        if active is not None:
            # Lanes beyond the end may hold anything once an inlined producer has computed on them.
            left, right = ([self._only(x, active) for x in side] for side in (left, right))
        return [multiply_add(b, left[r], right[c], sums[r * columns + c]) for r in range(rows) for c in range(columns)]

    def _only(self, x: Expr, active: int) -> Expr:
        lanes = self.b.lanes
        if active == lanes:
            return x
        return self.b.select(self.b.compare("lt", self.b.iota(lanes), active), x, 0)


def multiply_add(b: Builder, x: Expr, y: Expr, z: Expr) -> Expr:
    """x·y + z: one rounding for floats."""
    return b.fma(x, y, z) if z.dtype.is_float else b.add(b.mul(x, y), z)


def finish_tile(lowering: Lowering, node: Value, position: Position, result: Expr) -> None:
    """The epilogue: everything that the group computes from one vector of the contraction's result."""
    lowering.evaluator.given[node] = lambda at: result
    lowering.store(lowering.task.group.results, position)


def _division(product: Product, vectors: int, most: int, cores: int) -> tuple[bool, int]:
    """Whether blocks are panels of columns (else of rows), and the vectors in a panel.

    Panels of columns come first: each core then keeps its own columns of B in its cache, and of a result that later
    kernels divide alike. With few columns and many rows, rows are divided and panels stay wide.
    """
    wide = max(1, min(most, vectors))
    if product.batch or vectors // wide >= cores:
        return True, wide
    if product.rows >= 8 * PACK_ROWS * cores or vectors < cores <= product.rows:
        return False, wide
    return True, max(1, min(wide, vectors // cores))


def _even_tile(size: int, most: int) -> int:
    """Rows of a tile, at most `most`, such that `size` falls into tiles as even as possible."""
    return -(-size // -(-size // most)) if size else 1
