"""A function and its arguments, made ready to be traced: which arrays there are, and what they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloom.naming import distinct
from gradloom.testing.arguments import Rebuild, taken_apart
from gradloom.testing.problem import Function


def checked_function(f: Callable[..., Any], args: Sequence[Any]) -> Function:
    """Return `f` with its arrays by name: "x", "x.0", "weights.kernel", as its parameters are called.

    Of a compiled function the Python function is taken. Raises `TypeError` without arrays.
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

    def call(values: Sequence[Any]) -> Any:
        return python(*(rebuild(values[low:high]) for low, high, rebuild in parts))

    named = dict(zip(distinct(names), arrays, strict=True))
    return Function(python, name, named, call, tuple(args))


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
