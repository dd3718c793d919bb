"""Why a layer or an op was fused the way it was: the decisions that touch it, made and refused, with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from difflib import get_close_matches
from html import escape

from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ir_text import layer_paths
from gradloom.compiler.ops.base import Movement
from gradloom.compiler.passes.fuse import Decision
from gradloom.compiler.passes.rewrite import Firing
from gradloom.compiler.pipeline import Lowering


@dataclass(frozen=True, repr=False)
class Why:
    """What was decided about `target`.

    `nodes` are those that it stands for in the stage `fused`, `kernels` the names of the groups that compute them,
    `decisions` those of fusion, and `rules` how often each rule applied to nodes of it before.
    """

    target: str
    nodes: tuple[Value, ...]
    kernels: tuple[str, ...]
    decisions: tuple[Decision, ...]
    rules: dict[str, int]

    @property
    def made(self) -> list[Decision]:
        """The decisions by which nodes were fused."""
        return [decision for decision in self.decisions if decision.fused]

    @property
    def refused(self) -> list[Decision]:
        """The decisions by which nodes stayed apart."""
        return [decision for decision in self.decisions if not decision.fused]

    def _head(self) -> str:
        return f"{self.target}: {_counted(self.nodes, 'node')} in {_counted(self.kernels, 'kernel')}"

    def text(self) -> str:
        """Return kernels, decisions and rules as text."""
        lines = [self._head()]
        lines += [f"  {name}" for name in self.kernels]
        for heading, decisions in (("fused", self.made), ("kept apart", self.refused)):
            if decisions:
                lines += [f"{heading}:", *(f"  {decision}" for decision in decisions)]
        if self.rules:
            lines.append("rules that applied before:")
            lines += [f"  {rule}" + (f" ({count} times)" if count > 1 else "") for rule, count in self.rules.items()]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<why {self._head()}, {len(self.made):,} decisions to fuse and {len(self.refused):,} to keep apart>"

    def _repr_html_(self) -> str:
        return f"<pre style='overflow:auto'>{escape(self.text())}</pre>"


def _counted(things: Sized, noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def why(lowering: Lowering, firings: Iterable[Firing], target: str) -> Why:
    """Find the decisions that touch `target`: see `Inspection.why`."""
    graph = lowering.fused
    nodes = _matching(graph, target)
    numbers = {value.number for value in nodes}
    kernels = [group.name for group in graph.groups if any(member in nodes for member in group.members)]
    touching = [d for d in lowering.decisions if d.node.number in numbers or d.partner.number in numbers]
    rules = Counter(
        firing.rule
        for firing in firings
        if any(_is_within(origin.layer, target) for origin in firing.before.graph.provenance.get(firing.before, ()))
        or firing.before.op.name == target
    )
    return Why(target, tuple(nodes), tuple(dict.fromkeys(kernels)), tuple(touching), dict(rules))


def _matching(graph: Graph, target: str) -> list[Value]:
    """The nodes that a path, a weight's label, an op's name or a number stands for; of a weight those that read it."""
    found = {value for value in graph.live() if isinstance(target, str) and _stands_for(graph, value, target)}
    if not found:
        known = _names(graph)
        near = get_close_matches(str(target), known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {', '.join(known[:12])} and others"
        )
        raise ValueError(
            "Expected the path of a layer or weight, the name of an op, or a node such as '%3'. "
            f"Received: {target!r} ({hint})"
        )
    for value in graph.live():
        # A weight may be read through a view of it.
        if any(isinstance(operand.op, Input | Movement) and operand in found for operand in value.inputs):
            found.add(value)
    return sorted(found, key=lambda value: value.number)


def _stands_for(graph: Graph, value: Value, target: str) -> bool:
    if isinstance(value.op, Input):
        return any(_is_within(path, target) for path in _input_paths(graph, value))
    if isinstance(value.op, Constant):
        return False
    named = target in (value.op.name, f"%{value.number}")
    return named or any(_is_within(path, target) for path in layer_paths(graph, value))


def _input_paths(graph: Graph, value: Value) -> list[str]:
    """What an input is called: its label, and where its layer is inside of others, also the path from outside."""
    assert isinstance(value.op, Input)
    owner, _, name = value.op.label.rpartition("/")
    outer = [path for path in layer_paths(graph, value) if owner and path.endswith(f"/{owner}")]
    return [value.op.label, *(f"{path}/{name}" for path in outer)]


def _is_within(path: str, target: str) -> bool:
    """Whether `target` is a path, or the beginning of one."""
    return f"{path}/".startswith(f"{target}/")


def _names(graph: Graph) -> list[str]:
    """All that may be asked about, but for nodes by number."""
    live = graph.live()
    paths = {path: None for value in live for path in layer_paths(graph, value)}
    labels = {_input_paths(graph, value)[-1]: None for value in live if isinstance(value.op, Input)}
    ops = {value.op.name: None for value in live if not isinstance(value.op, Input | Constant)}
    return list(paths | labels | ops)
