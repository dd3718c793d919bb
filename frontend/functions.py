"""Functions of arrays: `gl.function` compiles them, `gl.grad` and `gl.value_and_grad` differentiate them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloom.autotuning import time_box
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph, Value, current_graph
from gradloom.compiler.ops import as_value
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.execution import CompiledGraph
from gradloom.naming import distinct
from gradloom.runtime.locks import new_lock
from gradloom.tracing import TensorSpec, TracedGraph, finish, varied
from gradloom.trees import LEAF, Structure, as_array, flatten, leaf_names, unflatten
from gradloom.variables import Trace

Function = Callable[..., Any]


class CompiledFunction:
    """A Python function of arrays, compiled once per structure, dtypes and shapes of its arguments.

    Calling it with arrays returns NumPy arrays (a scalar result is a NumPy scalar); calling it with symbolic values,
    inside a trace, calls the Python function.
    """

    def __init__(self, f: Function, autotune: bool | float = False, check_numerics: bool = False) -> None:
        if not callable(f):
            raise TypeError(f"Expected a function of arrays. Received: {f!r}")
        # First, as it copies the attributes of `f`, which may be a compiled function itself.
        functools.update_wrapper(self, f)
        self.python_function = f
        self._autotune = time_box(autotune)
        self._check_numerics = check_numerics
        self._compiled: dict[Any, tuple[CompiledGraph, list[str], Structure]] = {}
        self._names: dict[Structure, list[str]] = {}
        self._lock = new_lock(self, "_lock")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten((args, kwargs))
        if _is_symbolic(leaves):
            return self.python_function(*args, **kwargs)
        names = self._names.get(structure)
        if names is None:
            names = self._names[structure] = _argument_names(self.python_function, args, kwargs)
        arrays = [as_array(leaf, f"argument {name}") for leaf, name in zip(leaves, names, strict=True)]
        types = tuple(TensorType(as_dtype(array.dtype), array.shape) for array in arrays)
        compiled, outputs, result = self._program(structure, types, names)
        results = compiled.run(dict(zip(names, arrays, strict=True)))
        return unflatten(result, [results[name][()] for name in outputs])

    def __reduce__(self) -> str:
        """Be copied and pickled as Python's functions are: it is itself, found by its name."""
        return str(getattr(self, "__qualname__", _name(self.python_function)))

    def _program(
        self, structure: Structure, types: tuple[TensorType, ...], names: list[str]
    ) -> tuple[CompiledGraph, list[str], Structure]:
        key = (structure, types)
        known = self._compiled.get(key)
        if known is not None:
            return known
        with self._lock:
            if key not in self._compiled:
                trace = Trace(Graph(_name(self.python_function)))
                outputs, result = trace_call(trace, self.python_function, structure, types, names)
                compiled = CompiledGraph(finish(trace), autotune=self._autotune, check_numerics=self._check_numerics)
                if compiled.tuning:
                    print(compiled.tuning, flush=True)
                self._compiled[key] = (compiled, outputs, result)
            return self._compiled[key]


def function(f: Function, autotune: bool | float = False, check_numerics: bool = False) -> CompiledFunction:
    """Compile a Python function of arrays, and of nested tuples, lists and dicts of arrays; a decorator.

    float64 stays float64; numbers written in Python are float32 or int32. Each new combination of dtypes and shapes is
    traced and compiled once. `f` must be made of `gl.ops` and Python's operators: it sees symbolic values.
    autotune: as in `Model.compile`; choices are printed when they are made. check_numerics: likewise.
    """
    return CompiledFunction(f, autotune, check_numerics)


def trace(f: Function, *specs: Any, **named_specs: Any) -> Graph:
    """Return the graph that `f` builds for arguments of the types `specs`.

    A spec is a `gl.TensorSpec`, or an array whose type is meant, or a tuple, list or dict of them. Inputs are named
    like `f`'s parameters, outputs "result" ("result.0" and so on for containers).
    """
    return traced_call(f, *specs, **named_specs)[0].graph


def traced_call(f: Function, *specs: Any, **named_specs: Any) -> tuple[TracedGraph, list[str]]:
    """Return what `trace` does, with the variables that `f` reads, and the names of its arguments."""
    leaves, structure = flatten((specs, named_specs))
    names = _argument_names(f, specs, named_specs)
    types = tuple(_spec_type(leaf, f"argument {name}") for leaf, name in zip(leaves, names, strict=True))
    tracing = Trace(Graph(_name(f)))
    trace_call(tracing, f, structure, types, names)
    return finish(tracing), names


def grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """Return the function that computes the gradient of `f`, which must return a scalar.

    The result has the structure of argument `argnums`, or is a tuple of such for a sequence of argument numbers, which
    may repeat. On symbolic values it emits the gradient; on arrays it compiles, as `gl.function` does. It nests.
    Raises `ShapeError` when `f` returns no scalar, `DTypeError` when an argument to differentiate is no float.
    """
    pair = _value_and_grad(f, argnums, "grad")

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return pair(*args, **kwargs)[1]

    return _differentiated(f, gradient, "grad")


