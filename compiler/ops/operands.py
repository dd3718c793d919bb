"""What functions accept as operands: values, Python numbers, arrays, variables; and how their dtypes are promoted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph, Value, current_graph
from gradloom.compiler.ops.elementwise import Convert
from gradloom.compiler.ops.movement import BroadcastTo
from gradloom.compiler.types import BOOL, F32, I32, DType, as_dtype, promote


@runtime_checkable
class Symbolic(Protocol):
    """What stands for a value in whatever graph is being built: a variable of the front end."""

    def symbolic(self, graph: Graph) -> Value:
        """Return the value in `graph`."""


TensorLike: TypeAlias = Value | Symbolic | np.ndarray | np.generic | float | int | bool | Sequence[Any]
Axis: TypeAlias = int | Sequence[int] | None


def graph_of(*operands: Any, function: str = "this function") -> Graph:
    """The graph that operands belong to, or else the one that is being built; raises `TypeError` without either."""
    for operand in operands:
        if isinstance(operand, Value):
            return operand.graph
    graph = current_graph()
    if graph is None:
        received = ", ".join(type(operand).__name__ for operand in operands) or "nothing"
        raise TypeError(
            f"{function} builds a graph: expected a symbolic value among its operands, or a call inside of a function "
            f"that is compiled with gl.function. Received: {received}"
        )
    return graph


def is_weak(operand: Any) -> bool:
    """Whether this is a Python number, which takes the dtype of what it is combined with."""
    return isinstance(operand, bool | int | float)


def as_value(
    x: TensorLike, like: Value | None = None, function: str = "this function", graph: Graph | None = None
) -> Value:
    """Return the value for `x` in `graph`, in that of `like`, or in the one that is being built.

    A Python number takes the dtype of `like`; a float beside integers is f32, an integer beside bools i32. NumPy's
    float64 *scalars* count as Python floats. Lists become f32, i32 or bool tensors. Arrays keep their dtype.
    """
    if isinstance(x, Value):
        return x
    if graph is None:
        graph = graph_of(x, function=function) if like is None else like.graph
    if is_weak(x):
        return graph.constant(*_number(x, None if like is None else like.dtype))  # type: ignore[arg-type]
    if isinstance(x, np.ndarray | np.generic):
        return graph.capture(_native(np.asarray(x)))
    if isinstance(x, Symbolic):
        return x.symbolic(graph)
    if isinstance(x, list | tuple):
        if any(isinstance(item, Value | Symbolic) for item in x):
            raise TypeError(f"{function}: expected a tensor; use gl.ops.stack for a list of tensors. Received: {x!r}")
        array = np.asarray(x)
        narrow = {"f": np.float32, "i": np.int32}.get(array.dtype.kind, array.dtype)
        return graph.capture(_native(np.asarray(x, dtype=narrow)))
    raise TypeError(f"{function}: expected a tensor, a number, an array or a variable. Received: {x!r}")


def _native(array: np.ndarray) -> np.ndarray:
    """The array in the machine's byte order, in memory order, of a dtype that the IR has."""
    return np.ascontiguousarray(array, as_dtype(array.dtype).numpy).reshape(array.shape)


def _number(x: bool | int | float, like: DType | None) -> tuple[bool | int | float, DType]:
    """A Python number with the dtype that it takes beside `like`."""
    if isinstance(x, bool):
        return x, BOOL if like is None else like
    if isinstance(x, float):
        return float(x), like if like is not None and like.is_float else F32
    dtype = I32 if like is None or like == BOOL else like
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        if not limits.min <= x <= limits.max:
            raise DTypeError(
                f"Expected a number that {dtype.numpy_name} holds: {limits.min} to {limits.max}. Received: {x}"
            )
    return x, dtype


