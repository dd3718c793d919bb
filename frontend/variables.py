"""Variables: tensors that outlive a step, and the trace that turns reading and assigning them into a pure graph.

The IR knows no state. While a `Trace` is open, the first read of a variable makes an input of the graph, an assignment
makes an output that may be written onto that input's memory; whoever runs the program supplies the variable's array.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import numpy as np

from gradloom import initializers, ops
from gradloom.compiler import ops as compiler_ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph, Input, Value, building
from gradloom.compiler.types import DType, TensorType, as_dtype
from gradloom.naming import numbered
from gradloom.operators import TensorOperators
from gradloom.recording import find_recorded
from gradloom.runtime import memory
from gradloom.runtime.locks import new_lock
from gradloom.trees import as_float32


class _Making:
    """Holds the lock under which variables get their arrays: all readers and writers are to get the one."""

    def __init__(self) -> None:
        self.lock = new_lock(self, "lock", threading.RLock)


_making = _Making()

Role = Literal["parameter", "state", "hyperparameter"]


class Variable(TensorOperators):
    """A tensor with a name whose value is kept between runs.

    initializer: an array (or number), an initializer, its name, or a function of (shape, dtype).
    shape: needed unless the value is given as an array.
    trainable: whether optimizers change it.
    path: its unique name, "dense/kernel"; by default `name`.
    role: "parameter" (weights), "state" (optimizer slots, metric sums, moving statistics) or "hyperparameter" (learning
        rates and the like: giving them another value compiles nothing).

    `value` is the host array: C-contiguous, 64-byte aligned and owned by the variable; `assign` changes it. Inside a
    trace Python's operators and `gl.ops` read it as a symbolic value.
    """

    def __init__(
        self,
        initializer: Any,
        shape: Sequence[int] | None = None,
        dtype: DType | str | type | np.dtype = "float32",
        trainable: bool = True,
        name: str = "variable",
        role: Role = "parameter",
        path: str | None = None,
    ) -> None:
        self.name = name
        self.path = name if path is None else path
        layer = current_layer_call()
        if layer is not None:
            raise ValueError(
                f"{layer}: Expected weights, and layers that have some, to be made in __init__ or build: "
                "call runs anew for each program, and would make new ones each time. Received: variable "
                f"{self.path!r}, made in call"
            )
        self.role: Role = role
        self.trainable = bool(trainable)
        self.version = 0
        self.dtype = as_dtype(dtype)
        if shape is not None:
            memory.check_fits(TensorType(self.dtype, tuple(shape)), f"Variable {self.path!r}")
        self._array: np.ndarray | None = None
        self._draw: Callable[[], np.ndarray] | None = None
        make = initializers.get(initializer) if callable(initializer) or isinstance(initializer, str) else None
        if isinstance(make, initializers.DEFERRED) and shape is not None:
            # Large kernels are often loaded before anyone looks at what was drawn for them; and a file's config may
            # speak of larger ones than its weights are.
            self.shape: tuple[int, ...] = tuple(shape)
            self._draw = partial(make, self.shape, self.dtype.numpy_name)
        else:
            initial = self._initial(initializer, shape)
            self.shape = initial.shape
            self._own()[...] = self.in_range(initial)

    def _initial(self, initializer: Any, shape: Sequence[int] | None) -> np.ndarray:
        if not (callable(initializer) or isinstance(initializer, str)):
            initial = np.asarray(initializer)
            if shape is not None and initial.shape != tuple(shape):
                raise ShapeError(f"Variable {self.path!r}: Expected shape {tuple(shape)}. Received: {initial.shape}")
            return initial
        if shape is None:
            raise ShapeError(f"Variable {self.path!r}: Expected a shape, since the value comes from {initializer!r}.")
        make: Callable[..., np.ndarray] = initializers.get(initializer)
        initial = np.asarray(make(tuple(shape), self.dtype.numpy_name))
        if initial.shape != tuple(shape):
            raise ShapeError(
                f"Variable {self.path!r}: Expected {initializer!r} to return shape {tuple(shape)}. "
                f"Received: {initial.shape}"
            )
        return initial

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.type.size

    @property
    def _value(self) -> np.ndarray:
        """The variable's array; random values are drawn when it is first asked for."""
        if self._array is None:
            with _making.lock:
                if self._array is None:
                    assert self._draw is not None
                    array = memory.array(TensorType(self.dtype, self.shape))
                    array[...] = self._draw()
                    self._array = array
        assert self._array is not None
        return self._array

    def _own(self) -> np.ndarray:
        """The variable's array, for the caller to fill."""
        with _making.lock:
            if self._array is None:
                self._array = memory.array(TensorType(self.dtype, self.shape))
            return self._array

    @property
    def value(self) -> np.ndarray:
        """The host array, no copy but read-only: what follows from weights must hear of it when they change."""
        view = self._value.view()
        view.flags.writeable = False
        return view

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        return self._value.copy()

    def changed(self) -> None:
        """Note that a program wrote onto `value`: whatever was derived from the old value is out of date."""
        self.version += 1

    def assign(self, value: Any) -> None:
        """Give the variable another value.

        An array (of any real dtype of the same kind) is copied at once, also while a trace is open. A symbolic value
        becomes the variable's state after the traced step. Raises `ShapeError` unless the shape is the variable's,
        `ValueError` for finite numbers beyond float32, and then nothing is changed.
        """
        if isinstance(value, Value):
            Trace.of(value.graph, self).assign(self, value)
            return
        array = np.asarray(value)
        self._check_shape(array.shape)
        if not np.can_cast(array.dtype, self.dtype.numpy, "same_kind"):
            raise DTypeError(
                f"Variable {self.path!r}: Expected values of dtype {self.dtype.numpy_name}. Received: {array.dtype}"
            )
        array = self.in_range(array)
        np.copyto(self._own(), array, casting="same_kind")
        self.version += 1

    def in_range(self, array: np.ndarray) -> np.ndarray:
        """The array as the variable takes it; raises `ValueError` for finite numbers that would be infinite in it."""
        return as_float32(array, f"variable {self.path!r}") if self.dtype.numpy == np.float32 else array

    def assign_add(self, value: Any) -> None:
        """Add `value`, symbolically while a trace is open."""
        self.assign((self if Trace.current() else self._value) + value)

    def assign_sub(self, value: Any) -> None:
        """Subtract `value`, symbolically while a trace is open."""
        self.assign((self if Trace.current() else self._value) - value)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.shape:
            raise ShapeError(f"Variable {self.path!r}: Expected shape {self.shape}. Received: {shape}")

    def symbolic(self, graph: Graph) -> Value:
        """The variable's value in a graph that is being traced: its input there, or what was assigned since."""
        return Trace.of(graph, self).read(self)

    def _operate(self, operation: str, *operands: Any) -> Any:
        symbolic = find_recorded(operands)
        if symbolic is not None:
            return symbolic.record_call(getattr(compiler_ops, operation), operands, {})
        return Value.arithmetic.apply(operation, *(self._here() if x is self else x for x in operands))

    def _here(self) -> Value:
        """The value in the current trace, for Python's operators."""
        trace = Trace.current()
        if trace is None:
            raise TypeError(
                f"Variable {self.path!r} takes part in symbolic arithmetic only while a graph is traced; "
                "its array is `variable.value`."
            )
        return trace.read(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy, with a value of its own that is aligned as this class promises."""
        self.__dict__.update(state)
        if self._array is not None:
            self._array = None
            self._own()[...] = state["_array"]

    def __repr__(self) -> str:
        return f"<Variable path={self.path} type={self.type} role={self.role} trainable={self.trainable}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"Variable {self.path!r} is copied when it becomes an array; its own is `variable.value`.")
        return np.array(self._value, dtype=dtype)

    def __float__(self) -> float:
        return float(self._value)

    def __int__(self) -> int:
        return int(self._value)

    def __bool__(self) -> bool:
        raise TypeError(f"Variable {self.path!r} has no truth value; ask its array, `variable.value`.")

    def __len__(self) -> int:
        return len(self._value)


class Trace:
    """Records which variables a graph reads and what it makes of them: `with Trace(graph) as trace: …; trace.finish()`.

    `inputs` maps each variable touched, in order, to its input; `assigned` maps those with a new state to it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inputs: dict[Variable, Value] = {}
        self.assigned: dict[Variable, Value] = {}
        self._scope = ExitStack()

    def __enter__(self) -> Trace:
        token = _traces.set((*_traces.get(), self))
        self._scope.callback(_traces.reset, token)
        self._scope.enter_context(building(self.graph))
        return self

    def __exit__(self, *exception: object) -> None:
        self._scope.close()

    @staticmethod
    def current() -> Trace | None:
        """The innermost open trace, if any."""
        return _traces.get()[-1] if _traces.get() else None

    @staticmethod
    def of(graph: Graph, variable: Variable) -> Trace:
        """The open trace of `graph`; raises `TypeError` naming `variable` when there is none."""
        for trace in reversed(_traces.get()):
            if trace.graph is graph:
                return trace
        raise TypeError(
            f"Variable {variable.path!r}: Expected an open trace of the graph {graph.name!r} that it is used in; "
            "variables are read and assigned symbolically inside a model, gl.function or gl.trace."
        )

    @property
    def variables(self) -> list[Variable]:
        """The variables touched, in order."""
        return list(self.inputs)

    def input(self, variable: Variable) -> Value:
        """The graph's input for `variable`'s value before the step."""
        if variable not in self.inputs:
            self.inputs[variable] = self.graph.input(self._label(variable), variable.type, variable.role)
        return self.inputs[variable]

    def label(self, variable: Variable) -> str:
        """The label under which a program receives `variable`."""
        op = self.input(variable).op
        assert isinstance(op, Input)
        return op.label

    def read(self, variable: Variable) -> Value:
        """The variable's value at this point of the step."""
        return self.assigned[variable] if variable in self.assigned else self.input(variable)

    def assign(self, variable: Variable, value: Value) -> None:
        """Let `variable` have `value`, converted to its dtype, from here on."""
        variable._check_shape(value.shape)
        self.input(variable)
        self.assigned[variable] = ops.cast(value, variable.dtype)

    def finish(self) -> None:
        """Make every new state an output of the graph, to be written onto its variable's input."""
        for variable, value in self.assigned.items():
            if value is not self.inputs[variable]:
                self.graph.output(self.label(variable), value, donor=self.inputs[variable])

    def arguments(self) -> dict[str, np.ndarray]:
        """The variables' arrays by label: what the program reads, and writes new state onto."""
        return {self.label(variable): variable._value for variable in self.inputs}

    def changed(self) -> None:
        """Note that the program ran and wrote every new state."""
        for variable in self.assigned:
            variable.changed()

    def _label(self, variable: Variable) -> str:
        # Two models may both have a "dense/kernel": inputs of equal label and type would be interned as one.
        return numbered(variable.path, self.graph.labels)


_traces: ContextVar[tuple[Trace, ...]] = ContextVar("traces", default=())

_layer_call: ContextVar[str | None] = ContextVar("layer_call", default=None)


def current_layer_call() -> str | None:
    """The layer inside whose `call` this is, where no variable can be made; None elsewhere."""
    return _layer_call.get()


@contextmanager
def layer_call(layer: str | None) -> Iterator[None]:
    """Refuse new variables inside, as made in the call of `layer`; None allows them again."""
    token = _layer_call.set(layer)
    try:
        yield
    finally:
        _layer_call.reset(token)
