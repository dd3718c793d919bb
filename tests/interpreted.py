"""Traces a Python function and evaluates its graph with NumPy, writing new states back onto the variables."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.variables import Trace


def evaluate(f: Callable[..., Any], *arrays: Any) -> Any:
    """Return f(*arrays), computed by the graph that f builds; None if f returns None."""
    operands = [np.asarray(array) for array in arrays]
    graph = Graph("test")
    with Trace(graph) as trace:
        values = [graph.input(f"x{n}", TensorType(as_dtype(a.dtype), a.shape)) for n, a in enumerate(operands)]
        result = f(*values)
        if result is not None:
            graph.output("result", result)
        trace.finish()
    graph.verify()
    outputs = interpret(graph, {f"x{n}": a for n, a in enumerate(operands)} | trace.arguments())
    for variable in trace.assigned:
        variable.assign(outputs[trace.label(variable)])
    return outputs.get("result")