def as_values(*operands: TensorLike, function: str = "this function", graph: Graph | None = None) -> list[Value]:
    """Return the operands as values of one graph, each in its own dtype; Python numbers in that of the others."""
    graph = graph or graph_of(*operands, function=function)
    strong = [as_value(x, None, function, graph) for x in operands if not is_weak(x)]
    if strong:
        like = promote(*(value.dtype for value in strong)).arithmetic
    else:
        # Among numbers alone, each takes the dtype that the widest of them has by itself.
        like = promote(*(_number(x, None)[1] for x in operands))  # type: ignore[arg-type]
    known = iter(strong)
    return [graph.constant(*_number(x, like)) if is_weak(x) else next(known) for x in operands]  # type: ignore[arg-type]


def _alike(*operands: TensorLike, function: str, graph: Graph | None = None) -> list[Value]:
    """The operands as values of one dtype, the highest of theirs."""
    values = as_values(*operands, function=function, graph=graph)
    dtype = promote(*(value.dtype for value in values))
    return [convert(value, dtype) for value in values]


def promoted(*operands: TensorLike, function: str = "this function", graph: Graph | None = None) -> list[Value]:
    """Return the operands as values of one dtype in which there is arithmetic: the highest of theirs, f32 for bf16."""
    return [convert(value, value.dtype.arithmetic) for value in _alike(*operands, function=function, graph=graph)]


def factors(*operands: TensorLike, function: str = "this function") -> list[Value]:
    """Return the operands of a contraction as values of one dtype of numbers: bf16 stays bf16, bools become i32."""
    values = _alike(*operands, function=function)
    return [convert(value, I32) for value in values] if values[0].dtype == BOOL else values


def floats(*operands: TensorLike, function: str = "this function") -> list[Value]:
    """Return the operands as values of one float dtype: f32 for integers and bools."""
    values = promoted(*operands, function=function)
    return values if values[0].dtype.is_float else [convert(value, F32) for value in values]


def numbers(*operands: TensorLike, function: str = "this function") -> list[Value]:
    """Return the operands as values of one dtype of numbers: i32 for bools."""
    values = promoted(*operands, function=function)
    return [convert(value, I32) for value in values] if values[0].dtype == BOOL else values


def bools(*operands: TensorLike, function: str = "this function") -> list[Value]:
    """Return the operands as bools: whether they differ from 0."""
    return [convert(value, BOOL) for value in as_values(*operands, function=function)]


def convert(x: Value, dtype: DType) -> Value:
    """Return `x` in another dtype."""
    return x if x.dtype == dtype else x.graph.apply(Convert(dtype), x)


def broadcast(x: Value, shape: tuple[int, ...]) -> Value:
    """Return `x` repeated to `shape`."""
    return x if x.shape == shape else x.graph.apply(BroadcastTo(shape), x)


def canonical_axis(axis: int, rank: int, function: str) -> int:
    """Return an axis counted from the front; raises `ShapeError` if there is no such axis."""
    if not isinstance(axis, int | np.integer):
        raise TypeError(f"{function}: expected axis as an integer. Received: axis={axis!r}")
    if not -rank <= axis < rank:
        raise ShapeError(f"{function}: expected an axis from {-rank} to {rank - 1}. Received: axis={axis}")
    return int(axis) % rank


def canonical_axes(axis: Axis, rank: int, function: str) -> tuple[int, ...]:
    """Return axes counted from the front, ascending: all of them for None."""
    if axis is None:
        return tuple(range(rank))
    if not isinstance(axis, int | np.integer | Iterable):
        raise TypeError(f"{function}: expected axis as an integer, or several. Received: axis={axis!r}")
    listed = [axis] if isinstance(axis, int | np.integer) else list(axis)
    axes = sorted(canonical_axis(one, rank, function) for one in listed)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{function}: expected different axes. Received: axis={axis}")
    return tuple(axes)


def static_shape(shape: int | Sequence[int], function: str) -> tuple[int, ...]:
    """Return a shape as a tuple of Python integers."""
    sizes = [shape] if isinstance(shape, int | np.integer) else list(shape)
    if any(isinstance(size, bool) or not isinstance(size, int | np.integer) for size in sizes):
        raise ShapeError(f"{function}: expected a shape of integers. Received: {shape!r}")
    return tuple(int(size) for size in sizes)
