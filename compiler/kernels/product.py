"""Matrix products as kernels see them: rows, columns and a contracted depth, and where each element is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from gradloom.compiler.ir import Value
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.ops.contractions import Matmul

NO_BORDER = (0, 0, 0, 0)


@dataclass(frozen=True)
class Product(ABC):
    """A sum of products over `depth`: result[row, column] = Σ a[row, depth] · b[depth, column], for each of `batch`.

    `depth` has one size for each nested loop. A convolution is such a product, too: its rows are pixels, its depth the
    taps of the kernel and the channels.
    """

    node: Value
    a: Value
    b: Value
    batch: tuple[int, ...]
    rows: int
    columns: int
    depth: tuple[int, ...]

    @property
    def border(self) -> tuple[int, int, int, int]:
        """How far rows reach beyond the operand `a`: lines above and below it, columns to its left and right."""
        return NO_BORDER

    @property
    @abstractmethod
    def strided_a(self) -> bool:
        """Whether neighbours along the depth lie apart in `a`."""

    @property
    @abstractmethod
    def strided_b(self) -> bool:
        """Whether neighbours along the columns lie apart in `b`."""

    @abstractmethod
    def place(self, b: Builder, row: Index) -> Position:
        """The row's number taken apart, as the other methods want it: computed once, outside of the depth's loops."""

    @abstractmethod
    def at_a(self, batch: Position, place: Position, depth: Position) -> Position:
        """The position in `a`."""

    @abstractmethod
    def at_b(self, batch: Position, depth: Position, column: Index) -> Position:
        """The position in `b`."""

    @abstractmethod
    def at_result(self, batch: Position, place: Position, column: Index) -> Position:
        """The position in the result."""


@dataclass(frozen=True)
class MatrixProduct(Product):
    """The product of two matrices, each stored by rows or by columns."""

    @classmethod
    def of(cls, node: Value) -> MatrixProduct:
        """The product that a matmul node asks for."""
        op, (a, b) = node.op, node.inputs
        assert isinstance(op, Matmul)
        *batch, rows, columns = node.shape
        return cls(node, a, b, tuple(batch), rows, columns, (op.matrix_a(a.type)[1],))

    @property
    def op(self) -> Matmul:
        assert isinstance(self.node.op, Matmul)
        return self.node.op

    @property
    def strided_a(self) -> bool:
        return self.op.transpose_a

    @property
    def strided_b(self) -> bool:
        return self.op.transpose_b

    def place(self, b: Builder, row: Index) -> Position:
        return (row,)

    def at_a(self, batch: Position, place: Position, depth: Position) -> Position:
        return (*_leading(self.a, batch), *(depth + place if self.op.transpose_a else place + depth))

    def at_b(self, batch: Position, depth: Position, column: Index) -> Position:
        return (*_leading(self.b, batch), *((column, *depth) if self.op.transpose_b else (*depth, column)))

    def at_result(self, batch: Position, place: Position, column: Index) -> Position:
        return (*batch, *place, column)


def _leading(operand: Value, batch: Position) -> Position:
    """The leading part of a position in an operand whose leading axes may be broadcast."""
    own = operand.shape[:-2]
    return tuple(
        ix.constant(0) if size == 1 else at for at, size in zip(batch[len(batch) - len(own) :], own, strict=True)
    )
