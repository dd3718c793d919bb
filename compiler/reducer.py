"""Delta debugging of graphs: from a graph that fails a check to a small one that still fails it.

A subset of a graph's nodes is a graph again: operands outside of it become inputs, and nodes that nobody inside reads
become outputs. So any subset is well typed, and the classic algorithm (Zeller and Hildebrandt, "Simplifying and
isolating failure-inducing input", 2002) finds one from which no node can be left out. What is left is made plainer in
turn: fewer outputs, values passed by, inputs that are one, constants that are inputs, smaller sizes.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.ir import Constant, Graph, Input, Op, Output, Value
from gradloom.compiler.ir_text import print_graph
from gradloom.compiler.ops.movement import Reshape
from gradloom.compiler.types import OPEN, TensorType

Fails = Callable[[Graph], bool]
Note = Callable[[str, Graph, bool], None]
"""Told of each graph that was tried: the step that led to it, the graph, and whether it still fails."""

MADE = "cut"
"""What inputs are called that stand for nodes left out: `cut_7` for %7 of the graph they were found in."""


class OutOfTimeError(Exception):
    """The time for a reduction is over."""


def reduce(graph: Graph, fails: Fails, seconds: float | None = None, note: Note | None = None) -> Graph:
    """Return a small graph for which `fails` still holds: no node of it can be left out, no size made smaller.

    `fails` is asked once for each different graph, and must answer the same for equal ones. `note` is called after each
    try, so that a caller who breaks off has the smallest graph so far. After `seconds` that one is returned. Raises
    `ValueError` if `fails` does not hold for `graph` itself. A fused graph loses its kernels first: it must fail
    without them, too.
    """
    whole, _ = graph.rebuild()
    whole.groups = ()
    search = _Search(fails, None if seconds is None else time.monotonic() + seconds, note)
    if not search.accepts(whole, "the graph as it is"):
        without = " without its kernels" if graph.groups else ""
        raise ValueError(f"Expected a graph that fails the check. Received: {graph.name!r}, which{without} does not")
    with suppress(OutOfTimeError):
        search.run()
    return search.best


class _Search:
    """The smallest failing graph so far, and the graphs that were tried."""

    def __init__(self, fails: Fails, deadline: float | None, note: Note | None) -> None:
        self.best = Graph()
        self._fails = fails
        self._deadline = deadline
        self._note = note
        self._tried: set[bytes] = set()

    def accepts(self, candidate: Graph, step: str) -> bool:
        """Whether a graph that was not tried before fails; then it is the best."""
        text = hashlib.sha256(print_graph(candidate, comments=False).encode()).digest()
        if text in self._tried or not candidate.outputs:
            return False
        if self._deadline is not None and time.monotonic() > self._deadline and self._tried:
            raise OutOfTimeError
        self._tried.add(text)
        fails = self._fails(candidate)
        if fails:
            self.best = candidate
        if self._note is not None:
            self._note(step, candidate, fails)
        return fails

    def run(self) -> None:
        """Take steps of each kind until none of any kind succeeds."""
        while True:
            before = self.best
            self._drop_nodes()
            for plainer in (_fewer_outputs, _bypassed, _merged_inputs, _plain_inputs, _without_constants, _smaller):
                self._exhaust(plainer)
            if self.best is before:
                return

    def _exhaust(self, candidates: Callable[[Graph], Iterator[tuple[str, Graph]]]) -> None:
        """Take the first candidate that fails, again and again."""
        while any(self.accepts(candidate, step) for step, candidate in candidates(self.best)):
            pass

    def _drop_nodes(self) -> None:
        """Keep one run of nodes, or leave one out: in ever shorter runs, down to single nodes."""
        parts = 2
        while len(nodes := _computed(self.best)) > 1:
            parts = min(parts, len(nodes))
            bounds = [len(nodes) * part // parts for part in range(parts + 1)]
            runs = [set(nodes[low:high]) for low, high in pairwise(bounds)]
            total = len(nodes)
            if any(self.accepts(_subset(self.best, run), f"kept {len(run)} of {total} nodes") for run in runs):
                parts = 2
            elif any(
                self.accepts(_subset(self.best, set(nodes) - run), f"left out {len(run)} of {total} nodes")
                for run in runs
            ):
                parts = max(parts - 1, 2)
            elif parts < total:
                parts *= 2
            else:
                return


def _computed(graph: Graph) -> list[Value]:
    """The nodes that are computed: neither inputs nor constants."""
    return [value for value in graph.live() if not isinstance(value.op, Input | Constant)]


@dataclass
class _Rebuilding:
    """A new graph, and what stands in it for the nodes of the old one."""

    old: Graph
    new: Graph
    image: dict[Value, Value]

    @classmethod
    def of(cls, graph: Graph) -> _Rebuilding:
        return cls(graph, Graph(graph.name), {})

    def stand_in(self, value: Value) -> Value:
        """A new input in the place of a node."""
        label = f"{MADE}_{value.number}"
        while label in self.old.labels or label in self.new.labels:
            label += "_"
        return self.new.input(label, value.type)

    def keep(self, value: Value) -> Value:
        """The node itself, on what stands for its operands."""
        return self.new.copy(value, *(self.image[operand] for operand in value.inputs))

    def finish(self) -> Graph:
        """Add the old outputs; drop what nobody reads."""
        for output in self.old.outputs:
            self.output(output)
        return _without_unread(self.old, self.new)

    def output(self, output: Output) -> None:
        """Add what stands for an old output, written onto its donor where that is still an input of its type."""
        value, donor = self.image[output.value], None if output.donor is None else self.image[output.donor]
        if donor is not None and isinstance(donor.op, Input) and donor.type == value.type:
            self.new.output(output.name, value, donor)
        else:
            self.new.output(_own_name(self.old, output), value)


def _without_unread(old: Graph, new: Graph) -> Graph:
    """The new graph without inputs and nodes that no output needs, and with what the old one captured for the rest."""
    needed = {output.value for output in new.outputs} | {
        output.donor for output in new.outputs if output.donor is not None
    }
    for value in reversed(new.values):
        if value in needed:
            needed.update(value.inputs)
    result, image = Graph(new.name), {}
    for value in new.values:
        if value in needed:
            image[value] = result.copy(value, *(image[operand] for operand in value.inputs))
    for output in new.outputs:
        result.output(output.name, image[output.value], None if output.donor is None else image[output.donor])
    result.captured = {label: array for label, array in old.captured.items() if label in result.labels}
    return result


def _subset(graph: Graph, kept: Collection[Value]) -> Graph:
    """The graph of some nodes: results are the old ones among them, and those that no other one reads."""
    build = _Rebuilding.of(graph)
    read: set[Value] = set()
    for value in graph.live():
        if value in kept or isinstance(value.op, Input | Constant):
            build.image[value] = build.keep(value)
            read.update(value.inputs)
        else:
            build.image[value] = build.stand_in(value)
    given = {output.value for output in graph.outputs}
    for output in graph.outputs:
        if output.value in kept or isinstance(output.value.op, Input | Constant):
            build.output(output)
    for value in graph.live():
        if value in kept and value not in read and value not in given:
            build.new.output(_free_name(f"end_{value.number}", graph), build.image[value])
    return _without_unread(graph, build.new)


def _own_name(graph: Graph, output: Output) -> str:
    """The name of an output that is no longer written onto an input: arguments have different names."""
    return _free_name(f"new_{output.name}", graph) if output.name in graph.labels else output.name


def _free_name(name: str, graph: Graph) -> str:
    taken = {output.name for output in graph.outputs}
    while name in taken:
        name += "_"
    return name


# Each of these yields candidates that are plainer than the graph by some measure, so that taking them comes to an end.


def _fewer_outputs(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """One output less; one that is written onto no input."""
    for place, output in enumerate(graph.outputs):
        if len(graph.outputs) > 1:
            candidate, _ = graph.rebuild()
            del candidate.outputs[place]
            yield f"left out output {output.name!r}", _without_unread(graph, candidate)
    for place, output in enumerate(graph.outputs):
        if output.donor is not None:
            candidate, _ = graph.rebuild()
            name = _own_name(graph, output)
            candidate.outputs[place] = replace(candidate.outputs[place], name=name, donor=None)
            yield f"wrote {output.name!r} into an array of its own", _without_unread(graph, candidate)


def _bypassed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A node's operand of the same type in its place."""
    for value in reversed(_computed(graph)):
        for operand in dict.fromkeys(value.inputs):
            if operand.type == value.type:
                yield f"passed {value.op} by", _replaced(graph, value, operand)


