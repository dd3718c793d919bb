"""A graph in which all floats are float64: what a function computes, without the roundings of its dtypes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from gradloom.compiler.ir import Constant, Graph, Input, Op, Value
from gradloom.compiler.ops.elementwise import Convert
from gradloom.compiler.ops.movement import Iota
from gradloom.compiler.provenance import Provenance
from gradloom.compiler.types import F64, DType


class Float64Graph(Graph):
    """Takes float64 for every other float that is asked for: by inputs, variables, arrays from outside, casts.

    Layers cast to a dtype of their own, and functions capture arrays. With float32 in between, differences would see
    its roundings, and tolerances allow for them: slightly wrong gradients would pass. It is done as nodes are added,
    not afterwards, since rules of `custom_gradient` are Python functions that know the nodes.
    """

    def apply(self, op: Op, *inputs: Value, provenance: Iterable[Provenance] | None = None) -> Value:
        op = _in_float64(op)
        if op == _TO_FLOAT64 and inputs[0].dtype == F64:
            return inputs[0]
        value = super().apply(op, *inputs, provenance=provenance)
        # Some ops make float32 of integers.
        return super().apply(_TO_FLOAT64, value, provenance=provenance) if _is_narrow(value.dtype) else value

    def capture(self, array: np.ndarray) -> Value:
        return super().capture(array if array.dtype.kind in "iub" else array.astype(np.float64))


_TO_FLOAT64 = Convert(F64)


def _is_narrow(dtype: DType) -> bool:
    return dtype.is_float and dtype != F64


def _in_float64(op: Op) -> Op:
    """The op with float64 in the place of another float among its attributes."""
    if isinstance(op, Convert | Iota) and _is_narrow(op.dtype):
        return replace(op, dtype=F64)
    if isinstance(op, Input) and _is_narrow(op.type.dtype):
        return replace(op, type=replace(op.type, dtype=F64))
    if isinstance(op, Constant) and _is_narrow(op.type.dtype):
        return Constant(replace(op.type, dtype=F64), op.array.astype(np.float64).tobytes())
    return op
