"""Matrix products with the vector lanes along the contracted axis: for few columns, both operands contiguous so."""

from __future__ import annotations

import math

from gradloom.compiler.kernels.lowering import Lowered, Lowering, Task, each_block, row_hint, tail
from gradloom.compiler.kernels.outer_product import finish_tile, multiply_add
from gradloom.compiler.kernels.product import MatrixProduct
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position


class InnerProduct:
    """A kernel of dot products: tiles of them share the vectors that they read, and add up their lanes at the end."""

    def __init__(self, task: Task, product: MatrixProduct) -> None:
        self.task = task
        self.product = product
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        (self.depth,) = product.depth
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
        whole = self.depth // lanes * lanes
        sums = [b.zero(product.node.dtype, lanes) for _ in range(rows * columns)]
        with b.vectorized(lanes), b.loop(0, whole, lanes, sums, name="k") as loop:
            loop.next(
                *self._turn(batch, row, rows, column, columns, ix.lanes(loop.index, lanes), list(loop.carried), None)
            )
        totals = [b.reduce("add", result) for result in loop.results]
        for start, width, active in tail(whole, self.depth):
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
        b, product, dtype = self.b, self.product, self.product.node.dtype
        read = self.lowering.evaluator.read
        left = [b.convert(read(product.a, product.at_a(batch, (row + r,), (depth,))), dtype) for r in range(rows)]
        right = [b.convert(read(product.b, product.at_b(batch, (depth,), column + c)), dtype) for c in range(columns)]
        if active is not None:
            # Lanes beyond the end may hold anything once an inlined producer has computed on them.
            left, right = ([self._only(x, active) for x in side] for side in (left, right))
        return [multiply_add(b, left[r], right[c], sums[r * columns + c]) for r in range(rows) for c in range(columns)]

    def _only(self, x: Expr, active: int) -> Expr:
        lanes = self.b.lanes
        if active == lanes:
            return x
        return self.b.select(self.b.compare("lt", self.b.iota(lanes), active), x, 0)
