"""What changed between two stages of a graph, and the names of the rules that did it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from gradloom.compiler.ir import Constant, Group, Input, Value
from gradloom.compiler.ir_text import layer_paths, node_line
from gradloom.compiler.passes.rewrite import Firing
from gradloom.inspection.way import Image, Way, origins

DERIVED = "gradient"
UNREAD = "nobody reads it"
PREPARED = "computed once per set of weights"

FEW = 3
"""Changes of one kind that are all shown."""

LONG = 12
"""Nodes of a change that are shown where changes are folded."""

NAMED = 3
"""Names, or rows of numbered names, in a list of layers."""


@dataclass(frozen=True)
class Change:
    """Nodes of one stage and those that came in their place in another one.

    `rules` are the names of the rules and passes that did it, in the order in which they first applied; `kernel` is the
    group that the nodes after were put into, where that is what changed.
    """

    before: tuple[Value, ...]
    after: tuple[Value, ...]
    rules: tuple[str, ...]
    kernel: Group | None = None

    @property
    def title(self) -> str:
        """What happened, in a line."""
        by = ", ".join(self.rules)
        if self.kernel is not None:
            results = " ".join(f"%{result.number}" for result in self.kernel.results)
            return f"kernel {self.kernel.name} ({self.kernel.kind}) → {results}: {by}"
        if not self.after:
            return f"gone: {by}"
        return f"{'new' if not self.before else 'replaced'}: {by}"

    @property
    def kind(self) -> Hashable:
        """What is the same for changes that differ in their layers and numbers alone."""
        if self.kernel is not None:
            return self.kernel.kind, _ops(self.after)
        rules = tuple(DERIVED if rule.startswith(DERIVED) else rule for rule in self.rules)
        return rules, _ops(self.before), _ops(self.after)

    @property
    def layers(self) -> list[str]:
        """The paths of the layers that its nodes belong to."""
        paths = (path for value in (*self.before, *self.after) for path in layer_paths(value.graph, value))
        return list(dict.fromkeys(paths))

    def lines(self) -> Iterator[str]:
        """The nodes, with "-" for what was and "+" for what is; a kernel's nodes with neither."""
        for value in self.before:
            yield "- " + node_line(value.graph, value, indent="")
        for value in self.after:
            yield ("  " if self.kernel else "+ ") + node_line(value.graph, value, indent="")


@dataclass(frozen=True, repr=False)
class Difference:
    """What changed from stage `first` to stage `last`, in the order of the graph; `unchanged` nodes are left out."""

    first: str
    last: str
    changes: tuple[Change, ...]
    unchanged: int

    def text(self, folded: bool = True) -> str:
        """Return the changes with their rules, each with its nodes before and after.

        folded: of changes that differ in layers and numbers alone, show the first one with their count and the
        layers, and of long ones the first nodes. `changes` has all of them, as this has unless they are folded.
        """
        lines = [self._head()]
        for alike in self.by_kind() if folded else [[change] for change in self.changes]:
            lines += ["", _title(alike), *("  " + line for line in _lines(alike[0], LONG if folded else None))]
        return "\n".join(lines) + "\n"

    def by_kind(self) -> list[list[Change]]:
        """Return the changes, put together where more than a few are alike, in the order of the first of each kind."""
        kinds: dict[Hashable, list[Change]] = {}
        for change in self.changes:
            kinds.setdefault(change.kind, []).append(change)
        apart = {kind for kind, alike in kinds.items() if len(alike) <= FEW}
        return [
            [change] if change.kind in apart else kinds[change.kind]
            for change in self.changes
            if change.kind in apart or change is kinds[change.kind][0]
        ]

    def _head(self) -> str:
        return f"{self.first} → {self.last}: {len(self.changes):,} changes, {self.unchanged:,} nodes as they were"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<difference {self._head()}>"

    def _repr_html_(self) -> str:
        """The changes in colour, for light and dark backgrounds, folded."""
        colour = {"-": "rgba(220,50,50,.16)", "+": "rgba(40,160,70,.16)", " ": "transparent"}
        parts = [f"<div style='font-weight:600'>{escape(self._head())}</div>"]
        for alike in self.by_kind():
            nodes = "".join(
                f"<div style='background:{colour[line[0]]};white-space:pre'>{escape(line)}</div>"
                for line in _lines(alike[0], LONG)
            )
            parts.append(
                f"<details open style='margin:.5em 0'><summary>{escape(_title(alike))}</summary>"
                f"<div style='font-family:monospace;font-size:12px;overflow:auto'>{nodes}</div></details>"
            )
        return "<div style='color-scheme:light dark'>" + "".join(parts) + "</div>"


def _title(alike: Sequence[Change]) -> str:
    """What happened first, in a line; of several changes of one kind also how often, and in which layers."""
    if len(alike) == 1:
        return alike[0].title
    layers = dict.fromkeys(path for change in alike for path in change.layers)
    return f"{alike[0].title}; and {len(alike) - 1} like it, in {_abbreviated(list(layers))}"


