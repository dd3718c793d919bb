"""Evaluates a graph node by node with each op's NumPy reference: the oracle for compiled code."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError, VerificationError
from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.types import OPEN


def interpret(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the graph's outputs by name, for arrays by input label.

    Arrays that the graph captured need not be given. An input that the program wants in another order of axes is given,
    and its donated output returned, as it is stored. Raises `KeyError`, `ShapeError` or `DTypeError` for a missing or
    unfitting array.
    """
    results: dict[Value, np.ndarray] = {}
    for value in graph.live():
        results[value] = evaluate(graph, value, inputs, results)
    outputs = {}
    for output in graph.outputs:
        array = results[output.value]
        donor = None if output.donor is None else output.donor.op
        if isinstance(donor, Input) and donor.permutation:
            array = array.transpose(np.argsort(donor.permutation))
        outputs[output.name] = np.array(array)
    return outputs


def evaluate(
    graph: Graph, value: Value, inputs: Mapping[str, np.ndarray], results: Mapping[Value, np.ndarray]
) -> np.ndarray:
    """Return what one node computes from the `results` of its operands, or is given as an input."""
    op = value.op
    if isinstance(op, Input):
        return _argument(graph, op, inputs)
    if isinstance(op, Constant):
        return op.array
    if not isinstance(op, TensorOp):
        raise VerificationError(f"{value!r}: its op has no reference")
    result = op.reference(*(results[operand] for operand in value.inputs))
    if not _fits(result.shape, value.shape) or result.dtype != value.dtype.numpy:
        raise VerificationError(f"{value!r}: its reference made {result.dtype}{list(result.shape)}")
    return result


def _argument(graph: Graph, op: Input, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    if op.label not in inputs and op.label not in graph.captured:
        raise KeyError(f"Expected an array for input {op.label!r} of type {op.type}. Received: {sorted(inputs)}")
    array = np.asarray(inputs[op.label] if op.label in inputs else graph.captured[op.label])
    if op.permutation:
        array = array.transpose(op.permutation)
    if array.dtype != op.type.dtype.numpy:
        raise DTypeError(f"input {op.label!r}: expected {op.type}. Received: {array.dtype}")
    if not _fits(array.shape, op.type.shape):
        raise ShapeError(f"input {op.label!r}: expected {op.type}. Received: shape {list(array.shape)}")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array's shape is the one wanted, where an open axis takes any size."""
    return len(shape) == len(wanted) and all(want in (OPEN, size) for want, size in zip(wanted, shape, strict=True))
