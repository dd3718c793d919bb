"""Traced graphs: from a trace to the graph that is compiled, and who supplies each of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.markers import CustomGradient
from gradloom.compiler.types import DType, TensorType, as_dtype
from gradloom.variables import Trace


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of an argument: `gl.TensorSpec((32, 784), "float32")`."""

    shape: tuple[int, ...]
    dtype: str | DType | type | np.dtype = "float32"
    type: TensorType = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = self.shape if isinstance(self.shape, Sequence) else (self.shape,)
        if any(not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0 for size in sizes):
            raise ValueError(f"Expected a shape of known, non-negative sizes. Received: shape={self.shape!r}")
        object.__setattr__(self, "shape", tuple(int(size) for size in sizes))
        object.__setattr__(self, "type", TensorType(as_dtype(self.dtype), self.shape))


@dataclass(frozen=True)
class TracedGraph:
    """A graph, and the trace that knows the variables behind its inputs."""

    graph: Graph
    trace: Trace

    def arguments(self) -> dict[str, np.ndarray]:
        """The arrays of variables, and large arrays captured from outside, by label."""
        return {**self.trace.arguments(), **self.graph.captured}


def finish(trace: Trace) -> TracedGraph:
    """Close a trace: new states become outputs, and dead nodes go.

    From here on the forward nodes of gradients are known by their numbers in the graph that is returned, wherever later
    stages put them.
    """
    trace.finish()
    graph, new = trace.graph.rebuild()
    numbers = {old.number: value.number for old, value in new.items()}
    for value, origins in graph.provenance.items():
        if any(origin.forward is not None for origin in origins):
            graph.provenance[value] = frozenset(
                origin if origin.forward is None else replace(origin, forward=numbers.get(origin.forward))
                for origin in origins
            )
    return TracedGraph(graph, trace)


def varied(value: Value) -> Value:
    """Return a node of its own with the same value, to differentiate by.

    Nodes are interned: `value` itself may also reach the function by closure, where it counts as a constant.
    """
    graph = value.graph
    rule = len(graph.gradient_rules)
    graph.gradient_rules[rule] = lambda cotangent: (cotangent,)
    return graph.apply(CustomGradient(rule), value, value)
