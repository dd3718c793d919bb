"""A function and its arguments, made ready to be traced: which arrays there are, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloom.compiler.ir import Graph
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.layers import Layer
from gradloom.naming import distinct
from gradloom.testing.arguments import Rebuild, taken_apart
from gradloom.testing.problem import Function
from gradloom.variables import Trace, Variable


def checked_function(f: Callable[..., Any], args: Sequence[Any]) -> Function:
    """Return `f` with its arrays by name: "x", "x.0", "weights.kernel", as its parameters are called.

    Of a compiled function the Python function is taken. The trainable weights of a layer, or model, are arrays, too,
    called by their paths. Raises `TypeError` without arrays.
    """
    if not callable(f):
        raise TypeError(f"Expected a function of arrays. Received: {f!r}")
    python = getattr(f, "python_function", f)
    roots = _parameters(python)[: len(args)]
    roots += [f"argument_{position}" for position in range(len(roots), len(args))]
    arrays: list[np.ndarray] = []
    names: list[str] = []
    parts: list[tuple[int, int, Rebuild]] = []
    for root, argument in zip(roots, args, strict=True):
        inside, inner, rebuild = taken_apart(argument, root)
        parts.append((len(arrays), len(arrays) + len(inside), rebuild))
        arrays += inside
        names += inner
    name = function_name(python)
    if not arrays:
        raise TypeError(f"{name}: Expected arrays as arguments. Received: {', '.join(map(repr, args)) or 'none'}")

    def applied(values: Sequence[Any]) -> Any:
        return python(*(rebuild(values[low:high]) for low, high, rebuild in parts))

    weights = _weights(python, applied, arrays) if isinstance(python, Layer) else ()

    def call(values: Sequence[Any]) -> Any:
        trace = Trace.current()
        for variable, value in zip(weights, values[len(arrays) :], strict=True):
            assert trace is not None
            trace.assign(variable, value)
        return applied(values)

    paths = [variable.path for variable in weights]
    values = [variable.numpy() for variable in weights]
    named = dict(zip(distinct([*names, *paths]), [*arrays, *values], strict=True))
    return Function(python, name, named, call, tuple(args), weights)


def _weights(
    layer: Layer, applied: Callable[[Sequence[Any]], Any], arrays: Sequence[np.ndarray]
) -> tuple[Variable, ...]:
    """The weights that training changes; a layer makes those of the layers inside it when it is first called."""
    graph = Graph()
    with Trace(graph):
        applied([graph.input(f"x{at}", TensorType(as_dtype(x.dtype), x.shape)) for at, x in enumerate(arrays)])
    return tuple(variable for variable in layer.trainable_weights if variable.dtype.is_float)


def function_name(f: Callable[..., Any]) -> str:
    """What a function is called; "function" for a lambda."""
    name = getattr(f, "__name__", type(f).__name__)
    return "function" if name == "<lambda>" else str(name)


def _parameters(f: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # builtins may have none
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
