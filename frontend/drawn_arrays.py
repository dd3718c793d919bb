"""Draws arrays for the inputs of graphs, and puts what a prediction prepares into the order that a program wants."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.passes.layout import WEIGHT_ROLES
from gradloom.compiler.passes.prepare import PREPARED
from gradloom.compiler.program import Argument
from gradloom.compiler.types import OPEN

Arrays = Mapping[str, np.ndarray]

ROWS = 32
"""Samples of a data set that no indices are drawn for."""

LARGEST = 10
"""Drawn integers are below this: labels of classes, steps and counts."""


def drawn_arrays(graph: Graph, seed: int, given: Arrays | None = None) -> dict[str, np.ndarray]:
    """Return an array for each input, by label, as it is stored: the given ones, captured ones, the others drawn."""
    given = {**graph.captured, **(given or {})}
    inputs = [value.op for value in graph.inputs if isinstance(value.op, Input)]
    rows = max((op.type.size for op in inputs if op.role == "indices"), default=ROWS)
    lengths = [len(given[op.label]) for op in inputs if op.label in given and OPEN in op.type.shape]
    length = min(lengths, default=rows)
    return {
        op.label: given[op.label]
        if op.label in given
        else drawn(op, seed, rows, length if op.role == "indices" else LARGEST)
        for op in inputs
    }


def drawn_argument(argument: Argument, seed: int, rows: int = ROWS) -> np.ndarray:
    """Return an array for an argument of a program, as `drawn` does for the input that it was made for."""
    array = drawn(Input(argument.name, argument.type, argument.role, argument.permutation), seed, rows)
    return stored(array, argument) if argument.role == PREPARED else array


def drawn(op: Input, seed: int, rows: int = ROWS, most: int = LARGEST) -> np.ndarray:
    """Return an array for an input; it depends on the seed, the input's label and its type alone.

    Floats are uniform in [−1, 1), and in [0, 1) for states and hyperparameters, of which some (variances, rates) make
    no sense below zero. Matrices and kernels are divided by the root of what is added up for each result, so that
    results of deep networks stay finite. rows: the length of what is open in it. most: integers are below.
    """
    random = np.random.default_rng([seed, zlib.crc32(op.label.encode())])
    shape = [rows if size == OPEN else size for size in op.type.shape]
    for axis, source in enumerate(op.permutation):
        shape[source] = op.type.shape[axis]
    dtype = op.type.dtype
    if not dtype.is_float:
        return np.asarray(random.integers(0, 2 if dtype.kind == "bool" else most, shape)).astype(dtype.numpy)
    low = 0.0 if op.role in ("state", "hyperparameter") else -1.0
    numbers = np.asarray(random.uniform(low, 1.0, shape))
    if op.role in WEIGHT_ROLES and len(shape) > 1:
        numbers /= math.sqrt(max(1, math.prod(shape[:-1])))
    return numbers.astype(dtype.numpy)


def stored(array: np.ndarray, argument: Argument) -> np.ndarray:
    """An array in the order in which a program wants what another one prepared."""
    if argument.permutation:
        array = array.transpose(argument.permutation)
    if argument.panel:
        *leading, columns = array.shape
        array = array.reshape(*leading, columns // argument.panel, argument.panel)
        array = np.moveaxis(array, -2, 0)
    return np.asarray(array, order="C")
