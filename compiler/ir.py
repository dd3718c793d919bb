"""The graph IR: typed, immutable SSA values, interned in a graph that remembers where each came from."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, KeysView, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from numbers import Number
from typing import Any, ClassVar

import numpy as np

from gradloom.compiler.errors import DTypeError, GradloomError, ShapeError, VerificationError
from gradloom.compiler.provenance import Provenance, current_origins
from gradloom.compiler.types import DType, TensorType, as_dtype


class Op(ABC):
    """An operation with its attributes: a frozen dataclass. `ops.base` adds gradient, NumPy reference and lowering."""

    name: ClassVar[str]
    arity: ClassVar[int | None] = 0
    """The number of operands; None if it varies, from one on."""
    registry: ClassVar[dict[str, type[Op]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            Op.registry[cls.name] = cls

    @abstractmethod
    def infer(self, *operands: TensorType) -> TensorType:
        """Return the result's type, or raise `ShapeError` or `DTypeError`: used to build nodes and to verify them."""

    def type_of(self, *operands: TensorType) -> TensorType:
        """Check the number of operands, then `infer`."""
        if len(operands) != self.arity and (self.arity is not None or not operands):
            wanted = "at least one operand" if self.arity is None else f"{self.arity} operands"
            raise ShapeError(f"Expected {wanted}. Received: {len(operands)}")
        return self.infer(*operands)

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes by name, in order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Input(Op):
    """An argument of the graph: `%0: f32[784,128] = input {label="dense/kernel", role="parameter"}`.

    `role` says who supplies it: "argument", "parameter", "state" (of layers, optimizer and metrics), "hyperparameter",
    "data" (a whole data set, open in its first axis), "indices" (the rows of this step's batch), "captured" (an array
    from outside that is too large for a literal).
    `permutation` is the order of axes in which the program wants a tensor that is stored otherwise.
    """

    name: ClassVar[str] = "input"
    label: str
    type: TensorType
    role: str = "argument"
    permutation: tuple[int, ...] = ()

    def infer(self, *operands: TensorType) -> TensorType:
        return self.type


@dataclass(frozen=True)
class Constant(Op):
    """A literal tensor, compared bit by bit: `%1: f32[] = constant {value=0.5}`."""

    name: ClassVar[str] = "constant"
    type: TensorType
    data: bytes = field(repr=False)

    def infer(self, *operands: TensorType) -> TensorType:
        if len(self.data) != self.type.nbytes:
            raise ShapeError(f"Expected {self.type.nbytes} bytes for {self.type}. Received: {len(self.data)}")
        return self.type

    @property
    def array(self) -> np.ndarray:
        """The literal as a read-only array."""
        return np.frombuffer(self.data, self.type.dtype.numpy).reshape(self.type.shape)


class Arithmetic(ABC):
    """What Python's operators on values mean; `gradloom.compiler.ops` supplies it, since the IR knows no op."""

    @abstractmethod
    def apply(self, operation: str, *operands: Any) -> Value:
        """Return the value of the Python operation ("add", "matmul", "getitem", …) on operands."""


