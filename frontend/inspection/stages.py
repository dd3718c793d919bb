"""Stages between a model and its machine code, each as text, as a network of nodes, as drawings and as JSON.

Every stage has a `networkx.DiGraph`, from which the drawings and the JSON are made. What nodes say of themselves there
is what `gradloom.compiler.views.picture.picture_of_network` draws (`title`, `kind`, `type`, `note`, `role`, `layers`,
`tooltip`, `cluster`), and what the stage adds. `json()` has only dicts, lists, text, numbers, truth values and None:

    {"stage": name, "title": …, "nodes": [{"id": …, …}], "edges": [{"source": id, "target": id, …}], …}

`id` is a node's key in the network; a field that ends in "s" is a list. By stage:

**layers**: a node is a call of a layer or of a function, its id the path ("outer/dense"; "dense#2" for a second call):
`title`, `class`, `shapes` (of its results, as text), `dtype`, `parameters`, `layers` (its path), `source` (file:line).
A model inside has `nested`, the same dict for what is inside of it, else None.

**forward, gradient, simplified, fused**: a node is a value, its id the number behind `%`: `number`, `op`, `attributes`
(text by name), `type`, `inputs` (numbers), `layers` (paths), `sources` (file:line), `forward` (for a gradient node the
numbers of its forward nodes, in the last stage before `simplified`), `role` and `label` (of an input), `outputs` (the
names under which it is a result), `groups` (positions in the list below), `text` (its line of IR).
Edges have `operands`, the positions at which the target reads the source. Beside nodes and edges there are
`outputs`: `{"name", "node", "donor"}`, and `groups`: `{"name", "kind", "members", "results"}`, empty before `fused`.

**scheduled**: kernels have whole numbers as ids, those of the calls in a step: `call`, `name` (of the group),
`function` (its name in LLVM IR and assembly), `group` (its position in `fused`, None for copies and borders), `role`
(the group's kind), `members` (numbers in `fused`), `layers`, `sources`, `reads` and `writes` (ids of buffers),
`blocks`. Buffers have text as ids: `name`, `type`, `bytes` (None where open), `place` ("argument" or "arena"), `role`.
What a step changes in an argument has a node of its own, "… after". Beside nodes and edges there are `codes`, the
pseudo-C of each function by its name.

**memory**: the kernels and buffers of `scheduled` as far as arena memory goes; buffers have `offset`, `first`, `last`
(calls) and `owner`, too. Beside them there are `arena_bytes`, `scratch_bytes` (a thread), `peak_bytes`, `peak_call`.

**llvm, assembly**: a node is a function, its id the name, in the order of the first calls: `instructions`, `code`,
`role` and `layers` where it is a kernel. Edges have a `kind`: "calls", or "next" from a kernel to the one
that is called after it; `drawn` says which of them the drawing shows.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from gradloom.compiler.ir import GRAPH_STAGES, Constant, Graph, Value
from gradloom.compiler.ir_text import format_attributes, format_literal, node_line

if TYPE_CHECKING:
    import networkx

STAGES = ("layers", *GRAPH_STAGES, "scheduled", "memory", "llvm", "assembly")
"""All stages, in order. A graph without a gradient of its own has no stage `gradient`, a function no `layers`."""

__all__ = ["GRAPH_STAGES", "STAGES", "GraphStage", "Stage"]

DRAWN_WHOLE = 1500
"""Nodes up to which a notebook shows a stage as a drawing, and beyond which as text."""

SHOWN_LINES = 400
"""Lines of a long text that a notebook shows."""


class Stage:
    """One stage: everything about it is made when it is first asked for.

    make: what the stage's text is printed from, and who makes it keeps it. network: the nodes and edges of it. more:
        what its JSON has besides.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], object],
        network: Callable[[], networkx.DiGraph],
        more: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.name = name
        self._make = make
        self._network = network
        self._more = more

    def text(self) -> str:
        """Return the stage as text."""
        return str(self._make())

    def networkx(self) -> networkx.DiGraph:
        """Return nodes and edges as a `networkx.DiGraph`; `gradloom.inspection.stages` says with what attributes."""
        return self._network().copy()

    def dot(self) -> str:
        """Return the network in Graphviz's DOT language."""
        from gradloom.compiler.views import draw_dot, picture_of_network

        return draw_dot(picture_of_network(self.networkx()))

    def svg(self) -> str:
        """Return a drawing of the network; it follows the viewer's light or dark colours."""
        from gradloom.compiler.views import draw_svg, picture_of_network

        return draw_svg(picture_of_network(self.networkx()))

    def json(self) -> dict[str, Any]:
        """Return the stage as dicts and lists that `json.dumps` takes: the schema is `gradloom.inspection.stages`'."""
        network = self._network()
        return {
            "stage": self.name,
            "title": network.graph.get("name", ""),
            "nodes": [{"id": node, **data} for node, data in network.nodes(data=True)],
            "edges": [{"source": a, "target": b, **data} for a, b, data in network.edges(data=True)],
            **self._more(),
        }

    def _repr_svg_(self) -> str | None:
        return self.svg() if len(self._network()) <= DRAWN_WHOLE else None

    def _repr_html_(self) -> str:
        """The drawing, and the text below it to be opened."""
        drawing = self._repr_svg_()
        return (f"<div style='overflow:auto'>{drawing}</div>" if drawing else "") + text_html(self.text(), not drawing)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<stage {self.name}>"


