"""Graphs made from others: with some nodes only, and with something else in the place of a node."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gradloom.compiler.ir import Constant, Graph, Input, Output, Value

MADE = "cut"
"""What inputs are called that stand for nodes left out: `cut_7` for %7 of the graph they were found in."""


def computed(graph: Graph) -> list[Value]:
    """The nodes that are computed: neither inputs nor constants."""
    return [value for value in graph.live() if not isinstance(value.op, Input | Constant)]


@dataclass
class Rebuilding:
    """A new graph, and what stands in it for the nodes of the old one."""

    old: Graph
    new: Graph
    image: dict[Value, Value]

    @classmethod
    def of(cls, graph: Graph) -> Rebuilding:
        return cls(graph, _like(graph), {})

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
        return without_unread(self.old, self.new)

    def output(self, output: Output) -> None:
        """Add what stands for an old output, written onto its donor where that is still an input of its type."""
        value, donor = self.image[output.value], None if output.donor is None else self.image[output.donor]
        if donor is not None and isinstance(donor.op, Input) and donor.type == value.type:
            self.new.output(output.name, value, donor)
        else:
            self.new.output(own_name(self.old, output), value)


def without_unread(old: Graph, new: Graph) -> Graph:
    """The new graph without inputs and nodes that no output needs, and with what the old one captured for the rest."""
    needed = {output.value for output in new.outputs} | {
        output.donor for output in new.outputs if output.donor is not None
    }
    for value in reversed(new.values):
        if value in needed:
            needed.update(value.inputs)
    result = _like(new)
    image: dict[Value, Value] = {}
    for value in new.values:
        if value in needed:
            image[value] = result.copy(value, *(image[operand] for operand in value.inputs))
    for output in new.outputs:
        result.output(output.name, image[output.value], None if output.donor is None else image[output.donor])
    result.captured = {label: array for label, array in old.captured.items() if label in result.labels}
    return result


def _like(graph: Graph) -> Graph:
    """An empty graph for nodes of this one."""
    empty = Graph(graph.name)
    empty.stage, empty.inference = graph.stage, graph.inference
    return empty


def subset(graph: Graph, kept: Collection[Value]) -> Graph:
    """The graph of some nodes: results are the old ones among them, and those that no other one reads."""
    build = Rebuilding.of(graph)
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
    return without_unread(graph, build.new)


def own_name(graph: Graph, output: Output) -> str:
    """The name of an output that is no longer written onto an input: arguments have different names."""
    return _free_name(f"new_{output.name}", graph) if output.name in graph.labels else output.name


def _free_name(name: str, graph: Graph) -> str:
    taken = {output.name for output in graph.outputs}
    while name in taken:
        name += "_"
    return name
