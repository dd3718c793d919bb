"""Alignment of two graphs by structure, so that their texts differ only where what they compute does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ir_text import format_attributes, print_graph


def aligned_texts(before: Graph, after: Graph) -> tuple[str, str]:
    """Return the texts of two graphs, without layers, in which values that correspond have one number.

    Values correspond where whole subgraphs are equal; between those where op, type and attributes are; and between
    those where at least types are, so that one other op shows as one other line. What inputs are called does not count.
    Numbers of the second text need not ascend.
    """
    old, new = before.rebuild()[0], after.rebuild()[0]
    known: dict[Hashable, int] = {}
    keys = _subgraphs(old.values, known) | _subgraphs(new.values, known)
    numbers = {
        second: first.number
        for first, second in _pairs(old.values, new.values, [keys.__getitem__, _operation, lambda value: value.type])
    }
    free = itertools.count(len(old.values))
    return print_graph(old, comments=False), _renumbered(
        print_graph(new, comments=False),
        {value.number: numbers[value] if value in numbers else next(free) for value in new.values},
    )


def _renumbered(text: str, numbers: Mapping[int, int]) -> str:
    """A graph's text with other numbers behind `%`, but in strings."""

    def replaced(match: re.Match[str]) -> str:
        return match.group() if match["number"] is None else f"%{numbers[int(match['number'])]}"

    return re.sub(r'"(?:[^"\\]|\\.)*"|%(?P<number>[0-9]+)', replaced, text)


def _pairs(
    old: Sequence[Value], new: Sequence[Value], keys: Sequence[Callable[[Value], Hashable]]
) -> Iterator[tuple[Value, Value]]:
    """Values that have the same first key, in order; then, in the gaps between those, by the next key."""
    if not keys:
        return
    key, *others = keys
    last = 0, 0
    for i, j, size in SequenceMatcher(
        None, list(map(key, old)), list(map(key, new)), autojunk=False
    ).get_matching_blocks():
        yield from _pairs(old[last[0] : i], new[last[1] : j], others)
        yield from zip(old[i : i + size], new[j : j + size], strict=True)
        last = i + size, j + size


def _subgraphs(values: Sequence[Value], known: dict[Hashable, int]) -> dict[Value, int]:
    """A number for each value, the same for equal operations on equal subgraphs."""
    numbers: dict[Value, int] = {}
    for value in values:
        key = (_operation(value), *(numbers[operand] for operand in value.inputs))
        numbers[value] = known.setdefault(key, len(known))
    return numbers


def _operation(value: Value) -> Hashable:
    """What a value is but for its operands."""
    if isinstance(value.op, Input):
        return value.op.name, value.op.role, value.op.permutation, value.type
    return value.op.name, format_attributes(value.op, value.type), value.type
