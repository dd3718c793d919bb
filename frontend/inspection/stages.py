"""Stages between a model and its machine code, each as text and, where it is a graph, as a drawing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gradloom.compiler.ir import Graph

if TYPE_CHECKING:
    import networkx

STAGES = ("layers", "forward", "gradient", "simplified", "fused", "scheduled", "memory", "llvm", "assembly")
"""All stages, in order. A graph without a gradient of its own has no stage `gradient`, a function no `layers`."""
GRAPH_STAGES = ("forward", "gradient", "simplified", "fused")


class Stage:
    """One stage as text, made when it is first asked for."""

    def __init__(self, name: str, make: Callable[[], object]) -> None:
        self.name = name
        self._make = make

    @cached_property
    def _made(self) -> Any:
        return self._make()

    def text(self) -> str:
        """Return the stage as text."""
        return str(self._made)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<stage {self.name}>"


class GraphStage(Stage):
    """A stage that is a graph: it can be drawn too. In a notebook it shows itself."""

    @property
    def graph(self) -> Graph:
        """The graph itself; `text()` is `str(graph)`."""
        graph: Graph = self._made
        return graph

    def dot(self) -> str:
        """Return the graph in Graphviz's DOT language."""
        from gradloom.compiler.views import to_dot

        return to_dot(self.graph)

    def networkx(self) -> networkx.DiGraph:
        """Return the graph as a `networkx.DiGraph`: nodes with op, type, layer, role and group."""
        from gradloom.compiler.views import to_networkx

        return to_networkx(self.graph)

    def svg(self) -> str:
        """Return a drawing of the graph; it follows the viewer's light or dark colours."""
        from gradloom.compiler.views import to_svg

        return to_svg(self.graph)

    def _repr_svg_(self) -> str:
        return self.svg()
