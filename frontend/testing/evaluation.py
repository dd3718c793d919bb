"""Evaluates nodes of a graph with NumPy, exactly or with every rounding made by chance.

The second is how tolerances are found (Parker, "Monte Carlo arithmetic", 1997): each node's result is moved at random
within the bound that its op keeps, and how far that moves a result says how much of it is rounding. The bounds are
those of the compiled code: for sums and products of matrices (L + 2)·u·Σ|ab|, L the number of terms, for other
arithmetic 4·u·|result|, and nothing for what only moves elements; u is half an ulp of 1 in the node's dtype. What is
given, as x + t·d on a line, is rounded once, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from gradloom.compiler.interpreter import evaluate
from gradloom.compiler.ir import Constant, Input, Value
from gradloom.compiler.ops.base import Contraction, Movement, Scatter, TensorOp
from gradloom.compiler.ops.pooling import MaxPoolGrad, SumPool, SumPoolGrad
from gradloom.compiler.ops.reductions import Sum

Arrays = Mapping[str, np.ndarray]
Known = Mapping[Value, np.ndarray]

SAMPLES = 4
"""How often roundings are drawn."""

GIVEN = 2.0**-52
"""How far what is given may be moved, relatively: enough to change a number just above a power of 2, too."""

SUMS = (Sum, Contraction, Scatter, SumPool, SumPoolGrad, MaxPoolGrad)
"""Ops whose results are sums of many terms."""


def needed(values: Iterable[Value], without: Collection[Value] = ()) -> list[Value]:
    """Return the nodes that `values` are computed from, and these, in order; nothing before the nodes `without`."""
    wanted = set(values)
    if not wanted:
        return []
    graph = next(iter(wanted)).graph
    for value in reversed(graph.values[: max(value.number for value in wanted) + 1]):
        if value in wanted and value not in without:
            wanted.update(value.inputs)
    return sorted(wanted, key=lambda value: value.number)


def run(order: Sequence[Value], arrays: Arrays, fixed: Known | None = None) -> dict[Value, np.ndarray]:
    """Return the arrays of nodes, which are in order; those that are `fixed` keep the arrays given."""
    results: dict[Value, np.ndarray] = {}
    for value in order:
        given = None if fixed is None else fixed.get(value)
        results[value] = evaluate(value.graph, value, arrays, results) if given is None else given
    return results


def rounding(
    order: Sequence[Value], arrays: Arrays, exact: Known, fixed: Known | None = None
) -> dict[Value, np.ndarray]:
    """Return for each float node how far roundings move its elements, from a few draws of them."""
    rng = np.random.default_rng(0)
    spread = {value: np.zeros(exact[value].shape) for value in order if value.dtype.is_float}
    for _ in range(SAMPLES):
        results: dict[Value, np.ndarray] = {}
        for value in order:
            given = None if fixed is None else fixed.get(value)
            result = evaluate(value.graph, value, arrays, results) if given is None else given
            if given is not None or isinstance(value.op, Input):
                result = _moved_by_chance(result, GIVEN * np.abs(wide(result)), rng) if value in spread else result
            elif value in spread:
                result = _rounded_by_chance(value, result, [results[operand] for operand in value.inputs], rng)
            results[value] = result
            if value in spread:
                with np.errstate(invalid="ignore"):
                    moved = np.abs(wide(result) - wide(exact[value]))
                spread[value] = np.fmax(spread[value], moved)
    return spread


def unit(value: Value) -> float:
    """Half an ulp of 1 in a node's dtype: how large a rounding is, relatively."""
    if value.dtype.arithmetic != value.dtype:
        return 2.0**-9
    return float(np.finfo(value.dtype.numpy).eps) / 2


def wide(array: np.ndarray) -> np.ndarray:
    """An array of floats in float64."""
    return array.astype(np.float64)


def terms(op: TensorOp, operands: Sequence[np.ndarray]) -> float:
    """How many terms are summed for an element of the result, at most."""
    ones = [np.ones_like(operand) if operand.dtype.kind != "i" else operand for operand in operands]
    return float(np.max(np.abs(wide(op.reference(*ones))), initial=0.0))


def _rounded_by_chance(
    value: Value, result: np.ndarray, operands: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    op = value.op
    if isinstance(op, SUMS) and isinstance(op, TensorOp):
        sizes = [operand if operand.dtype.kind in "iub" else np.abs(operand) for operand in operands]
        bound = (terms(op, operands) + 2) * unit(value) * np.abs(wide(op.reference(*sizes)))
    elif isinstance(op, Constant):
        bound = unit(value) * np.abs(wide(result))
    elif isinstance(op, Movement):
        return result
    else:
        bound = 4 * unit(value) * np.abs(wide(result))
    return _moved_by_chance(result, bound, rng)


def _moved_by_chance(result: np.ndarray, bound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    with np.errstate(all="ignore"):
        half = rng.uniform(-0.5, 0.5, result.shape)
        # Not too little by chance: of the four draws for a single number each may be the one that counts.
        moved = wide(result) + bound * (half + np.copysign(0.5, half))
    # An infinite number, a bound that is no bound for example, is exact.
    return np.asarray(np.where(np.isinf(result), result, moved).astype(result.dtype))
