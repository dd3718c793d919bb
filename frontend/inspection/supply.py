"""Where the arrays of a profiled program come from: the model's variables, what the caller hands in, drawn numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom import step_graphs
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.program import Argument
from gradloom.compiler.types import OPEN, TensorType, as_dtype
from gradloom.trees import as_array, flatten

if TYPE_CHECKING:
    from gradloom.model import Model

Arrays = Mapping[str, np.ndarray]

CALLERS = ("data", "argument")
"""Roles of what the caller of a step supplies."""

DRAWN_BYTES = 64 << 20
"""Bytes of a drawn data set at most, unless a batch takes more."""

DRAWN_BATCHES = 16
"""Batches of a drawn data set."""


@dataclass(frozen=True)
class Supply:
    """The arrays of a program by label: `variables` gives the model's or the function's own, `data` the caller's.

    `data` checks what a profile is called with, and draws what is missing.
    """

    variables: Callable[[], Arrays] = dict
    data: Callable[..., Arrays] = dict


def model_supply(model: Model, batch_size: int, mode: str, source: Callable[[], Graph]) -> Supply:
    """What the step of a model is supplied with: its variables, and data like that of `fit`."""

    def variables() -> Arrays:
        data, batch = _data_inputs(source(), ("data",)), _data_inputs(source(), ("argument",))
        types = tuple((argument.name, argument.type) for argument in data)
        if mode == "train":
            return step_graphs.train_step(model, batch_size, types).arguments()
        if mode == "evaluate":
            return step_graphs.test_step(model, batch_size, types).arguments()
        return step_graphs.predict_step(model, [argument.type for argument in batch]).arguments()

    def data(x: Any = None, y: Any = None) -> Arrays:
        wanted = _data_inputs(source(), CALLERS)
        if x is None and y is not None:
            raise ValueError("Expected x beside y, or neither. Received: x=None")
        if x is None:
            sizes = [tensor.shape[-1] for tensor in model.call_graph.outputs]
            classes = dict(zip(step_graphs.output_labels(model, "y"), sizes, strict=True))
            return {a.name: drawn(a, batch_size, max(2, classes.get(a.name) or 2)) for a in wanted}
        if mode == "predict":
            labels = step_graphs.input_labels(model)
            given = {
                label: np.ascontiguousarray(array[:batch_size])
                for label, array in zip(labels, model._features(x), strict=True)
            }
        else:
            given = dict(model._checked(model.setup, x, y).arrays)
        for argument in wanted:
            given[argument.name] = _widened(argument, given[argument.name])
            _check(argument, given[argument.name], batch_size)
        return given

    return Supply(variables, data)


def function_supply(variables: Callable[[], Arrays], names: Sequence[str], source: Callable[[], Graph]) -> Supply:
    """What a function is supplied with: the variables that it reads, and arrays for its arguments of these names."""

    def data(*args: Any, **kwargs: Any) -> Arrays:
        wanted = {argument.name: argument for argument in _data_inputs(source(), ("argument",))}
        leaves, _ = flatten((args, kwargs))
        if not leaves:
            return {name: drawn(argument, 1) for name, argument in wanted.items()}
        if len(leaves) != len(names):
            raise ValueError(f"Expected {len(names)} arrays, for {', '.join(names)}. Received: {len(leaves)}")
        given = {name: as_array(leaf, name) for name, leaf in zip(names, leaves, strict=True)}
        for name, argument in wanted.items():
            _check(argument, given[name], 1)
        return given

    return Supply(variables, data)


def drawn(argument: Argument, rows: int, labels: int = 2) -> np.ndarray:
    """An array for an argument: numbers of a harmless size, integers from 0 up to `labels`.

    Weights keep the size of what they are multiplied with, and what might be a variance is positive.
    rows: what a batch takes of an argument that is open in its length.
    """
    shape, dtype = argument.host_shape, argument.type.dtype.numpy
    if shape[:1] == (OPEN,):
        sample = max(1, math.prod(shape[1:]) * dtype.itemsize)
        shape = (max(rows, min(DRAWN_BATCHES * rows, DRAWN_BYTES // sample)), *shape[1:])
    random = np.random.default_rng(0)
    if dtype.kind == "f" and argument.role in CALLERS:
        return np.asarray(random.standard_normal(shape, np.float32)).astype(dtype)
    if dtype.kind == "f" and len(shape) < 2:
        return np.full(shape, 1e-3 if argument.role == "hyperparameter" else 1.0, dtype)
    if dtype.kind == "f":
        return (random.standard_normal(shape, np.float32) / math.sqrt(max(1, math.prod(shape[:-1])))).astype(dtype)
    return np.asarray(random.integers(0, 2 if dtype.kind == "b" else labels, shape)).astype(dtype)


def _data_inputs(graph: Graph, roles: Sequence[str]) -> list[Argument]:
    """The inputs of a graph that its caller supplies, as arguments."""
    ops = [value.op for value in graph.inputs if isinstance(value.op, Input)]
    return [Argument(op.label, op.type, op.role) for op in ops if op.role in roles]


def _widened(argument: Argument, array: np.ndarray) -> np.ndarray:
    """Integers as the wider ones that were inspected: data sets often hold labels as bytes, which `fit` takes, too."""
    wanted = argument.type.dtype.numpy
    is_wider = array.dtype.kind in "iu" and wanted.kind in "iu" and np.can_cast(array.dtype, wanted, "safe")
    return array.astype(wanted, copy=False) if is_wider else array


def _check(argument: Argument, array: np.ndarray, rows: int) -> None:
    """Raise `ValueError` for data that is of another type than the stages are."""
    wanted, received = argument.type, TensorType(as_dtype(array.dtype), array.shape)
    is_open = wanted.shape[:1] == (OPEN,)
    fits = array.shape[1:] == wanted.shape[1:] if is_open else array.shape == wanted.shape
    if received.dtype != wanted.dtype or not fits:
        raise ValueError(
            f"{argument.name!r}: Expected data of the type that was inspected, {wanted}. Received: {received}; "
            "see the arguments batch_size and dtype of inspect"
        )
    if is_open and len(array) < rows:
        raise ValueError(f"{argument.name!r}: Expected at least a batch, {rows} samples. Received: {len(array)}")
