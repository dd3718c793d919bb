"""Rows at positions known at run time: gather reads them, scatter_add adds into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Inline, Position, Reader, Scatter, refuse_bf16
from gradloom.compiler.types import I64, OPEN, TensorType


def _check_indices(indices: TensorType) -> None:
    if not indices.dtype.is_integer or OPEN in indices.shape:
        raise DTypeError(f"Expected indices of an integer dtype and known shape. Received: {indices}")


def row_index(b: Builder, value: Expr, rows: int) -> Index:
    """The row that an index means: moved into [0, rows), so that no access leaves the tensor.

    For an open table it is taken as it is.
    """
    if rows == OPEN:
        return b.index(value, 0)
    wide = b.convert(value, I64)
    return b.index(b.binary("min", b.binary("max", wide, 0), rows - 1), 0, rows - 1)


@dataclass(frozen=True)
class Gather(Inline):
    """Rows of a table: `%4: u8[32,28,28] = gather %2 %3`, from table [n, …] and indices [i, …] makes [i, …, …].

    An index outside of [0, n) reads the nearest row. A table may be open in its first axis (a data set): then whoever
    runs the program vouches for the indices.
    """

    name: ClassVar[str] = "gather"
    arity: ClassVar[int | None] = 2
    cost: ClassVar[int] = 2

    def infer(self, *operands: TensorType) -> TensorType:
        table, indices = operands
        _check_indices(indices)
        if table.rank < 1 or OPEN in table.shape[1:] or (table.shape[0] == 0 and indices.size):
            raise ShapeError(f"Expected a table of at least one row. Received: {table}")
        return TensorType(table.dtype, indices.shape + table.shape[1:])

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        table, indices = operands
        rank = indices.type.rank
        row = row_index(b, indices.read(position[:rank]), table.type.shape[0])
        return table.read((row, *position[rank:]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        table, indices = operands
        return np.take(table, indices, axis=0, mode="clip")

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        table, indices = node.inputs
        if table.shape[0] == OPEN:
            return (None, None)
        return (node.graph.apply(ScatterAdd(table.shape[0]), cotangent, indices), None)


@dataclass(frozen=True)
class ScatterAdd(Scatter):
    """Rows added into zeros: `%4: f32[1000,64] = scatter_add %2 %3 {size=1000}`, gather's derivative.

    Updates [i, …, r, …] and indices [i, …] make [size, r, …]; an index outside of [0, size) means the nearest row.
    """

    name: ClassVar[str] = "scatter_add"
    size: int

    def infer(self, *operands: TensorType) -> TensorType:
        updates, indices = operands
        _check_indices(indices)
        refuse_bf16(updates)
        if not updates.dtype.is_float and not updates.dtype.is_integer:
            raise DTypeError(f"Expected updates that can be added. Received: {updates}")
        if updates.shape[: indices.rank] != indices.shape:
            raise ShapeError(f"Expected one row for each index. Received: rows {updates}, indices {indices}")
        if self.size < 0 or (self.size == 0 and indices.size):
            raise ShapeError(f"Expected at least one row to add into. Received: size={self.size}")
        return TensorType(updates.dtype, (self.size, *updates.shape[indices.rank :]))

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        updates, indices = operands
        result = np.zeros((self.size, *updates.shape[indices.ndim :]), updates.dtype)
        with np.errstate(all="ignore"):
            np.add.at(result, np.clip(indices.astype(np.int64), 0, self.size - 1), updates)
        return result

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (node.graph.apply(Gather(), cotangent, node.inputs[1]), None)
