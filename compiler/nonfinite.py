"""Where a NaN or an infinity of a graph's results arose: the graph is evaluated, and its numbers are followed back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradloom.compiler.interpreter import evaluate
from gradloom.compiler.ir import Constant, Graph, Input, Output, Value
from gradloom.compiler.ops.base import Elementwise, Movement, Reduction, TensorOp
from gradloom.compiler.ops.comparison import Select
from gradloom.compiler.ops.indexing import Gather

Place = tuple[int, ...]
Region = tuple[int | slice, ...]
Arrays = Mapping[Value, np.ndarray]


@dataclass(frozen=True)
class Origin:
    """A non-finite `number` at the place `at` of what `node` made, or of what came in if the node is an input.

    `operands` are the node's floats: of an elementwise op the number from which it was made, else the least and the
    largest. `at` is None where the node's numbers, evaluated one by one, are finite after all: rounding differs.
    """

    node: Value
    at: Place | None
    number: float
    operands: tuple[tuple[float, ...], ...] = ()


def find_origin(
    graph: Graph, inputs: Mapping[str, np.ndarray], outputs: Collection[str], rows: int | None = None
) -> Origin | None:
    """Return the first node of `graph` from which something non-finite came into one of `outputs`.

    It is the first whose result is non-finite where what it was computed from is finite, or is NaN where that was
    infinite by intention: infinities are those of literals, captured arrays and old states. They are no origin
    themselves, unless they reach a new state; where nothing but them is found the result is None.

    outputs: their names. The one that is computed first is followed back alone, which spares a train step's gradients
    where the loss is bad already; only if that finds nothing, all are. Of an array's bad numbers the first NaN is
    followed, else the first infinity. A new state counts where it is worse than the old one, other results in their
    first `rows` rows (None: all).
    """
    suspects = sorted((out for out in graph.outputs if out.name in outputs), key=lambda output: output.value.number)
    repeated = False
    for followed in (suspects[:1], suspects):
        arrays = _traces(graph, inputs, followed)
        found = [(output, at) for output in followed if (at := _worst_of(output, arrays, rows)) is not None]
        if origin := _first_origin(found, arrays):
            return origin
        repeated = repeated or bool(found)
    return None if repeated else Origin(suspects[0].value, None, np.nan)


def _first_origin(found: Sequence[tuple[Output, Place]], arrays: Arrays) -> Origin | None:
    """The first origin of bad numbers at places of outputs."""
    births, turns, literals = set(), set(), set()
    waiting = [(output.value, at, output.donor is not None) for output, at in found]
    seen = set(waiting)
    while waiting:
        node, at, is_state = waiting.pop()
        sources = _sources(node, at, arrays)
        is_nan = np.isnan(arrays[node][at])
        if not sources:
            if is_nan or not _is_intended(node):
                births.add((node, at))
            elif is_state and not _is_state(node):
                literals.add((node, at))
        elif is_nan:  # The first of these has no NaN among its sources.
            turns.add((node, at))
        new = {(source, there, is_state) for source, there in sources} - seen
        seen |= new
        waiting += new
    for candidates in (births, turns, literals):
        if candidates:
            node, at = min(candidates, key=lambda candidate: (candidate[0].number, candidate[1]))
            return Origin(node, at, float(arrays[node][at]), _operands(node, at, arrays))
    return None


def worsened(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Where numbers are non-finite that were finite, or NaN that were not."""
    result: np.ndarray = (np.isinf(new) & np.isfinite(old)) | (np.isnan(new) & ~np.isnan(old))
    return result


def _traces(graph: Graph, inputs: Mapping[str, np.ndarray], outputs: Sequence[Output]) -> dict[Value, np.ndarray]:
    """What the nodes behind `outputs` compute that have something non-finite, what they read, and what comes out.

    The rest goes as soon as it has been read: all that a large step computes may be more than there is memory for.
    """
    kept = {value for output in outputs for value in (output.value, output.donor) if value is not None}
    needed = set(kept)
    for value in reversed(graph.values):
        if value in needed:
            needed.update(value.inputs)
    order = [value for value in graph.values if value in needed]
    last = {operand: value for value in order for operand in value.inputs}
    arrays: dict[Value, np.ndarray] = {}
    for value in order:
        array = arrays[value] = evaluate(graph, value, inputs, arrays)
        if value.dtype.is_float and not np.isfinite(array).all():
            kept |= {value, *value.inputs}
        for operand in set(value.inputs) - kept:
            if last[operand] is value:
                del arrays[operand]
    return arrays