def _lines(change: Change, most: int | None) -> Iterator[str]:
    """The lines of a change, at most so many of them; in the place of others stands their number."""
    lines = list(change.lines())
    yield from lines[:most]
    if most is not None and len(lines) > most:
        yield f"  … and {len(lines) - most:,} nodes more"


def _abbreviated(paths: Sequence[str]) -> str:
    """Layers in a line; those that only differ in numbers by the first and the last one."""
    rows: dict[str, list[str]] = {}
    for path in paths:
        rows.setdefault(re.sub(r"_?[0-9]+", "", path), []).append(path)
    told = [row[0] if len(row) == 1 else f"{row[0]} … {row[-1]} ({len(row)} layers)" for row in rows.values()]
    more = [f"{len(told) - NAMED} others"] if len(told) > NAMED else []
    return " and ".join([", ".join(told[:NAMED]), *more])


def _ops(values: Iterable[Value]) -> tuple[str, ...]:
    return tuple(value.op.name for value in values)


def difference(way: Way, first: str, last: str) -> Difference:
    """Compare two stages of a graph's way, of which `first` is not the later one."""
    before, after = way.graph(first), way.graph(last)
    image = way.image(first, last)
    old = [value for value in before.live() if not _is_same(value, image)]
    made = _images_of_same(before.live(), image)
    new = [value for value in after.live() if value not in made]
    passed = way.stages[way.stages.index(first) : way.stages.index(last)]
    firings = way.rewritten.firings if way.stages[-3] in passed else []
    changes: list[Change] = []
    one_sided: dict[tuple[str, ...], tuple[list[Value], list[Value]]] = {}
    for gone, come, places in _together(way, first, old, new):
        reasons = _reasons(way, gone, come, places, firings)
        if gone and come:
            changes.append(Change(tuple(gone), tuple(come), reasons))
            continue
        left, arrived = one_sided.setdefault(("new" if come else "gone", *reasons), ([], []))
        left += gone
        arrived += come
    for (_, *made_by), (left, arrived) in one_sided.items():
        changes.append(Change(tuple(_sorted(left)), tuple(_sorted(arrived)), tuple(made_by)))
    if after.groups and not before.groups:
        changes += [Change((), group.members, ("fuse",), group) for group in after.groups]
    return Difference(first, last, tuple(changes), len(made))


def _is_same(value: Value, image: Image) -> bool:
    """Whether a node is still there: the same op, of the same type, on the nodes that its operands became."""
    twin = image.get(value)
    return (
        twin is not None
        and (twin.op, twin.type) == (value.op, value.type)
        and tuple(image.get(operand) for operand in value.inputs) == twin.inputs
    )


def _images_of_same(values: Iterable[Value], image: Image) -> set[Value]:
    return {image[value] for value in values if _is_same(value, image)}


def _together(
    way: Way, first: str, old: Iterable[Value], new: Iterable[Value]
) -> list[tuple[list[Value], list[Value], set[int]]]:
    """Put the nodes before and after together that came from the same nodes of the source, in order."""
    parts: list[tuple[list[Value], list[Value], set[int]]] = []
    part_of: dict[int, int] = {}
    for value, is_new in (*((v, False) for v in old), *((v, True) for v in new)):
        places = origins(value) if is_new else way.origins(first, value)
        near = sorted({part_of[place] for place in places if place in part_of})
        target = near[0] if near else len(parts)
        if not near:
            parts.append(([], [], set()))
        for other in near[1:]:
            gone, come, joined = parts[other]
            parts[target][0].extend(gone)
            parts[target][1].extend(come)
            parts[target][2].update(joined)
            part_of.update(dict.fromkeys(joined, target))
            parts[other] = ([], [], set())
        (parts[target][1] if is_new else parts[target][0]).append(value)
        parts[target][2].update(places)
        part_of.update(dict.fromkeys(places, target))
    return [(_sorted(gone), _sorted(come), places) for gone, come, places in parts if gone or come]


def _sorted(values: Iterable[Value]) -> list[Value]:
    return sorted(values, key=lambda value: value.number)


def _reasons(
    way: Way, gone: list[Value], come: list[Value], places: set[int], firings: Iterable[Firing]
) -> tuple[str, ...]:
    """The rules that applied to nodes from these places; else what a node that came or went is about."""
    rules = dict.fromkeys(firing.rule for firing in firings if origins(firing.before) & places)
    if rules:
        return tuple(rules)
    if not gone:
        return tuple(dict.fromkeys(_maker(value) for value in come))
    prepare = way.parts.prepare
    if prepare is not None and any(origins(value) & places for value in prepare.live()):
        return (PREPARED,)
    if all(isinstance(value.op, Input | Constant) for value in (*gone, *come)):
        return ("its readers are gone",)
    return (UNREAD,)


def _maker(value: Value) -> str:
    """What added a node to the stage `gradient`: differentiation, or a loss, a metric, or the optimizer."""
    known = sorted(value.graph.provenance[value], key=lambda origin: origin.layer)
    derived = next((origin.layer for origin in known if origin.forward is not None), None)
    if derived is not None:
        return f"{DERIVED} of {derived}" if derived else DERIVED
    return next((origin.layer for origin in known if origin.layer), "trace")