def value_and_grad(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """Return the function that computes the pair (value of `f`, its gradient): see `gl.grad`."""
    return _differentiated(f, _value_and_grad(f, argnums, "value_and_grad"), "value_and_grad")


def trace_call(
    trace: Trace, f: Function, structure: Structure, types: Sequence[TensorType], names: Sequence[str]
) -> tuple[list[str], Structure]:
    """Call `f` on fresh inputs within `trace`; return the names of the outputs and the structure of the result."""
    with trace:
        inputs = [trace.graph.input(name, type) for name, type in zip(names, types, strict=True)]
        args, kwargs = unflatten(structure, inputs)
        leaves, result = flatten(f(*args, **kwargs))
        outputs = distinct(leaf_names(result, _result_name(trace.graph)))
        for name, leaf in zip(outputs, leaves, strict=True):
            trace.graph.output(name, _as_result(leaf, f, name))
    return outputs, result


def _differentiated(f: Function, emit: Function, prefix: str) -> Function:
    """Give a function that emits gradients its name, and let it compile when it is called with arrays."""
    emit.__name__ = f"{prefix}_{_name(f)}"
    emit.__doc__ = f"`gl.{prefix}` of `{_name(f)}`."
    emit.__signature__ = _signature(f)  # type: ignore[attr-defined]
    return CompiledFunction(emit)


def _value_and_grad(f: Function, argnums: int | Sequence[int], caller: str) -> Function:
    if not callable(f):
        raise TypeError(f"gl.{caller}: Expected a function. Received: {f!r}")
    single = isinstance(argnums, (int, np.integer))
    numbers = [int(argnums)] if single else [int(number) for number in argnums]  # type: ignore[arg-type,union-attr]

    def emit(*args: Any, **kwargs: Any) -> Any:
        positions = [_position(number, len(args), f, caller) for number in numbers]
        if current_graph() is None:
            raise TypeError(
                f"gl.{caller}: Expected arrays, or symbolic values while their graph is traced. Received: {args}"
            )
        distinct = list(dict.fromkeys(positions))
        leaves, structure = flatten(tuple(args[position] for position in distinct))
        variables = [varied(_differentiable(leaf, f, caller)) for leaf in leaves]
        new_args = list(args)
        for position, argument in zip(distinct, unflatten(structure, variables), strict=True):
            new_args[position] = argument
        result = _scalar(f(*new_args, **kwargs), f, caller)
        by_position = dict(zip(distinct, unflatten(structure, gradients([result], variables)), strict=True))
        return result, by_position[positions[0]] if single else tuple(by_position[position] for position in positions)

    return emit


def _position(number: int, count: int, f: Function, caller: str) -> int:
    if not -count <= number < count:
        raise ValueError(
            f"gl.{caller}: Expected argnums below {count}, the number of positional arguments of {_name(f)}. "
            f"Received: argnums={number}"
        )
    return number % count


def _differentiable(leaf: Any, f: Function, caller: str) -> Value:
    value = as_value(leaf)
    if not value.dtype.is_float:
        raise DTypeError(
            f"gl.{caller}: Expected floating-point arguments of {_name(f)} to differentiate by. "
            f"Received: an argument of type {value.type}"
        )
    return value


def _scalar(result: Any, f: Function, caller: str) -> Value:
    """Check that what `f` returned can be differentiated."""
    if flatten(result)[1] != LEAF:
        raise TypeError(
            f"gl.{caller}: Expected {_name(f)} to return one scalar. Received: a {type(result).__name__}; "
            "take the gradient of a function that returns the part to differentiate"
        )
    value = as_value(result)
    if value.shape != () or not value.dtype.is_float:
        raise ShapeError(
            f"gl.{caller}: Expected {_name(f)} to return a floating-point scalar. Received: {value.type}; "
            "reduce it first, for example with gl.ops.sum"
        )
    return value


def _as_result(leaf: Any, f: Function, name: str) -> Value:
    try:
        return as_value(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected arrays as the results of {_name(f)}. Received: {name} = {leaf!r}") from error


def _result_name(graph: Graph) -> str:
    """The name of the result: "result", unless an argument or a variable is called so."""
    taken = {str(value.op.attributes["label"]).split(".")[0] for value in graph.inputs}
    name = "result"
    while name in taken:
        name += "_"
    return name


def _is_symbolic(leaves: Sequence[Any]) -> bool:
    """Whether a call belongs to a graph that is being built rather than to arrays."""
    return current_graph() is not None or any(isinstance(leaf, Value) for leaf in leaves)


def _spec_type(leaf: Any, where: str) -> TensorType:
    if isinstance(leaf, TensorSpec):
        return leaf.type
    if isinstance(leaf, TensorType):
        return leaf
    array = as_array(leaf, where)
    return TensorType(as_dtype(array.dtype), array.shape)


def _name(f: Function) -> str:
    name = getattr(f, "__name__", type(f).__name__)
    return "function" if name == "<lambda>" else name


def _signature(f: Function) -> inspect.Signature | None:
    try:
        return inspect.signature(f)
    except (TypeError, ValueError):  # builtins may have none
        return None


def _argument_names(f: Function, args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """Name the leaves of a call's arguments by `f`'s parameters; none twice, for programs know arguments by name."""
    signature = _signature(f)
    roots = []
    if signature is not None:
        for parameter in signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                roots.append(parameter.name)
    roots += [f"argument_{position}" for position in range(len(roots), len(args))]
    names = [
        name for root, argument in zip(roots, args, strict=False) for name in leaf_names(flatten(argument)[1], root)
    ]
    for keyword in sorted(kwargs):
        names += leaf_names(flatten(kwargs[keyword])[1], keyword)
    return distinct(names)
