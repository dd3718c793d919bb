"""Rows of a product's first operand in scratch, converted: for operands that are stored in bf16.

A micro-kernel broadcasts one element of A after the other. As f32 that is one instruction, from bf16 it would be four,
for each tile that reads the element; converted ahead, by whole vectors, an element is converted once for many tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.kernels.lowering import Lowering, columns
from gradloom.compiler.kernels.product import Product
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.types import TensorType


def row_bytes(product: Product, lanes: int) -> int:
    """Bytes that a row takes in scratch: longer by a vector, so that rows do not fall into the same sets of a cache."""
    return (math.prod(product.depth) + lanes) * product.node.dtype.itemsize


class ConvertedRows:
    """Scratch for `count` rows of a product without a batch."""

    def __init__(self, lowering: Lowering, product: Product, count: int, lanes: int) -> None:
        self.lowering = lowering
        self.product = product
        self.lanes = lanes
        self.stride = row_bytes(product, lanes) // product.node.dtype.itemsize
        type_ = TensorType(product.node.dtype, (count, self.stride))
        self.buffer = lowering.b.allocate(Buffer("rows", type_, "scratch"))
        self.first = ix.constant(0)

    def fill(self, first: Index, count: int) -> None:
        """Convert `count` rows from `first` on."""
        self.first, b = first, self.lowering.b
        with b.loop(0, count, name="row") as loop:
            place = self.product.place(b, first + loop.index)
            self._along(loop.index, place, self.product.depth)

    def _along(self, row: Index, place: Position, sizes: Sequence[int], depth: Position = ()) -> None:
        """Convert a row from a position in its depth on."""
        b, product = self.lowering.b, self.product
        if len(sizes) > 1:
            with b.loop(0, sizes[0], name="k") as loop:
                self._along(row, place, sizes[1:], (*depth, loop.index))
            return

        def convert(k: Index) -> None:
            element = self.lowering.evaluator.read(product.a, product.at_a((), place, (*depth, k)))
            at = row.scaled(self.stride) + b.ravel((*depth, k), product.depth)
            b.store(self.buffer, at, b.convert(element, product.node.dtype))

        columns(b, sizes[0], self.lanes, convert)

    def read(self, row: Index, depth: Position) -> Expr:
        """An element of one of the rows that were converted last."""
        b = self.lowering.b
        at = (row + self.first.scaled(-1)).scaled(self.stride) + b.ravel(depth, self.product.depth)
        return b.load(self.buffer, at)