def _worst_of(output: Output, arrays: Arrays, rows: int | None) -> Place | None:
    """The place of a NaN, else of an infinity, that an output has anew."""
    array = arrays[output.value]
    if output.donor is not None:
        array = np.where(worsened(array, arrays[output.donor]), array, 0)
    elif rows is not None:
        return _worst(array, (slice(0, rows), *[slice(None)] * (array.ndim - 1)))
    return _worst(array, (slice(None),) * array.ndim)


def _worst(array: np.ndarray, region: Region) -> Place | None:
    """The place of the first NaN in a region of an array, else of the first infinity, else None."""
    part = np.asarray(array[region])
    for test in (np.isnan, np.isinf):
        wrong = test(part)
        if wrong.any():
            inner = iter(np.unravel_index(int(wrong.argmax()), part.shape))
            return tuple(int(next(inner)) if isinstance(index, slice) else index for index in region)
    return None


def _is_intended(node: Value) -> bool:
    """Whether infinities in what a node holds are there because somebody wanted them."""
    is_captured = isinstance(node.op, Input) and node.op.role == "captured"
    return is_captured or isinstance(node.op, Constant) or _is_state(node)


def _is_state(node: Value) -> bool:
    return isinstance(node.op, Input) and node.op.role == "state"


def _sources(node: Value, at: Place, arrays: Arrays) -> list[tuple[Value, Place]]:
    """The non-finite elements of operands from which the element at `at` was made; of each operand the worst."""
    found = []
    for operand, region in _regions(node, at, arrays):
        place = _worst(arrays[operand], region) if operand.dtype.is_float else None
        if place is not None:
            found.append((operand, place))
    return found


def _regions(node: Value, at: Place, arrays: Arrays) -> list[tuple[Value, Region]]:
    """For each operand the part that the element at `at` depends on, or more where the op does not say."""
    op, operands = node.op, node.inputs
    if isinstance(op, Movement):
        return _moved(op, operands, at, arrays)
    if isinstance(op, Select):
        condition, x, y = operands
        operands = (x if arrays[condition][_broadcast(condition, at)] else y,)
    if isinstance(op, Elementwise):
        return [(operand, _broadcast(operand, at)) for operand in operands]
    if isinstance(op, Gather):
        table, indices = operands
        row = int(np.clip(arrays[indices][at[: indices.ndim]], 0, len(arrays[table]) - 1))
        return [(table, (row, *at[indices.ndim :]))]
    if isinstance(op, Reduction):
        kept = iter(at)
        axes = range(operands[0].ndim)
        return [(operands[0], tuple(slice(None) if axis in op.axes else next(kept) for axis in axes))]
    return [(operand, (slice(None),) * operand.ndim) for operand in operands]


def _broadcast(operand: Value, at: Place) -> Place:
    """The place in an operand that is repeated along axes."""
    own = at[len(at) - operand.ndim :]
    return tuple(0 if size == 1 else index for index, size in zip(own, operand.shape, strict=True))


def _moved(op: TensorOp, operands: tuple[Value, ...], at: Place, arrays: Arrays) -> list[tuple[Value, Region]]:
    """The one element that was moved to `at`: found by moving the elements' numbers, from 1 on; 0 is padding."""
    numbers, first = [], 1
    for operand in operands:
        array = arrays[operand]
        numbers.append(np.arange(first, first + array.size).reshape(array.shape))
        first += array.size
    number = int(op.reference(*numbers)[at]) - 1
    for operand in operands:
        array = arrays[operand]
        if 0 <= number < array.size:
            return [(operand, tuple(map(int, np.unravel_index(number, array.shape))))]
        number -= array.size
    return []


def _operands(node: Value, at: Place, arrays: Arrays) -> tuple[tuple[float, ...], ...]:
    floats = [(operand, arrays[operand]) for operand in node.inputs if operand.dtype.is_float]
    if isinstance(node.op, Elementwise):
        return tuple((float(array[_broadcast(operand, at)]),) for operand, array in floats)
    return tuple((float(array.min()), float(array.max())) for _, array in floats if array.size)
