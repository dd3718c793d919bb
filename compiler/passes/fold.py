"""Constant folding: what depends on literals alone is computed at compile time, where that gives the same bits."""

from __future__ import annotations

import numpy as np

from gradloom.compiler.ir import Constant, Op, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, FloorDivide, Maximum, Minimum, Multiply, Remainder, Subtract
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.ops.comparison import Comparison, Logic, Select
from gradloom.compiler.ops.elementwise import Absolute, Ceil, Convert, Floor, Negative, Round, Sign, Sqrt
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.movement import Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.passes.rewrite import Draft, Rule, rule_on

MAX_FOLDED_BYTES = 1024
"""Larger results are computed when the program runs: they would make the program longer and not faster."""

MOVES: tuple[type[Op], ...] = (Reshape, Transpose, Slice, Pad, Concatenate, Reverse, Gather)
CHOICES: tuple[type[Op], ...] = (Comparison, Logic, Select, Maximum, Minimum, Absolute, Negative, Sign)
ROUNDED_ONCE: tuple[type[Op], ...] = (Add, Subtract, Multiply, Divide, Sqrt, Convert, Floor, Ceil, Round)
WHOLE_NUMBERS: tuple[type[Op], ...] = (FloorDivide, Remainder)

EXACT = (*MOVES, *CHOICES, *ROUNDED_ONCE, *WHOLE_NUMBERS)
"""The ops whose result NumPy and compiled code agree on to the bit: IEEE 754 leaves them no choice.

Exponentials and their like are approximated differently, and sums are added in another order.
"""


@rule_on(*EXACT)
def fold(graph: Draft, value: Value) -> Value | None:
    """op(c, …) → its value, for literals c and a result of at most 1 KiB; exact for all special values."""
    op = value.op
    if not value.inputs or not all(isinstance(operand.op, Constant) for operand in value.inputs):
        return None
    if value.type.nbytes > MAX_FOLDED_BYTES or (isinstance(op, WHOLE_NUMBERS) and value.dtype.is_float):
        return None
    assert isinstance(op, TensorOp)
    result = op.reference(*(constant_array(operand) for operand in value.inputs))
    return graph.apply(Constant(value.type, np.ascontiguousarray(result, value.dtype.numpy).tobytes()))


def constant_array(value: Value) -> np.ndarray:
    """The array of a literal."""
    assert isinstance(value.op, Constant)
    return value.op.array


def literal(value: Value) -> np.generic | None:
    """The number that fills a literal of at least one element, bit by bit the same in all; None if there is none."""
    if not isinstance(value.op, Constant) or not value.type.size:
        return None
    data, size = value.op.data, value.dtype.itemsize
    if data != data[:size] * value.type.size:
        return None
    first: np.generic = np.frombuffer(data, value.dtype.numpy, count=1)[0]
    return first


def is_literal(value: Value, number: float) -> bool:
    """Whether `value` is a literal filled with `number`; 0.0 is not −0.0."""
    found = literal(value)
    return found is not None and bool(found == number) and bool(np.signbit(found) == np.signbit(np.float64(number)))


RULES: tuple[Rule, ...] = (fold,)
