"""Functions of `keras.ops` that say what gradients are: `stop_gradient` and `custom_gradient`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.markers import CustomGradient, StopGradient
from gradloom.compiler.ops.operands import TensorLike, as_value, broadcast, convert, graph_of, is_weak


def stop_gradient(variable: TensorLike) -> Value:
    """The same value, as a constant for gradients."""
    value = as_value(variable, function="stop_gradient")
    return value.graph.apply(StopGradient(), value)


def custom_gradient(f: Callable[..., tuple[Any, Callable[..., Any]]]) -> Callable[..., Any]:
    """Give a function a gradient of its own; a decorator.

    `f(*args)` returns `(result, grad_fn)`; `grad_fn(upstream)` maps the cotangent of the result to that of the
    argument, or to a tuple of those of all arguments, with None for one that has none. If the result is a tuple,
    `grad_fn` gets one cotangent for each part (and is called once for each: it must be linear in them, as gradients
    are). What `f` uses but its arguments counts as a constant. `grad_fn` is made of functions of values itself, so it
    can be differentiated in turn.

        @gl.ops.custom_gradient
        def log1pexp(x):
            e = gl.ops.exp(x)
            return gl.ops.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))
    """

    @functools.wraps(f)
    def differentiable(*args: Any, **kwargs: Any) -> Any:
        returned = f(*args, **kwargs)
        if not (isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])):
            raise TypeError(f"custom_gradient: expected {f!r} to return (result, grad_fn). Received: {returned!r}")
        result, grad_fn = returned
        parts = list(result) if isinstance(result, tuple | list) else [result]
        graph = graph_of(*parts, *args, function="custom_gradient")
        values = [as_value(part, function="custom_gradient", graph=graph) for part in parts]
        operands = [as_value(arg, function="custom_gradient", graph=graph) for arg in args]
        marked = [_mark(values, place, operands, grad_fn) for place in range(len(values))]
        return type(result)(marked) if isinstance(result, tuple | list) else marked[0]

    return differentiable


def _cotangent(returned: Any, operand: Value) -> Value:
    """What `grad_fn` returned for an argument, as a value of its shape; a Python number stands for all elements."""
    cotangent = as_value(returned, operand)
    if not cotangent.dtype.is_float:
        raise DTypeError(
            f"custom_gradient: Expected a cotangent of its argument's dtype {operand.dtype}. "
            f"Received: dtype {cotangent.dtype}"
        )
    cotangent = convert(cotangent, cotangent.dtype.arithmetic)
    if is_weak(returned):
        return broadcast(cotangent, operand.shape)
    if cotangent.shape != operand.shape:
        raise ShapeError(
            f"custom_gradient: expected a cotangent of its argument's shape {operand.shape}. "
            f"Received: shape {cotangent.shape}"
        )
    return cotangent


def _mark(values: Sequence[Value], place: int, operands: Sequence[Value], grad_fn: Callable[..., Any]) -> Value:
    """One part of the result, with the rule that makes the arguments' cotangents from its cotangent alone."""
    graph = values[place].graph

    def rule(cotangent: Value) -> Sequence[Value | None]:
        upstream = [
            cotangent if at == place else broadcast(graph.constant(0, value.dtype.arithmetic), value.shape)
            for at, value in enumerate(values)
        ]
        returned = grad_fn(*upstream)
        cotangents = list(returned) if isinstance(returned, tuple | list) else [returned]
        if len(cotangents) != len(operands):
            raise ShapeError(
                f"custom_gradient: expected one cotangent for each of {len(operands)} arguments. "
                f"Received: {len(cotangents)}"
            )
        return [
            None if cotangent is None or not operand.dtype.is_float else _cotangent(cotangent, operand)
            for cotangent, operand in zip(cotangents, operands, strict=True)
        ]

    number = len(graph.gradient_rules)
    graph.gradient_rules[number] = rule
    return graph.apply(CustomGradient(number), values[place], *operands)
