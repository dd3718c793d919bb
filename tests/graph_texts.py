"""Every graph that tests build reads back from its text: noted where graphs are made, checked when the test is over."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ir_parser import parse

MOST_WAITING = 100
"""Graphs that are kept for their check: a test may build thousands."""


class GraphTexts:
    """Notes the graphs that are built, by whatever part of Gradloom, and asserts `parse(str(graph)) == graph` of each.

    Left out are graphs without outputs, which nobody finished, ill-formed ones, which a test built to see them refused,
    and those of ops that a test defined and took away again. Equal graphs, numbered alike, are parsed once.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.waiting: deque[Graph] = deque()
        self.known: set[int] = set()
        self.failures: list[str] = []
        self.parsing = False
        build = Graph.__init__

        def noted(graph: Graph, *args: Any, **kwargs: Any) -> None:
            build(graph, *args, **kwargs)
            if not self.parsing:
                self.waiting.append(graph)
                if len(self.waiting) > MOST_WAITING:
                    self._read_back(self.waiting.popleft())

        patch.setattr(Graph, "__init__", noted)

    def check(self) -> None:
        """Raise `AssertionError` if the text of a graph built since the last call reads otherwise."""
        while self.waiting:
            self._read_back(self.waiting.popleft())
        failures, self.failures = self.failures, []
        assert not failures, failures[0]

    def _read_back(self, graph: Graph) -> None:
        self.parsing = True
        try:
            if graph.outputs and not self._reads_back(graph) and _well_formed(graph):
                self.failures.append(f"The text of a graph reads as another graph:\n{graph}")
        except Exception as error:
            if _well_formed(graph):
                self.failures.append(f"The text of a graph cannot be read: {error!r}")
        finally:
            self.parsing = False

    def _reads_back(self, graph: Graph) -> bool:
        # Equal texts would not do: what the printer loses makes different graphs look alike.
        seen = hash((graph, tuple(value.number for value in graph.live())))
        if seen in self.known:
            return True
        self.known.add(seen)
        found = parse(str(graph))
        # An attribute that is NaN equals nothing, but it is written as what it is.
        return found == graph or (
            str(found) == str(graph) and list(map(_op, found.values)) == list(map(_op, graph.live()))
        )


def _op(value: Value) -> str:
    return repr(value.op)


def _well_formed(graph: Graph) -> bool:
    if any(Op.registry.get(value.op.name) is not type(value.op) for value in graph.values):
        return False
    try:
        graph.verify()
    except VerificationError:
        return False
    return True
