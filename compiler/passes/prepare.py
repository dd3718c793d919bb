"""The prepare split: what depends on parameters alone is computed once per set of weights, not in every step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ops.base import Movement
from gradloom.compiler.ops.movement import Reshape, Transpose
from gradloom.compiler.passes.algorithms import with_algorithms
from gradloom.compiler.passes.fixed import changes_inputs, fixed_values
from gradloom.compiler.passes.rewrite import Firing, Rewritten, unchanged
from gradloom.compiler.program import Argument


@dataclass(frozen=True)
class Split:
    """A graph in two parts: what is computed once per set of weights, if there is such, and what reads its results.

    `main` is the rewriting of the graph that came in; what has gone to `prepare` has no image, but for what is read.
    """

    prepare: Graph | None
    main: Rewritten


PREPARED = "prepared"
"""The role of the inputs that the prepare program supplies."""


def split_prepare(graph: Graph, choices: Choices = NO_CHOICES) -> tuple[Graph | None, Graph]:
    """Return the prepare graph, None if there is nothing to prepare, and the graph that reads its results.

    The prepare graph's outputs have the labels of the other graph's inputs of role "prepared". Folded batch
    normalization is the case in point: a convolution's scaled kernel and its bias follow from six parameters. `graph`
    must leave its parameters as they are; a graph that writes onto one is returned whole. Algorithms are chosen before,
    so that kernels are transformed once, too; `choices` come before the cost model's own.
    """
    parts = split(graph, choices)
    return parts.prepare, parts.main.graph


def split(graph: Graph, choices: Choices = NO_CHOICES) -> Split:
    """Return what `split_prepare` does, with the rules that applied and what each node became."""
    if changes_inputs(graph):
        return Split(None, unchanged(graph))
    chosen = with_algorithms(graph, choices)
    graph = chosen.graph
    fixed = fixed_values(graph)
    wanted = [value for value in _read_by_the_rest(graph, fixed) if _is_work(value)]
    if not wanted:
        return Split(None, chosen)
    prepare, main = Graph(f"{graph.name}_prepare"), Graph(graph.name)
    prepare.captured, main.captured = dict(graph.captured), dict(graph.captured)
    inside: dict[Value, Value] = {}
    outside: dict[Value, Value] = {}
    labels = {value: f"{PREPARED}/{number}" for number, value in enumerate(wanted)}
    for value in graph.live():
        if value in fixed:
            inside[value] = prepare.copy(value, *(inside[v] for v in value.inputs))
        if value in labels:
            input_ = Input(labels[value], value.type, PREPARED)
            outside[value] = main.apply(input_, provenance=graph.provenance[value])
        elif all(operand in outside for operand in value.inputs):
            outside[value] = main.copy(value, *(outside[v] for v in value.inputs))
    for output in graph.outputs:
        main.output(output.name, outside[output.value])
    for value, label in labels.items():
        prepare.output(label, inside[value])
    prepare, _ = _without_unread_inputs(prepare)
    main, kept = _without_unread_inputs(main)
    firings = [Firing("split_prepare", value, outside[value]) for value in labels if value in outside]
    image = {old: kept[new] for old, new in outside.items() if new in kept}
    return Split(prepare, chosen.then(Rewritten(main, firings, image)))


def as_stored(prepare: Graph, arguments: Iterable[Argument]) -> Graph:
    """The prepare graph with its results in the order in which the other program's `arguments` lie in memory.

    Each result is brought into order as soon as it is there, not after all others: its own memory serves the next one.
    """
    result = Graph(prepare.name)
    result.captured = dict(prepare.captured)
    wanted = {argument.name: argument for argument in arguments if argument.role == PREPARED}
    names: dict[Value, list[str]] = {}
    for output in prepare.outputs:
        names.setdefault(output.value, []).append(output.name)
    new: dict[Value, Value] = {}
    stored: dict[str, Value] = {}
    for value in prepare.live():
        new[value] = result.copy(value, *(new[operand] for operand in value.inputs))
        for name in names.get(value, ()):
            stored[name] = _stored(result, new[value], wanted[name])
    for output in prepare.outputs:
        result.output(output.name, stored[output.name])
    return result


def _stored(graph: Graph, value: Value, argument: Argument) -> Value:
    """Add what brings a result into the order of an argument."""
    if argument.permutation:
        value = graph.apply(Transpose(argument.permutation), value)
    if argument.panel:
        *leading, columns = value.shape
        value = graph.apply(Reshape((*leading, columns // argument.panel, argument.panel)), value)
        axes = len(leading)
        value = graph.apply(Transpose((axes, *range(axes), axes + 1)), value)
    return value


def _read_by_the_rest(graph: Graph, fixed: set[Value]) -> list[Value]:
    """The fixed values that others, or the caller, read."""
    read = {operand for value in graph.live() if value not in fixed for operand in value.inputs if operand in fixed}
    read |= {output.value for output in graph.outputs if output.value in fixed}
    return sorted(read, key=lambda value: value.number)


def _is_work(value: Value) -> bool:
    """Whether a value takes more than a look at a parameter from another side."""
    if isinstance(value.op, Input | Constant):
        return False
    return not isinstance(value.op, Movement) or any(_is_work(operand) for operand in value.inputs)


def _without_unread_inputs(graph: Graph) -> tuple[Graph, dict[Value, Value]]:
    """The graph without inputs that none of its outputs needs, and what its nodes became."""
    needed = {output.value for output in graph.outputs}
    for value in reversed(graph.values):
        if value in needed:
            needed.update(value.inputs)
    result = Graph(graph.name)
    result.captured = dict(graph.captured)
    new: dict[Value, Value] = {}
    for value in graph.values:
        if value in needed:
            new[value] = result.copy(value, *(new[v] for v in value.inputs))
    for output in graph.outputs:
        result.output(output.name, new[output.value])
    return result, new
