"""How far rounding alone may move a graph's results: they are interpreted again with every rounding disturbed.

A fixed tolerance fits graphs that are well conditioned. Where a maximum, a comparison or a conversion turns on the last
bit, right results may differ by as much as both of its sides; that shows when all roundings are disturbed, often enough
and by somewhat more than compiled code and NumPy differ.
"""

from collections.abc import Mapping

import numpy as np

from gradloom.compiler.interpreter import evaluate
from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ops.base import Movement, for_arithmetic
from gradloom.compiler.ops.comparison import Select
from gradloom.compiler.ops.elementwise import Absolute, Ceil, Floor, Negative, Round, Sign
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.compiler.ops.reductions import Extremum
from gradloom.compiler.types import BF16, as_dtype

EXACT = (
    Input,
    Constant,
    Movement,
    Select,
    Absolute,
    Ceil,
    Floor,
    Negative,
    Round,
    Sign,
    Gather,
    RandomUniform,
    Extremum,
)
"""Ops whose results are no rounded numbers."""

ROUNDINGS = 256
"""By how many units in the last place a result is disturbed at most: so far apart are sums in different orders."""

RUNS = 64
"""Disturbed runs: enough that what turns either way does so in one of them."""

Arrays = Mapping[str, np.ndarray]


def ranges(graph: Graph, arrays: Arrays, exact: Arrays) -> dict[str, np.ndarray]:
    """For each output how far from `exact` its elements came to lie in disturbed runs; infinite where not finite."""
    widest = {name: np.zeros(array.shape) for name, array in exact.items()}
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        for _ in range(RUNS):
            results: dict[Value, np.ndarray] = {}
            for value in graph.live():
                results[value] = _disturbed(value, evaluate(graph, value, arrays, results), rng)
            for output in graph.outputs:
                apart = distance(results[output.value], exact[output.name])
                widest[output.name] = np.maximum(widest[output.name], apart)
    return widest


def _disturbed(value: Value, result: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    # What is rounded to bf16 was computed, and is disturbed, before.
    if not value.dtype.is_float or value.dtype == BF16 or isinstance(value.op, EXACT):
        return result
    unit = ROUNDINGS * np.finfo(result.dtype).eps
    return np.asarray(result * (1 + unit * rng.uniform(-1, 1, result.shape)), result.dtype)


def distance(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far elements are apart: infinitely where only one is finite, or both are different infinities."""
    a, b = (for_arithmetic(array)[0].astype(np.float64) for array in (got, wanted))
    with np.errstate(all="ignore"):
        apart = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)
        return np.asarray(np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, apart))


def unit(graph: Graph) -> float:
    """A few thousand roundings of the coarsest float in which the graph computes."""
    computed = [value.dtype for value in graph.live() if value.dtype.is_float]
    return 2e-4 if any(dtype.bits < 64 for dtype in computed) else 2e-13


def differing(
    got: Arrays, wanted: Arrays, graph: Graph, scale: float = 1.0, arrays: Arrays | None = None
) -> dict[str, np.ndarray]:
    """The outputs that differ by more than rounding explains, and which of their elements do.

    Exact dtypes must be equal, floats within a few thousand roundings of the largest element, or of 1. With the
    `arrays` that the graph was run on, 1 is no measure, and what is not so close is held against what disturbed
    roundings make of them: gradients of a mean are small, and an error in them is, too.
    """
    wrong, least = {}, 1.0 if arrays is None else 0.0
    for output in graph.outputs:
        value, right = got[output.name], wanted[output.name]
        assert value.shape == right.shape and value.dtype == right.dtype, (output.name, value.shape, right.shape)
        allowed = unit(graph) * scale * _largest(right, least) if as_dtype(right.dtype).is_float else 0.0
        if np.any(mask := distance(value, right) > allowed):
            wrong[output.name] = mask
    if not wrong or arrays is None:
        return wrong
    widest = ranges(graph, arrays, wanted)
    for name in list(wrong):
        # Which elements turn is a matter of luck: as many as one may, all may.
        wrong[name] &= distance(got[name], wanted[name]) > 4 * widest[name].max(initial=0.0)
        if not wrong[name].any():
            del wrong[name]
    return wrong


def _largest(array: np.ndarray, least: float) -> float:
    finite = np.abs(for_arithmetic(array)[0].astype(np.float64))
    return max(least, float(finite[np.isfinite(finite)].max(initial=0.0)))