class GraphStage(Stage):
    """A stage that is a graph of the IR."""

    def __init__(self, name: str, make: Callable[[], Graph]) -> None:
        super().__init__(name, make, lambda: _plain(self.graph), lambda: _parts(self.graph))
        self._make_graph = make

    @property
    def graph(self) -> Graph:
        """The graph itself; `text()` is `str(graph)`."""
        return self._make_graph()

    def dot(self) -> str:
        """Return the graph in Graphviz's DOT language."""
        from gradloom.compiler.views import to_dot

        return to_dot(self.graph)

    def networkx(self) -> networkx.DiGraph:
        """Return the graph as a `networkx.DiGraph`, as `gradloom.compiler.views.to_networkx` does."""
        from gradloom.compiler.views import to_networkx

        return to_networkx(self.graph)

    def svg(self) -> str:
        """Return a drawing of the graph, with constants inside their readers; it follows light or dark colours."""
        from gradloom.compiler.views import to_svg

        return to_svg(self.graph)


def _plain(graph: Graph) -> networkx.DiGraph:
    """The graph's network, all of it fit for JSON."""
    from gradloom.compiler.views import to_networkx

    network = to_networkx(graph)
    groups: dict[int, list[int]] = {}
    for position, group in enumerate(graph.groups):
        for member in group.members:
            groups.setdefault(member.number, []).append(position)
    for value in graph.live():
        data = network.nodes[value.number]
        del data["layer"], data["group"]
        data["attributes"] = attribute_texts(value)
        data["groups"] = groups.get(value.number, [])
        data["text"] = node_line(graph, value, indent="", comments=False)
    return network


def attribute_texts(value: Value) -> dict[str, str]:
    """The attributes of a node's op by name, each as text; of a literal its `value` or `bytes`."""
    if isinstance(value.op, Constant):
        name, _, text = format_attributes(value.op, value.type).partition("=")
        return {name: text}
    return {name: format_literal(item) for name, item in value.op.attributes.items()}


def _parts(graph: Graph) -> dict[str, Any]:
    """What a graph has besides nodes."""
    donors = [None if output.donor is None else output.donor.number for output in graph.outputs]
    return {
        "outputs": [
            {"name": output.name, "node": output.value.number, "donor": donor}
            for output, donor in zip(graph.outputs, donors, strict=True)
        ],
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "members": [member.number for member in group.members],
                "results": [result.number for result in group.results],
            }
            for group in graph.groups
        ],
    }


def text_html(text: str, open: bool = False) -> str:
    """A text for a notebook, folded away unless `open`; its first lines where it is long."""
    lines = text.splitlines()
    shown = "\n".join(lines[:SHOWN_LINES])
    rest = f"\n… {len(lines) - SHOWN_LINES:,} more lines: .text()" if len(lines) > SHOWN_LINES else ""
    attribute = " open" if open else ""
    return (
        f"<details{attribute}><summary>text, {len(lines):,} lines</summary>"
        f"<pre style='overflow:auto;max-height:32em;font-size:12px;line-height:1.35'>{escape(shown + rest)}</pre>"
        "</details>"
    )