class Value:
    """An immutable SSA value: an op instance applied to values, with its type.

    Python's operators build nodes in the value's graph. Two values are equal when they are the same node; but `==` with
    numbers, or of two values while their graph is being built, is refused: whoever writes that means the elements.
    """

    __slots__ = ("graph", "inputs", "number", "op", "type")
    arithmetic: ClassVar[Arithmetic]
    # NumPy must leave `array + value` to `Value.__radd__` instead of looping over its elements.
    __array_ufunc__ = None

    def __init__(self, graph: Graph, op: Op, inputs: tuple[Value, ...], type: TensorType, number: int) -> None:
        self.graph = graph
        self.op = op
        self.inputs = inputs
        self.type = type
        self.number = number

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return self.type.rank

    def __repr__(self) -> str:
        operands = "".join(f" %{value.number}" for value in self.inputs)
        return f"%{self.number}: {self.type} = {self.op}{operands}"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a value of rank 0")
        return self.shape[0]

    def __bool__(self) -> bool:
        raise TypeError(
            "A symbolic value has no truth value while a graph is built: use gl.ops.where(condition, x, y) "
            f"instead of `if`. Received: {self!r}"
        )

    def __iter__(self) -> Iterator[Value]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, key: Any) -> Value:
        return self.arithmetic.apply("getitem", self, key)

    def __add__(self, other: Any) -> Value:
        return self.arithmetic.apply("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.arithmetic.apply("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.arithmetic.apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.arithmetic.apply("subtract", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.arithmetic.apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.arithmetic.apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.arithmetic.apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.arithmetic.apply("divide", other, self)

    def __floordiv__(self, other: Any) -> Value:
        return self.arithmetic.apply("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Value:
        return self.arithmetic.apply("floor_divide", other, self)

    def __mod__(self, other: Any) -> Value:
        return self.arithmetic.apply("mod", self, other)

    def __rmod__(self, other: Any) -> Value:
        return self.arithmetic.apply("mod", other, self)

    def __pow__(self, other: Any) -> Value:
        return self.arithmetic.apply("power", self, other)

    def __rpow__(self, other: Any) -> Value:
        return self.arithmetic.apply("power", other, self)

    def __matmul__(self, other: Any) -> Value:
        return self.arithmetic.apply("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Value:
        return self.arithmetic.apply("matmul", other, self)

    def __neg__(self) -> Value:
        return self.arithmetic.apply("negative", self)

    def __abs__(self) -> Value:
        return self.arithmetic.apply("absolute", self)

    def __invert__(self) -> Value:
        return self.arithmetic.apply("logical_not", self)

    def __and__(self, other: Any) -> Value:
        return self.arithmetic.apply("logical_and", self, other)

    def __or__(self, other: Any) -> Value:
        return self.arithmetic.apply("logical_or", self, other)

    def __eq__(self, other: object) -> bool:
        if self is other or (isinstance(other, Value) and not self.graph is other.graph is _graph.get()):
            return self is other
        return refuse_equality(self, other, Value)

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Value:
        return self.arithmetic.apply("less", self, other)

    def __le__(self, other: Any) -> Value:
        return self.arithmetic.apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return self.arithmetic.apply("greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return self.arithmetic.apply("greater_equal", self, other)


def refuse_equality(x: object, y: object, *tensors: type) -> bool:
    """Raise `TypeError` for `x == y` or `x != y` where `y` may stand for numbers; else leave it to `y` to answer."""
    if isinstance(y, (*tensors, Number, np.ndarray, np.generic, list, tuple)):
        raise TypeError(
            "Expected gl.ops.equal(x, y) or gl.ops.not_equal(x, y), which compare elements. "
            f"Received: == or != of {x!r} and {y!r}; `is` tells whether two tensors are the same object"
        )
    unknown: bool = NotImplemented
    return unknown


@dataclass(frozen=True)
class Output:
    """A named result of a graph; `donor` is the input whose memory the result is written onto."""

    name: str
    value: Value
    donor: Value | None = None


@dataclass(frozen=True)
class Group:
    """Nodes that become one kernel: made by fusion.

    `kind` is "map", "reduce", "rows", "contraction" or "scatter"; `members` are the nodes that it computes, in order
    (a cheap node may be computed in several groups); `results` are the members that others read, kept in buffers.
    """

    name: str
    kind: str
    members: tuple[Value, ...]
    results: tuple[Value, ...]


class Graph:
    """A pure function from inputs to outputs as a list of interned nodes, in topological order.

    Nodes are added with `input`, `constant` and `apply` and never change; rewrites build a new graph.
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.stage = ""
        """What was done to it: "forward", "gradient" (nothing yet), "simplified", "fused"; "" where nobody said."""
        self.inference = False
        """Whether its weights stay as they are, so that more may be folded into them: a model's predictions."""
        self.values: list[Value] = []
        self.outputs: list[Output] = []
        self.groups: tuple[Group, ...] = ()
        self.provenance: dict[Value, frozenset[Provenance]] = {}
        self.captured: dict[str, np.ndarray] = {}
        self.gradient_rules: dict[int, GradientRule] = {}
        self._interned: dict[tuple[Any, ...], Value] = {}
        self._inputs: dict[str, Value] = {}

    @property
    def inputs(self) -> list[Value]:
        """The inputs in the order in which they were added."""
        return list(self._inputs.values())

    @property
    def labels(self) -> KeysView[str]:
        """The labels of the inputs."""
        return self._inputs.keys()

    def input(self, label: str, type: TensorType, role: str = "argument", permutation: tuple[int, ...] = ()) -> Value:
        """Add an argument, or return it if it is there; raises `VerificationError` if another one has its label."""
        return self.apply(Input(label, type, role, permutation))

    def constant(self, value: Any, dtype: DType | str | None = None) -> Value:
        """Add a literal from a Python number or an array."""
        array = np.asarray(value, dtype=None if dtype is None else as_dtype(dtype).numpy)
        type_ = TensorType(as_dtype(array.dtype), array.shape)
        return self.apply(Constant(type_, array.tobytes()))

    def capture(self, array: np.ndarray) -> Value:
        """Add an array from outside: a literal up to `CAPTURE_LIMIT` bytes, else an argument with role "captured".

        `captured` keeps a read-only copy of each such argument by its label, so that both forms hold the values that
        the array had when the graph was built.
        """
        if array.nbytes <= CAPTURE_LIMIT:
            return self.constant(array)
        label = next((label for label, known in self.captured.items() if _same(known, array)), None)
        if label is None:
            names = map("captured_{}".format, itertools.count(len(self.captured)))
            label = next(name for name in names if name not in self.labels)
            self.captured[label] = np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        return self.input(label, TensorType(as_dtype(array.dtype), array.shape), role="captured")

    def apply(self, op: Op, *inputs: Value, provenance: Iterable[Provenance] | None = None) -> Value:
        """Return the node for `op` on `inputs`: the one that is there already, or a new one.

        Raises `ShapeError` or `DTypeError`, with the op, the layer path and the user's file:line, when the op refuses
        the types. `provenance` is where the node comes from; by default the current layer and the user's line.
        """
        origins = frozenset(current_origins() if provenance is None else provenance)
        try:
            type_ = op.type_of(*(value.type for value in inputs)).checked()
        except (ShapeError, DTypeError) as error:
            where = "; ".join(sorted(str(origin) for origin in origins if str(origin)))
            operands = ", ".join(str(value.type) for value in inputs)
            message = f"{op}({operands}): {error}" + (f"  [{where}]" if where else "")
            raise type(error)(message) from None
        return self._interned_node(op, inputs, type_, origins)

    def copy(self, value: Value, *inputs: Value) -> Value:
        """Return the node for a node of another graph, of the same provenance, on `inputs` that stand for its operands.

        On operands of the same types it has the same type: nothing is inferred anew.
        """
        origins = value.graph.provenance[value]
        if any(
            new.type is not old.type and new.type != old.type for new, old in zip(inputs, value.inputs, strict=True)
        ):
            return self.apply(value.op, *inputs, provenance=origins)
        return self._interned_node(value.op, inputs, value.type, origins)

    def _interned_node(
        self, op: Op, inputs: tuple[Value, ...], type_: TensorType, origins: frozenset[Provenance]
    ) -> Value:
        for value in inputs:
            if value.graph is not self:
                raise VerificationError(f"{op}: operand {value!r} belongs to another graph than {self.name!r}")
        key = (op, tuple(value.number for value in inputs), type_)
        if (value_ := self._interned.get(key)) is None:
            value_ = Value(self, op, inputs, type_, len(self.values))
            if isinstance(op, Input) and (known := self._inputs.setdefault(op.label, value_)) is not value_:
                raise VerificationError(
                    f"graph {self.name!r}: Expected inputs of different labels. Received: another {op.label!r}, "
                    f"{op.type} beside {known.type}"
                )
            self.values.append(value_)
            self._interned[key] = value_
            self.provenance[value_] = origins
        else:
            self.provenance[value_] |= origins
        return value_

    def output(self, name: str, value: Value, donor: Value | None = None) -> None:
        """Add a result; `donor` is the input onto whose memory it may be written."""
        if donor is not None and donor.type != value.type:
            raise VerificationError(f"output {name!r} of type {value.type} cannot be written onto {donor!r}")
        self.outputs.append(Output(name, value, donor))

    def live(self) -> list[Value]:
        """All inputs, and the nodes that outputs need, in topological order."""
        needed = {output.value for output in self.outputs}
        for value in reversed(self.values):
            if value in needed:
                needed.update(value.inputs)
        return [value for value in self.values if value in needed or isinstance(value.op, Input)]

    def rebuild(self, name: str | None = None) -> tuple[Graph, dict[Value, Value]]:
        """Return a copy without dead nodes, and the map from old nodes to new ones."""
        copy = Graph(name or self.name)
        copy.stage, copy.inference = self.stage, self.inference
        copy.captured = dict(self.captured)
        new: dict[Value, Value] = {}
        for value in self.live():
            new[value] = copy.copy(value, *(new[v] for v in value.inputs))
        copy.outputs = [
            Output(out.name, new[out.value], None if out.donor is None else new[out.donor]) for out in self.outputs
        ]
        copy.groups = tuple(
            Group(g.name, g.kind, tuple(new[v] for v in g.members), tuple(new[v] for v in g.results))
            for g in self._live_groups(new)
        )
        return copy, new

    def _live_groups(self, live: Container[Value]) -> Iterator[Group]:
        """The groups without dead nodes, and without those that only had such: a text may say what nothing needs."""
        for group in self.groups:
            if results := tuple(value for value in group.results if value in live):
                yield replace(group, members=tuple(value for value in group.members if value in live), results=results)

    def users(self) -> Mapping[Value, list[Value]]:
        """For each live node the live nodes that read it (an output is no user)."""
        users: dict[Value, list[Value]] = {value: [] for value in self.live()}
        for value in users:
            for operand in dict.fromkeys(value.inputs):
                users[operand].append(value)
        return users

    def key(self) -> tuple[Any, ...]:
        """The graph's identity: its live nodes and outputs by number, without names of files and layers."""
        number = {value: position for position, value in enumerate(self.live())}
        nodes = tuple((value.op, tuple(number[v] for v in value.inputs), value.type) for value in number)
        outputs = tuple(
            (out.name, number[out.value], None if out.donor is None else number[out.donor]) for out in self.outputs
        )
        groups = tuple(
            (g.name, g.kind, tuple(number[v] for v in g.members), tuple(number[v] for v in g.results))
            for g in self._live_groups(number)
        )
        return (self.name, nodes, outputs, groups)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def verify(self) -> None:
        """Check order, ownership and types of every node; raise `VerificationError` naming the first bad one."""
        seen: set[Value] = set()
        for value in self.values:
            try:
                if value.graph is not self or any(operand not in seen for operand in value.inputs):
                    raise VerificationError("reads a node that does not come before it")
                inferred = value.op.type_of(*(operand.type for operand in value.inputs))
                if inferred != value.type:
                    raise VerificationError(f"has type {value.type}, but its op infers {inferred}")
            except GradloomError as error:
                around = self.values[max(0, value.number - 3) : value.number + 4]
                raise VerificationError(f"{value!r}: {error}\naround it:\n" + "\n".join(map(repr, around))) from None
            seen.add(value)
        for output in self.outputs:
            if output.value not in seen:
                raise VerificationError(f"output {output.name!r} is no node of graph {self.name!r}")

    def __str__(self) -> str:
        from gradloom.compiler.ir_text import print_graph  # the printer reads graphs, so it imports this module

        return print_graph(self)


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether arrays are equal bit by bit."""
    return (x.dtype, x.shape) == (y.dtype, y.shape) and x.tobytes() == y.tobytes()


GradientRule = Callable[[Value], "Sequence[Value | None]"]
"""From the cotangent of a result to the cotangents of the arguments of a function with a gradient of its own."""

FORWARD, GRADIENT, SIMPLIFIED, FUSED = GRAPH_STAGES = ("forward", "gradient", "simplified", "fused")
"""The stages that are graphs, in order."""

CAPTURE_LIMIT = 1024
"""Bytes up to which an array from outside becomes a literal: a larger one would be compiled into the program."""


_graph: ContextVar[Graph | None] = ContextVar("graph", default=None)


@contextmanager
def building(graph: Graph) -> Iterator[Graph]:
    """Make `graph` the one that functions without a symbolic operand (`gl.ops.zeros`) add to."""
    token = _graph.set(graph)
    try:
        yield graph
    finally:
        _graph.reset(token)


def current_graph() -> Graph | None:
    """The graph that is being built, if any."""
    return _graph.get()
