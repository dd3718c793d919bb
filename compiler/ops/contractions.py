"""Contractions: sums of products over a contracted dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.base import Contraction, broadcast_shapes, for_arithmetic
from gradloom.compiler.ops.elementwise import stored_as
from gradloom.compiler.types import TensorType


@dataclass(frozen=True)
class Matmul(Contraction):
    """The matrix product: `%5: f32[32,128] = matmul %3 %4 {transpose_a=false, transpose_b=false}`.

    [..., M, K] by [..., K, N] makes [..., M, N]; a flag says that the operand's last two axes are stored the other way
    round. Leading axes are broadcast.
    """

    name: ClassVar[str] = "matmul"
    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, *operands: TensorType) -> TensorType:
        a, b = operands
        if a.dtype != b.dtype or not a.dtype.is_float:
            raise DTypeError(f"Expected two operands of one float dtype. Received: {a}, {b}")
        if a.rank < 2 or b.rank < 2:
            raise ShapeError(f"Expected operands of rank 2 at least. Received: {a}, {b}")
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        (m, k), (k_b, n) = self.matrix_a(a), self.matrix_b(b)
        if k != k_b or min(m, k, n) < 0:
            raise ShapeError(f"Expected equal inner sizes. Received: {a} and {b} with inner sizes {k} and {k_b}")
        return TensorType(a.dtype.arithmetic, (*batch, m, n))

    def matrix_a(self, a: TensorType) -> tuple[int, int]:
        """Sizes (M, K) of the first operand."""
        return (a.shape[-1], a.shape[-2]) if self.transpose_a else (a.shape[-2], a.shape[-1])

    def matrix_b(self, b: TensorType) -> tuple[int, int]:
        """Sizes (K, N) of the second operand."""
        return (b.shape[-1], b.shape[-2]) if self.transpose_b else (b.shape[-2], b.shape[-1])

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        a, b = for_arithmetic(*operands)
        with np.errstate(all="ignore"):
            return np.asarray(
                np.matmul(
                    np.swapaxes(a, -1, -2) if self.transpose_a else a, np.swapaxes(b, -1, -2) if self.transpose_b else b
                ),
            )

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        # With C = A·B: dA = dC·Bᵀ and dB = Aᵀ·dC, each transposed as a whole where its operand is stored transposed.
        apply, (a, b) = node.graph.apply, node.inputs
        cotangent = stored_as(a.dtype, cotangent)
        if self.transpose_a:
            by_a = apply(Matmul(self.transpose_b, True), b, cotangent)
        else:
            by_a = apply(Matmul(False, not self.transpose_b), cotangent, b)
        if self.transpose_b:
            by_b = apply(Matmul(True, self.transpose_a), cotangent, a)
        else:
            by_b = apply(Matmul(not self.transpose_a, False), a, cotangent)
        return (by_a, by_b)
