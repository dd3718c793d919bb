"""Random typed graphs: a hypothesis strategy over all ops of the IR, with arrays to run them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Constant, Graph, Input, Value, building
from gradloom.compiler.types import BOOL, DTYPES, DType, TensorType, as_dtype
from gradloom.testing.graph_pool import MOST_ELEMENTS, Pool
from gradloom.testing.graph_steps import STEPS
from gradloom.testing.profiles import import_hypothesis

MOST_AXES = 5
SIZES = (1, 2, 3, 5, 8, 10, 16, 17, 33)
"""Sizes of the axes of inputs: around those of vectors, and ones that no vector divides."""

NUMBERS = 8
"""How many numbers decide what a step does."""


def graphs(
    max_nodes: int = 30,
    dtypes: Sequence[Any] = DTYPES,
    max_inputs: int = 3,
    gradient: bool = True,
    steps: Sequence[str] = (),
) -> Any:
    """A strategy of hypothesis for pairs of a random typed graph and arrays for its inputs, by label.

    max_nodes: computed nodes at most, besides those of the gradient.
    dtypes: those of inputs and conversions, by any name that `gl.TensorSpec` takes; one of them float32 or float64.
    max_inputs: inputs "x0", "x1", … at most; the first one is a float.
    gradient: with outputs "g0", "g1", … beside the values "y0", "y1", …: the derivative of a scalar that depends on
    all of those, by each input of floats. steps: names of the ops to draw from; a repeated one comes more often.

    Shapes have up to 3 axes of 1 to 33. Floats lie in [-2, 2), and ops are applied where they are well conditioned; a
    comparison, a rounding or a maximum may still turn either way by the last bit of its operands. Failures shrink to
    few nodes. Raises `ValueError` for numbers below 1, for dtypes without float32 and float64, and for unknown steps.

        @given(graphs(max_nodes=10, dtypes=["float32", "int32"]))
        def test_texts_parse_back(drawn):
            graph, arrays = drawn
            assert parse(str(graph)) == graph
    """
    if min(max_nodes, max_inputs) < 1:
        raise ValueError(f"Expected max_nodes and max_inputs >= 1. Received: {max_nodes=}, {max_inputs=}")
    allowed = tuple(map(as_dtype, dtypes))
    if not any(dtype == dtype.arithmetic and dtype.is_float for dtype in allowed):
        raise ValueError(f"Expected float32 or float64 among dtypes. Received: dtypes={list(dtypes)}")
    if unknown := [name for name in steps if name not in STEPS]:
        raise ValueError(f"Expected steps from {', '.join(STEPS)}. Received: {', '.join(unknown)}")
    strategies = import_hypothesis().strategies
    return strategies.composite(_graph)(max_nodes, allowed, max_inputs, gradient, tuple(steps or STEPS))


def _graph(
    draw: Callable[[Any], Any],
    max_nodes: int,
    dtypes: tuple[DType, ...],
    max_inputs: int,
    gradient: bool,
    steps: tuple[str, ...],
) -> tuple[Graph, dict[str, np.ndarray]]:
    st = import_hypothesis().strategies
    graph, arrays = Graph("random"), {}
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    floats = tuple(dtype for dtype in dtypes if dtype.is_float)
    with building(graph):
        for n in range(draw(st.integers(1, max_inputs))):
            dtype = draw(st.sampled_from(dtypes if n else [dtype for dtype in floats if dtype == dtype.arithmetic]))
            shape = tuple(draw(st.lists(st.sampled_from(SIZES), min_size=0 if n else 1, max_size=3)))
            shape = shape if np.prod(shape) <= MOST_ELEMENTS else shape[:2]
            arrays[f"x{n}"] = _array(rng, dtype, shape)
            graph.input(f"x{n}", TensorType(dtype, shape))
        pool = Pool(graph, floats, list(graph.inputs))
        # A step adds about two nodes. Its numbers mean nothing to the others: leaving one out leaves a graph.
        for _ in range(draw(st.integers(1, -(-max_nodes // 2)))):
            name = draw(st.sampled_from(steps))
            pool.numbers = draw(st.lists(st.integers(0, 119), min_size=NUMBERS, max_size=NUMBERS))
            result = STEPS[name](pool)
            if sum(map(is_computed, graph.values)) > max_nodes:
                break
            is_new = all(result is not value for value in pool.values)
            if is_new and result.type.size <= MOST_ELEMENTS and result.ndim <= MOST_AXES:
                pool.values.append(result)
        _outputs(graph, pool.values, gradient)
    return graph.rebuild()[0], arrays


def is_computed(value: Value) -> bool:
    """Whether a node is neither an input nor a literal."""
    return not isinstance(value.op, Input | Constant)


def _array(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.is_float:
        return np.asarray(rng.uniform(-2, 2, shape)).astype(dtype.numpy)
    low, high = (0, 2) if dtype == BOOL else (0 if dtype.kind == "unsigned" else -9, 10)
    return np.asarray(rng.integers(low, high, shape)).astype(dtype.numpy)


def _outputs(graph: Graph, values: Sequence[Value], gradient: bool) -> None:
    """Add what no step reads as outputs, and the gradient of a sum over it."""
    read = {operand for value in graph.values for operand in value.inputs}
    ends = [value for value in values if value not in read and is_computed(value)] or [values[-1]]
    for n, value in enumerate(ends):
        graph.output(f"y{n}", value)
    if not gradient:
        return
    inputs = [value for value in graph.inputs if value.dtype.is_float]
    losses = [ops.mean(ops.tanh(value)) for value in ends if value.dtype.is_float]
    if losses:
        for n, derivative in enumerate(gradients([sum(losses[1:], losses[0])], inputs)):
            graph.output(f"g{n}", derivative)
