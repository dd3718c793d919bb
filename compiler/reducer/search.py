"""Delta debugging of graphs: from a graph that fails a check to a small one that still fails it.

A subset of a graph's nodes is a graph again: operands outside of it become inputs, and nodes that nobody inside reads
become outputs. So any subset is well typed, and the classic algorithm (Zeller and Hildebrandt, "Simplifying and
isolating failure-inducing input", 2002) finds one from which no node can be left out. What is left is made plainer in
turn: fewer outputs, values passed by, inputs that are one, constants that are inputs, smaller sizes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

from gradloom.compiler.ir import SIMPLIFIED, Graph
from gradloom.compiler.ir_text import print_graph
from gradloom.compiler.reducer.plainer import PLAINER
from gradloom.compiler.reducer.rebuilding import computed, subset

Fails = Callable[[Graph], bool]
Note = Callable[[str, Graph, bool], None]
"""Told of each graph that was tried: the step that led to it, the graph, and whether it still fails."""


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
    if graph.groups:
        whole.groups, whole.stage = (), SIMPLIFIED
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
            for plainer in PLAINER:
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
        while len(nodes := computed(self.best)) > 1:
            parts = min(parts, len(nodes))
            bounds = [len(nodes) * part // parts for part in range(parts + 1)]
            runs = [set(nodes[low:high]) for low, high in pairwise(bounds)]
            total = len(nodes)
            if any(self.accepts(subset(self.best, run), f"kept {len(run)} of {total} nodes") for run in runs):
                parts = 2
            elif any(
                self.accepts(subset(self.best, set(nodes) - run), f"left out {len(run)} of {total} nodes")
                for run in runs
            ):
                parts = max(parts - 1, 2)
            elif parts < total:
                parts *= 2
            else:
                return
