"""The rewriting engine: rebuilds a graph bottom-up under local rules, again and again until none applies."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.ir import Graph, Output, Value
from gradloom.compiler.provenance import origin_scope

MAX_SWEEPS = 100
"""Sweeps over a graph before the rules are held to contradict each other. A chain of n moves takes at most n sweeps."""


class Draft(Graph):
    """The graph that a sweep builds: it knows how many readers a value had before."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._readers: Counter[Value] = Counter()

    def shared(self, value: Value) -> bool:
        """Whether more than one node or output read `value` before: a rule that makes a variant of it saves nothing."""
        return self._readers[value] > 1

    def add_readers(self, value: Value, count: int) -> None:
        """Note that `value` stands for a node that `count` nodes and outputs read."""
        self._readers[value] += count


@dataclass(frozen=True)
class Rule:
    """A local equation: `apply` returns the value that replaces a node of one of `ops`, or None to leave it.

    The node's operands are rewritten already. A rule adds nodes to the draft and changes none.
    """

    name: str
    equation: str
    ops: tuple[type, ...]
    apply: Callable[[Draft, Value], Value | None]


def rule_on(*ops: type) -> Callable[[Callable[[Draft, Value], Value | None]], Rule]:
    """Make a function `(draft, value) -> value or None` the rule of its name, tried on nodes whose op is one of `ops`.

    The function's docstring is the rule's equation; it says for which special values the equation does not hold.
    """

    def decorate(function: Callable[[Draft, Value], Value | None]) -> Rule:
        return Rule(function.__name__, inspect.cleandoc(function.__doc__ or ""), ops, function)

    return decorate


@dataclass(frozen=True)
class Firing:
    """One application of a rule: the node it found and the node it left, both of the draft of that sweep.

    Passes that are no sets of rules leave firings too, of the pass's name, from a node before to the one after it.
    """

    rule: str
    before: Value
    after: Value

    def __str__(self) -> str:
        return f"{self.rule}: {self.before!r}  →  {self.after!r}"


@dataclass(frozen=True)
class Rewritten:
    """What rewriting a graph gave.

    `image` maps the nodes of the graph that came in to the nodes of `graph` that stand for them; nodes that nobody
    reads any more have none. `firings` are the applications of rules, in order.
    """

    graph: Graph
    firings: list[Firing] = field(default_factory=list)
    image: dict[Value, Value] = field(default_factory=dict)

    def then(self, later: Rewritten) -> Rewritten:
        """Both rewritings as one: `later` began with the graph that this one gave."""
        image = {old: later.image[new] for old, new in self.image.items() if new in later.image}
        return Rewritten(later.graph, [*self.firings, *later.firings], image)


def unchanged(graph: Graph) -> Rewritten:
    """A graph that was left as it is."""
    return Rewritten(graph, [], {value: value for value in graph.live()})


def rewrite(graph: Graph, rules: Sequence[Rule]) -> Rewritten:
    """Apply `rules` to `graph` until none applies, and return the new graph; `graph` itself stays as it is.

    Inputs, names of outputs and donors are kept, dead nodes vanish, and a node that replaces others carries the union
    of their provenance. Raises `VerificationError` for a fused graph, for a rule that changes a type, and when the
    rules do not come to rest.
    """
    if graph.groups:
        raise VerificationError(f"Expected a graph that is not fused yet. Received: {graph.name!r}")
    graph_, image = graph.rebuild()
    firings: list[Firing] = []
    turns = _Turns(rules)
    for _ in range(MAX_SWEEPS):
        graph_, step, fired = _sweep(graph_, turns)
        image = {old: step[new] for old, new in image.items() if new in step}
        firings += fired
        if not fired:
            return Rewritten(graph_, firings, image)
    looping = ", ".join(sorted({firing.rule for firing in fired}))
    raise VerificationError(f"Rules still apply to {graph.name!r} after {MAX_SWEEPS} sweeps: {looping}")


class _Turns:
    """Rules in the order of their turns. Which of them concern a kind of op is looked up once: most do not."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self._concern: dict[type, list[int]] = {}

    def on(self, op: type) -> list[int]:
        """The turns of the rules for ops of this class."""
        if op not in self._concern:
            self._concern[op] = [turn for turn, rule in enumerate(self.rules) if issubclass(op, rule.ops)]
        return self._concern[op]


def _sweep(graph: Graph, turns: _Turns) -> tuple[Graph, dict[Value, Value], list[Firing]]:
    """Rebuild `graph` once, each node under the first rules that apply to it; also return the map from old to new."""
    draft = Draft(graph.name)
    draft.captured = graph.captured
    readers = Counter(operand for value in graph.live() for operand in dict.fromkeys(value.inputs))
    readers.update(output.value for output in graph.outputs)
    drafted: dict[Value, Value] = {}
    firings: list[Firing] = []
    for old in graph.live():
        with origin_scope(graph.provenance[old]):
            new = draft.copy(old, *(drafted[operand] for operand in old.inputs))
            new = _replace(draft, new, turns, firings)
        draft.provenance[new] |= graph.provenance[old]
        draft.add_readers(new, readers[old])
        drafted[old] = new
    draft.outputs = [
        Output(out.name, drafted[out.value], None if out.donor is None else drafted[out.donor]) for out in graph.outputs
    ]
    clean, kept = draft.rebuild()
    return clean, {old: kept[new] for old, new in drafted.items() if new in kept}, firings


def _replace(draft: Draft, value: Value, turns: _Turns, firings: list[Firing], first: int = 0) -> Value:
    """Return what the rules make of `value`: each gets its turn, in order, on what those before it left."""
    for turn in turns.on(type(value.op)):
        if turn < first:
            continue
        rule = turns.rules[turn]
        replacement = rule.apply(draft, value)
        if replacement is None or replacement is value:
            continue
        if replacement.type != value.type:
            raise VerificationError(f"rule {rule.name} replaced {value!r} by {replacement!r} of another type")
        firings.append(Firing(rule.name, value, replacement))
        # From here on the rules for the new op take their turns.
        return _replace(draft, replacement, turns, firings, turn + 1)
    return value