def _merged_inputs(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """An earlier input of the same type in the place of a later one."""
    inputs = graph.inputs
    for place, value in enumerate(inputs):
        for earlier in inputs[:place]:
            if earlier.type == value.type:
                yield f"made {_label(value)!r} and {_label(earlier)!r} one", _replaced(graph, value, earlier)


def _plain_inputs(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """An input that is just an argument, in the order in which it is stored."""
    for value in graph.inputs:
        op = value.op
        assert isinstance(op, Input)
        plain = Input(op.label, op.type)
        if op != plain and OPEN not in op.type.shape:
            yield f"made {op.label!r} an argument", _with_op(graph, value, plain)


def _without_constants(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """An input in the place of a constant; zeros in the place of other numbers."""
    for value in graph.live():
        if not isinstance(value.op, Constant):
            continue
        build = _Rebuilding.of(graph)
        for node in graph.live():
            build.image[node] = build.stand_in(node) if node is value else build.keep(node)
        yield f"made constant %{value.number} an input", build.finish()
        if any(value.op.data):
            zeros = Constant(value.type, bytes(len(value.op.data)))
            yield f"made constant %{value.number} zero", _with_op(graph, value, zeros)


def _replaced(graph: Graph, value: Value, by: Value) -> Graph:
    """The graph with a node that comes before in the place of another."""
    build = _Rebuilding.of(graph)
    for node in graph.live():
        build.image[node] = build.image[by] if node is value else build.keep(node)
    return build.finish()


def _with_op(graph: Graph, value: Value, op: Op) -> Graph:
    """The graph with another leaf of the same type in the place of one."""
    build = _Rebuilding.of(graph)
    for node in graph.live():
        build.image[node] = build.new.apply(op, provenance=()) if node is value else build.keep(node)
    return build.finish()


def _label(value: Value) -> str:
    assert isinstance(value.op, Input)
    return value.op.label


# sizes


def _smaller(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A smaller size, everywhere where a size occurs, or on one axis of one input, where all ops accept it."""
    leaves = [value for value in graph.live() if isinstance(value.op, Input | Constant)]
    sizes = sorted({size for value in graph.live() for size in value.shape if size > 1}, reverse=True)
    for size in sizes:
        for smaller in _less_than(size):
            yield from _shrunk(graph, dict.fromkeys(leaves), size, smaller)
    for value in leaves:
        for axis, size in enumerate(value.shape):
            for smaller in _less_than(size):
                yield from _shrunk(graph, {value: axis}, size, smaller)


def _less_than(size: int) -> list[int]:
    """Smaller sizes to try: the smallest first."""
    return sorted({1, 2, size // 2, size - 1} & set(range(1, size)))


def _shrunk(graph: Graph, leaves: dict[Value, int | None], size: int, smaller: int) -> Iterator[tuple[str, Graph]]:
    """The graph with a size of some leaves made smaller (on the axis given, or on each that has it), if that is one.

    Attributes that hold sizes (a reshape's, a slice's end) follow where they must, or all of them; and what has several
    times the size follows too, or does not.
    """
    for multiples in (False, True):
        for eagerly in (False, True):
            build = _Rebuilding.of(graph)
            resize = _Resize(size, smaller, multiples)
            try:
                for value in graph.live():
                    if value in leaves:
                        build.image[value] = build.new.apply(_resized_leaf(value, leaves[value], resize), provenance=())
                    else:
                        operands = [build.image[operand] for operand in value.inputs]
                        build.image[value] = _applied(build.new, value, operands, resize, eagerly)
                candidate = build.finish()
            except (GradloomError, ValueError, TypeError, IndexError, ZeroDivisionError):
                continue  # Ops refuse types and attributes that don't fit in various ways.
            if _elements(candidate) < _elements(graph):
                yield f"made a size of {size} one of {smaller}", candidate


@dataclass(frozen=True)
class _Resize:
    """From a size to a smaller one."""

    size: int
    smaller: int
    multiples: bool

    def __call__(self, number: int) -> int:
        if number == self.size:
            return self.smaller
        if self.multiples and number > 0 and number % self.size == 0:
            return number // self.size * self.smaller
        return number

    def shape(self, shape: tuple[int, ...], axis: int | None = None) -> tuple[int, ...]:
        return tuple(self(n) if axis is None or place == axis else n for place, n in enumerate(shape))


def _resized_leaf(value: Value, axis: int | None, resize: _Resize) -> Op:
    type_ = TensorType(value.dtype, resize.shape(value.shape, axis))
    if isinstance(value.op, Constant):
        return Constant(type_, value.op.array[tuple(map(slice, type_.shape))].tobytes())
    assert isinstance(value.op, Input)
    return replace(value.op, type=type_)


def _applied(graph: Graph, value: Value, operands: list[Value], resize: _Resize, eagerly: bool) -> Value:
    """The node on resized operands, with its attributes as they are or, where it refuses those, resized."""
    op = value.op
    changes = {name: _resized_attribute(given, resize) for name, given in op.attributes.items()}
    resized = replace(op, **changes)  # type: ignore[type-var]
    candidates = [resized, op] if eagerly else [op, resized]
    if isinstance(op, Reshape):
        candidates.append(Reshape(_refitted(op.shape, operands[0].type.size)))
    for candidate in candidates:
        try:
            return graph.apply(candidate, *operands, provenance=value.graph.provenance[value])
        except GradloomError:
            continue
    return graph.apply(op, *operands)


def _refitted(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """A shape with its axes divided, the first ones first, so that it holds `size` elements, if that can be."""
    surplus = math.prod(shape) // max(size, 1)
    sizes = []
    for axis in shape:
        divisor = math.gcd(axis, surplus)
        sizes.append(axis // divisor)
        surplus //= divisor
    return tuple(sizes)


def _resized_attribute(given: object, resize: _Resize) -> object:
    if isinstance(given, TensorType):
        return TensorType(given.dtype, resize.shape(given.shape))
    if isinstance(given, tuple) and all(isinstance(number, int) for number in given):
        return resize.shape(given)
    if isinstance(given, int) and not isinstance(given, bool):
        return resize(given)
    return given


def _elements(graph: Graph) -> int:
    return sum(value.type.size for value in graph.live())
