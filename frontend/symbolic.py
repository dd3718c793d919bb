"""Symbolic tensors with an open batch, and the calls recorded on them, which are replayed for each batch size.

The IR's shapes are static. What a call makes of an open size is found by tracing it for two sizes: where the results
differ, the result is open, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gradloom.compiler import ops as compiler_ops
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.provenance import layer_scope, source_scope, user_line
from gradloom.compiler.types import DType, TensorType
from gradloom.naming import unique_name
from gradloom.operators import TensorOperators
from gradloom.recording import Recorded
from gradloom.trees import Structure, flatten, unflatten
from gradloom.variables import Trace

if TYPE_CHECKING:
    from gradloom.layers.shapes import Shape

PROBED_BATCHES = (2, 3)
PROBED_SIZES = (256, 384)
"""What open sizes are tried as: large and even enough for images to be pooled and merged again."""

_serials = itertools.count()


class SymbolicTensor(TensorOperators, Recorded):
    """A tensor of a model that is being written: `gl.Input((784,))`, or what a layer makes of one.

    `shape` has None for open sizes, first of all the batch. Layers, `gl.ops` and Python's operators record themselves
    on it; `call` is the call that it is a result of. `probes` are its types for the two sizes tried.
    """

    def __init__(self, probes: tuple[TensorType, TensorType], name: str, call: Call | None = None) -> None:
        if probes[0].dtype != probes[1].dtype or probes[0].rank != probes[1].rank:
            raise TypeError(f"{name!r}: Expected a rank that no batch size changes. Received: {probes[0]}, {probes[1]}")
        self.probes = probes
        self.name = name
        self.call = call
        self.shape: Shape = tuple(
            size if size == other else None for size, other in zip(probes[0].shape, probes[1].shape, strict=True)
        )

    @staticmethod
    def open(shape: Sequence[int | None], dtype: DType, name: str) -> SymbolicTensor:
        """Return a tensor that no call made."""
        first, second = (
            tuple(
                (PROBED_SIZES if axis else PROBED_BATCHES)[probe] if size is None else size
                for axis, size in enumerate(shape)
            )
            for probe in (0, 1)
        )
        return SymbolicTensor((TensorType(dtype, first), TensorType(dtype, second)), name)

    @property
    def dtype(self) -> DType:
        return self.probes[0].dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def record_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = unique_name(getattr(function, "__name__", "function").strip("<>"))
        with call_context(name, (args, kwargs)):
            return record(function, args, kwargs, name)[0]

    def _operate(self, operation: str, *operands: Any) -> Any:
        return self.record_call(getattr(compiler_ops, operation), operands, {})

    def symbolic(self, graph: Graph) -> Value:
        """Refuse to be a value: a model's tensors have one only while the model is applied to a batch."""
        raise TypeError(
            f"Symbolic tensor {self.name!r} of shape {self.shape}: Expected it as an argument of a layer or of a "
            "function of gl.ops. Received: its use inside of one, or in another graph"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> SymbolicTensor:
        """Return the result of the copied call."""
        if self.call is None:
            return SymbolicTensor(self.probes, self.name)
        deepcopy(self.call, memo)
        copied: SymbolicTensor = memo[id(self)]
        return copied

    def __repr__(self) -> str:
        return f"<SymbolicTensor name={self.name}, shape={self.shape}, dtype={self.dtype.numpy_name}>"

    def __bool__(self) -> bool:
        raise TypeError(f"{self!r} has no truth value; use gl.ops.where(condition, x, y) instead of `if`.")

    def __iter__(self) -> Iterator[Any]:
        if not self.shape or self.shape[0] is None:
            raise TypeError(f"Expected a tensor whose first size is known to iterate over. Received: {self!r}")
        return (self[row] for row in range(self.shape[0]))


KerasTensor = SymbolicTensor
"""Keras's name for symbolic tensors."""


@dataclass(eq=False)
class Call:
    """A recorded call of a layer or a function: `leaves` in `structure` are its arguments, (args, kwargs).

    Calls are numbered in the order in which they were made, in which they can be made again.
    """

    operation: Callable[..., Any]
    name: str
    leaves: list[Any]
    structure: Structure
    outputs: list[SymbolicTensor] = field(default_factory=list)
    source: str = ""
    serial: int = field(default_factory=_serials.__next__)

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic tensors among the arguments."""
        return [leaf for leaf in self.leaves if isinstance(leaf, SymbolicTensor)]

    def replay(self, values: MutableMapping[SymbolicTensor, Value]) -> None:
        """Make the call on `values`, and add its results to them; its nodes come from the line of the call."""
        leaves = [values[leaf] if isinstance(leaf, SymbolicTensor) else leaf for leaf in self.leaves]
        args, kwargs = unflatten(self.structure, leaves)
        # A layer is a scope by itself; a function stands beside the layers, as in a summary.
        scope: AbstractContextManager[None] = (
            nullcontext() if isinstance(self.operation, Called) else layer_scope(self.name)
        )
        with source_scope(self.source), scope:
            results = flatten(self.operation(*args, **kwargs))[0]
        values.update(zip(self.outputs, (leaf for leaf in results if isinstance(leaf, Value)), strict=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> Call:
        """Copy the calls that this one depends on, then itself: a deep network exceeds Python's recursion limit."""
        found: dict[Call, None] = {}
        waiting = [self]
        while waiting:
            call = waiting.pop()
            if call not in found and id(call) not in memo:
                found[call] = None
                waiting += [tensor.call for tensor in call.inputs if tensor.call is not None]
        for call in sorted(found, key=lambda call: call.serial):
            call._copy(memo)
        copied: Call = memo[id(self)]
        return copied

    def _copy(self, memo: dict[int, Any]) -> None:
        """Make the copy of a call whose inputs have theirs."""
        copied = memo[id(self)] = replace(self)
        copied.outputs = [SymbolicTensor(tensor.probes, tensor.name, copied) for tensor in self.outputs]
        memo.update((id(tensor), copy) for tensor, copy in zip(self.outputs, copied.outputs, strict=True))
        copied.leaves = [deepcopy(leaf, memo) for leaf in self.leaves]
        operation: Any = deepcopy(self.operation, memo)
        copied.operation = operation
        if isinstance(operation, Called):
            operation._calls.append(copied)


class Called:
    """The base of operations that know which calls of them were recorded."""

    _calls: list[Call]


def record(
    operation: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str
) -> tuple[Any, Call]:
    """Record a call on symbolic tensors; return what stands for its results, and the call."""
    leaves, structure = flatten((args, dict(kwargs)))
    call = Call(operation, name, leaves, structure, source=user_line())
    results, result_structure = infer(operation, leaves, structure, name)
    call.outputs = [leaf for leaf in results if isinstance(leaf, SymbolicTensor)]
    for position, output in enumerate(call.outputs):
        output.call = call
        output.name = name if len(call.outputs) == 1 else f"{name}:{position}"
    return unflatten(result_structure, results), call


def infer(
    operation: Callable[..., Any], leaves: Sequence[Any], structure: Structure, name: str
) -> tuple[list[Any], Structure]:
    """Return the leaves and the structure of a call's result, with symbolic tensors for values.

    Other results, such as the sizes that `gl.ops.shape` returns, are None where they depend on an open size.
    """
    (first, result), (second, other) = (_probe(operation, leaves, structure, probe, name) for probe in (0, 1))
    if result != other:
        raise TypeError(f"{name!r}: Expected a result of one form for all batch sizes. Received: {result}, {other}")
    return [_merged(one, two, name) for one, two in zip(first, second, strict=True)], result


def _probe(
    operation: Callable[..., Any], leaves: Sequence[Any], structure: Structure, probe: int, name: str
) -> tuple[list[Any], Structure]:
    """Make the call for one of the two sizes, in a graph of its own."""
    graph = Graph(name)
    with Trace(graph):
        values = [
            graph.input(f"argument_{position}", leaf.probes[probe]) if isinstance(leaf, SymbolicTensor) else leaf
            for position, leaf in enumerate(leaves)
        ]
        args, kwargs = unflatten(structure, values)
        return flatten(operation(*args, **kwargs))


def _merged(first: Any, second: Any, name: str) -> Any:
    if isinstance(first, Value) and isinstance(second, Value):
        return SymbolicTensor((first.type, second.type), name)
    return first if first == second else None


@contextmanager
def call_context(name: str, arguments: Any) -> Iterator[None]:
    """Let errors of the compiler say which call on which tensors they are about, and the user's line."""
    try:
        yield
    except GradloomError as error:
        tensors = [leaf for leaf in flatten(arguments)[0] if isinstance(leaf, SymbolicTensor)]
        received = ", ".join(f"{tensor.name!r} {tensor.shape}" for tensor in tensors)
        raise type(error)(f"{error}  [call of {name!r} on {received}; {user_line()}]") from None
