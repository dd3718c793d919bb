"""Where the arrays of a profiled program come from: the model's variables, what the caller hands in, drawn numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom import step_graphs
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.types import OPEN, TensorType, as_dtype
from gradloom.drawn_arrays import Arrays, drawn
from gradloom.trees import as_array, flatten

if TYPE_CHECKING:
    from gradloom.model import Model

CALLERS = ("data", "argument")
"""Roles of what the caller of a step supplies."""

DRAWN_BYTES = 64 << 20
"""Bytes of a drawn data set at most, unless a batch takes more."""

DRAWN_BATCHES = 16
"""Batches of a drawn data set."""


@dataclass(frozen=True)
class Supply:
    """The arrays of a program by label: `variables` gives the model's or the function's own, `data` the caller's.

    `data` checks what a profile is called with, and draws what is missing. `memory_limit` is what the program may use,
    with the weights and without the data sets, in bytes; None for what there is.
    """

    variables: Callable[[], Arrays] = dict
    data: Callable[..., Arrays] = lambda: {}
    memory_limit: int | None = None


def model_supply(model: Model, batch_size: int, mode: str, source: Callable[[], Graph]) -> Supply:
    """What the step of a model is supplied with: its variables, and data like that of `fit`."""

    def variables() -> Arrays:
        data, batch = _data_inputs(source(), ("data",)), _data_inputs(source(), ("argument",))
        types = tuple((op.label, op.type) for op in data)
        if mode == "train":
            return step_graphs.train_step(model, batch_size, types).arguments()
        if mode == "evaluate":
            return step_graphs.test_step(model, batch_size, types).arguments()
        return step_graphs.predict_step(model, [op.type for op in batch]).arguments()

    def data(x: Any = None, y: Any = None) -> Arrays:
        wanted = _data_inputs(source(), CALLERS)
        if x is None and y is not None:
            raise ValueError("Expected x beside y, or neither. Received: x=None")
        if x is None:
            sizes = [tensor.shape[-1] for tensor in model.call_graph.outputs]
            classes = dict(zip(step_graphs.output_labels(model, "y"), sizes, strict=True))
            return {op.label: drawn(op, 0, _rows(op, batch_size), classes.get(op.label) or 2) for op in wanted}
        if mode == "predict":
            if y is not None:
                raise ValueError("Expected x alone, since a prediction reads no targets. Received: y")
            labels = step_graphs.input_labels(model)
            given = {
                label: np.ascontiguousarray(array[:batch_size])
                for label, array in zip(labels, model._features(x), strict=True)
            }
        else:
            given = dict(model._checked(model.setup, x, y).arrays)
        for op in wanted:
            given[op.label] = _widened(op, given[op.label])
            _check(op, given[op.label], batch_size)
        return given

    return Supply(variables, data, model._programs.memory_limit)


def function_supply(variables: Callable[[], Arrays], names: Sequence[str], source: Callable[[], Graph]) -> Supply:
    """What a function is supplied with: the variables that it reads, and arrays for its arguments of these names."""

    def data(*args: Any, **kwargs: Any) -> Arrays:
        wanted = {op.label: op for op in _data_inputs(source(), ("argument",))}
        unknown = kwargs.keys() - {name.partition(".")[0] for name in names}
        if unknown:
            raise ValueError(f"Expected arrays for {', '.join(names)}. Received: {', '.join(sorted(unknown))}")
        leaves, _ = flatten((args, kwargs))
        if not leaves:
            return {label: drawn(op, 0) for label, op in wanted.items()}
        if len(leaves) != len(names):
            raise ValueError(f"Expected {len(names)} arrays, for {', '.join(names)}. Received: {len(leaves)}")
        given = {name: as_array(leaf, name) for name, leaf in zip(names, leaves, strict=True)}
        for label, op in wanted.items():
            _check(op, given[label], 1)
        return given

    return Supply(variables, data)


def _data_inputs(graph: Graph, roles: Sequence[str]) -> list[Input]:
    """The inputs of a graph that its caller supplies."""
    return [value.op for value in graph.inputs if isinstance(value.op, Input) and value.op.role in roles]


def _rows(op: Input, batch_size: int) -> int:
    """How many samples are drawn for an input that is open in their number."""
    sample = max(1, math.prod(op.type.shape[1:]) * op.type.dtype.itemsize)
    return max(batch_size, min(DRAWN_BATCHES * batch_size, DRAWN_BYTES // sample))


def _widened(op: Input, array: np.ndarray) -> np.ndarray:
    """Integers as the wider ones that were inspected: data sets often hold labels as bytes, which `fit` takes, too."""
    wanted = op.type.dtype.numpy
    is_wider = array.dtype.kind in "iu" and wanted.kind in "iu" and np.can_cast(array.dtype, wanted, "safe")
    return array.astype(wanted, copy=False) if is_wider else array


def _check(op: Input, array: np.ndarray, rows: int) -> None:
    """Raise `ValueError` for data that is of another type than the stages are."""
    wanted, received = op.type, TensorType(as_dtype(array.dtype), array.shape)
    is_open = wanted.shape[:1] == (OPEN,)
    fits = array.shape[1:] == wanted.shape[1:] if is_open else array.shape == wanted.shape
    if received.dtype != wanted.dtype or not fits:
        raise ValueError(
            f"{op.label!r}: Expected data of the type that was inspected, {wanted}. Received: {received}; "
            "see the arguments batch_size and dtype of inspect"
        )
    if is_open and len(array) < rows:
        raise ValueError(f"{op.label!r}: Expected at least a batch, {rows} samples. Received: {len(array)}")
