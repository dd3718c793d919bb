"""Evaluates functions of values, and their derivatives, on arrays by way of a graph and the interpreter."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.types import TensorType, as_dtype

Function = Callable[..., Any]


def run(function: Function, *arrays: Any) -> Any:
    """The function's results for arrays, by NumPy: a list, if the function returns several values."""
    operands = [np.asarray(array) for array in arrays]
    graph = Graph("test")
    with building(graph):
        inputs = [graph.input(f"x{n}", TensorType(as_dtype(x.dtype), x.shape)) for n, x in enumerate(operands)]
        result = function(*inputs)
    several = isinstance(result, list | tuple)
    for place, value in enumerate(result if several else [result]):
        graph.output(str(place), value)
    graph.verify()
    outputs = interpret(graph, {f"x{n}": x for n, x in enumerate(operands)})
    listed = [outputs[str(place)] for place in range(len(outputs))]
    return listed if several else listed[0]


def derivative(function: Function, x: Any, order: int = 1) -> np.ndarray:
    """The derivative of an elementwise function of floats."""

    def repeated(value: Value) -> Value:
        result = function(value)
        for _ in range(order):
            (result,) = gradients([result], [value])
        return result

    return run(repeated, np.asarray(x, np.float64))


def sample(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)
