"""Steps to plainer graphs: each yields candidates that have less of something, so that taking them comes to an end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradloom.compiler.ir import Constant, Graph, Input, Op, Value
from gradloom.compiler.reducer.rebuilding import Rebuilding, computed, own_name, without_unread
from gradloom.compiler.reducer.sizes import smaller_sizes
from gradloom.compiler.types import OPEN


def _one_program(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A graph of which nothing is said but what it computes."""
    if graph.stage or graph.inference:
        candidate, _ = graph.rebuild()
        candidate.stage, candidate.inference = "", False
        yield "forgot its stage", candidate


def _fewer_outputs(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """One output less; one that is written onto no input."""
    for place, output in enumerate(graph.outputs):
        if len(graph.outputs) > 1:
            candidate, _ = graph.rebuild()
            del candidate.outputs[place]
            yield f"left out output {output.name!r}", without_unread(graph, candidate)
    for place, output in enumerate(graph.outputs):
        if output.donor is not None:
            candidate, _ = graph.rebuild()
            name = own_name(graph, output)
            candidate.outputs[place] = replace(candidate.outputs[place], name=name, donor=None)
            yield f"wrote {output.name!r} into an array of its own", without_unread(graph, candidate)


def _bypassed(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A node's operand of the same type in its place."""
    for value in reversed(computed(graph)):
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
        build = Rebuilding.of(graph)
        for node in graph.live():
            build.image[node] = build.stand_in(node) if node is value else build.keep(node)
        yield f"made constant %{value.number} an input", build.finish()
        if any(value.op.data):
            zeros = Constant(value.type, bytes(len(value.op.data)))
            yield f"made constant %{value.number} zero", _with_op(graph, value, zeros)


def _replaced(graph: Graph, value: Value, by: Value) -> Graph:
    """The graph with a node that comes before in the place of another."""
    build = Rebuilding.of(graph)
    for node in graph.live():
        build.image[node] = build.image[by] if node is value else build.keep(node)
    return build.finish()


def _with_op(graph: Graph, value: Value, op: Op) -> Graph:
    """The graph with another leaf of the same type in the place of one."""
    build = Rebuilding.of(graph)
    for node in graph.live():
        build.image[node] = build.new.apply(op, provenance=()) if node is value else build.keep(node)
    return build.finish()


def _label(value: Value) -> str:
    assert isinstance(value.op, Input)
    return value.op.label


PLAINER = (
    _one_program,
    _fewer_outputs,
    _bypassed,
    _merged_inputs,
    _plain_inputs,
    _without_constants,
    smaller_sizes,
)
"""The kinds of steps that follow when no node can be left out, in the order in which they are tried."""
