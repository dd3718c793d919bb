"""Rows of a product's first operand, staged in scratch for the tiles that read them: converted, or put side by side.

A micro-kernel broadcasts one element of A after the other. As f32 that is one instruction, from bf16 it would be four,
for each tile that reads the element; converted ahead, by whole vectors, an element is converted once for many tiles.
Where A is stored by columns, neighbours along the depth lie in lines and pages of their own: each tile and each panel
would look all of them up again, and at strides of a power of two they fall into the same few sets of the cache.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.kernels.lowering import Lowering, chunks, columns
from gradloom.compiler.kernels.product import Product
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.types import TensorType


def row_bytes(product: Product, lanes: int) -> int:
    """Bytes that a row takes in scratch: longer by a vector, so that rows do not fall into the same sets of a cache."""
    return (math.prod(product.depth) + lanes) * product.node.dtype.itemsize


class StagedRows:
    """Scratch for `count` rows of a product without a batch."""

    def __init__(self, lowering: Lowering, product: Product, count: int, lanes: int) -> None:
        self.lowering = lowering
        self.product = product
        self.lanes = lanes
        self.by_depth = product.strided_a
        depth = math.prod(product.depth)
        self.stride = count if self.by_depth else depth + lanes
        type_ = TensorType(product.node.dtype, (depth if self.by_depth else count, self.stride))
        self.buffer = lowering.b.allocate(Buffer("rows", type_, "scratch"))
        self.first = ix.constant(0)

    def fill(self, first: Index, count: int) -> None:
        """Stage `count` rows from `first` on."""
        self.first, b = first, self.lowering.b
        if self.by_depth:
            self._across(first, count, self.product.depth)
            return
        with b.loop(0, count, name="row") as loop:
            place = self.product.place(b, first + loop.index)
            self._along(loop.index, place, self.product.depth)

    def _across(self, first: Index, count: int, sizes: Sequence[int], depth: Position = ()) -> None:
        """Stage rows that are stored by columns, from a position in the depth on: vectors lie along the rows."""
        if sizes:
            with self.lowering.b.loop(0, sizes[0], name="k") as loop:
                self._across(first, count, sizes[1:], (*depth, loop.index))
            return
        for start, lanes, active in chunks(count, self.lanes):
            with self.lowering.b.vectorized(lanes, active):
                row = ix.lanes(ix.constant(start), active)
                self._copy(self.product.at_a((), (first + row,), depth), row, depth)

    def _along(self, row: Index, place: Position, sizes: Sequence[int], depth: Position = ()) -> None:
        """Stage a row that is stored as it is, from a position in its depth on: vectors lie along the depth."""
        b = self.lowering.b
        if len(sizes) > 1:
            with b.loop(0, sizes[0], name="k") as loop:
                self._along(row, place, sizes[1:], (*depth, loop.index))
            return

        def copy(k: Index) -> None:
            at = (*depth, k)
            self._copy(self.product.at_a((), place, at), row, at)

        columns(b, sizes[0], self.lanes, copy)

    def _copy(self, source: Position, row: Index, depth: Position) -> None:
        """Read some elements of A, convert them, and store them at a row and a depth."""
        element = self.lowering.evaluator.read(self.product.a, source)
        element = self.lowering.b.convert(element, self.product.node.dtype)
        self.lowering.b.store(self.buffer, self._at(row, depth), element)

    def _at(self, row: Index, depth: Position) -> Index:
        k = self.lowering.b.ravel(depth, self.product.depth)
        return k.scaled(self.stride) + row if self.by_depth else row.scaled(self.stride) + k

    def read(self, row: Index, depth: Position) -> Expr:
        """An element of one of the rows that were staged last."""
        return self.lowering.b.load(self.buffer, self._at(row + self.first.scaled(-1), depth))
