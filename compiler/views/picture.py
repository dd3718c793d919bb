"""What all drawings of a graph show: boxes and edges, with constants written into their readers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ir_text import format_constant, format_literal, layer_paths, node_line

if TYPE_CHECKING:
    import networkx

MAX_LITERAL = 14
"""Characters of a constant that are shown inside its reader; a longer one is shown by its type."""


class Place(NamedTuple):
    """Where a box stands: the number of its cluster (None: outside) and what it shows."""

    group: int | None
    what: Hashable


class Cluster(NamedTuple):
    """Boxes that are drawn together: a kernel, or a model inside of a model."""

    name: str
    kind: str


@dataclass(frozen=True)
class Box:
    """One rectangle: an input, an op or an output.

    `operands` has "·" for each operand that an edge brings, and the text of each that is a constant; it is empty when
    there are no constants among them.
    """

    place: Place
    kind: str  # "input", "op" or "output"
    title: str
    operands: tuple[str, ...] = ()
    attributes: str = ""
    type: str = ""
    role: str = ""
    layers: tuple[str, ...] = ()
    number: int | None = None
    tooltip: str = ""


@dataclass(frozen=True)
class Edge:
    """A value on its way to operand `operand` of `target`, one of `operands` that edges bring."""

    source: Place
    target: Place
    operand: int
    operands: int

    @property
    def crosses(self) -> bool:
        """Whether the value leaves or enters a kernel, and so lies in memory."""
        return self.source.group is None or self.source.group != self.target.group


@dataclass(frozen=True)
class Picture:
    """The boxes, edges and clusters of a graph of any kind; `heading` is what its clusters are, `notes` its figures."""

    name: str
    notes: tuple[str, ...]
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    clusters: tuple[Cluster, ...] = ()
    heading: str = "KERNELS"

    @property
    def layers(self) -> list[str]:
        """The paths of the layers that colour boxes, in the order of their first ones; a role comes before."""
        return list(dict.fromkeys(layer for box in self.boxes if not box.role for layer in box.layers))


def picture_of(graph: Graph) -> Picture:
    """Return what to draw. A node that several kernels compute is a box in each of them."""
    live = graph.live()
    results = {output.value for output in graph.outputs}
    # Inputs stand outside, wherever they are read; constants have a box only if they are a result themselves.
    inside = {
        Place(number, member): None
        for number, group in enumerate(graph.groups)
        for member in group.members
        if not isinstance(member.op, Input) and (not isinstance(member.op, Constant) or member in results)
    }
    grouped = {place.what for place in inside}
    outside = [v for v in live if v not in grouped and (not isinstance(v.op, Constant) or v in results)]
    places = [*(Place(None, value) for value in outside), *inside]
    homes = _homes(graph, places)
    boxes = [_box(graph, place) for place in places]
    edges = [edge for place in places for edge in _edges(place, homes, set(inside))]
    for output in graph.outputs:
        place = Place(None, output)
        donor = "" if output.donor is None else "in place"
        tooltip = f"output {output.name}" + (
            f", written onto %{output.donor.number}" if output.donor is not None else ""
        )
        boxes.append(Box(place, "output", output.name, type=donor, role="output", tooltip=tooltip))
        edges.append(Edge(homes[output.value], place, 0, 1))
    clusters = tuple(Cluster(group.name, group.kind) for group in graph.groups)
    counts = [count(sum(box.kind == "op" for box in boxes), "node"), count(len(graph.inputs), "input")]
    notes = [*([count(len(clusters), "kernel")] if clusters else []), *counts, count(len(graph.outputs), "output")]
    return Picture(graph.name, tuple(notes), tuple(boxes), tuple(edges), clusters)


def picture_of_network(digraph: networkx.DiGraph) -> Picture:
    """Return what to draw of a `networkx.DiGraph` whose nodes say it themselves.

    A node's attributes are `title`, `kind` ("input", "op" or "output"), and, where they apply, `type` and `note` (lines
    below the title), `role` or `family` or, without them, `layers` (which give the colour), `tooltip`, and `cluster`, a
    pair of name and kind. An edge with `drawn` false is left out. Attributes of the graph are `name`, `notes` (its
    figures) and `heading` (what its clusters are).
    """
    clusters = list(dict.fromkeys(data["cluster"] for _, data in digraph.nodes(data=True) if data.get("cluster")))
    number = {cluster: position for position, cluster in enumerate(clusters)}
    places = {node: Place(number.get(data.get("cluster")), node) for node, data in digraph.nodes(data=True)}
    boxes = [_network_box(places[node], data) for node, data in digraph.nodes(data=True)]
    edges = []
    for node, place in places.items():
        sources = [source for source in digraph.predecessors(node) if digraph.edges[source, node].get("drawn", True)]
        edges += [Edge(places[source], place, position, len(sources)) for position, source in enumerate(sources)]
    named = tuple(Cluster(*cluster) for cluster in clusters)
    name, notes = digraph.graph.get("name", ""), digraph.graph.get("notes", ())
    return Picture(name, tuple(notes), tuple(boxes), tuple(edges), named, digraph.graph.get("heading", "GROUPS"))


def _network_box(place: Place, data: dict[str, Any]) -> Box:
    return Box(
        place,
        kind=data["kind"],
        title=data["title"],
        attributes=data.get("note", ""),
        type=data.get("type", ""),
        role=data.get("role", ""),
        layers=(data["family"],) if "family" in data else tuple(data.get("layers", ())),
        tooltip=data.get("tooltip", data["title"]),
    )


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 kernel", "2 kernels"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _homes(graph: Graph, places: Iterable[Place]) -> dict[Hashable, Place]:
    """The box that a reader from elsewhere gets each value from: of the kernel that stores it."""
    homes: dict[Hashable, Place] = {}
    stored = {Place(number, result) for number, group in enumerate(graph.groups) for result in group.results}
    for place in places:
        if place.what not in homes or (place in stored and homes[place.what] not in stored):
            homes[place.what] = place
    return homes


def _edges(place: Place, homes: dict[Hashable, Place], inside: set[Place]) -> list[Edge]:
    assert isinstance(place.what, Value)
    operands = [operand for operand in place.what.inputs if operand in homes]
    edges = []
    for position, operand in enumerate(operands):
        own = Place(place.group, operand)
        edges.append(Edge(own if own in inside else homes[operand], place, position, len(operands)))
    return edges


def _box(graph: Graph, place: Place) -> Box:
    value = place.what
    assert isinstance(value, Value)
    is_input = isinstance(value.op, Input)
    literals = [_literal(operand) for operand in value.inputs]
    if is_input:
        attributes = ""
    elif isinstance(value.op, Constant):
        attributes = _literal(value)
    else:
        attributes = _shown_attributes(value)
    return Box(
        place,
        kind="input" if is_input else "op",
        title=value.op.label if isinstance(value.op, Input) else value.op.name,
        operands=tuple(literals) if any(text != "·" for text in literals) else (),
        attributes=attributes,
        type=str(value.type),
        role=value.op.role if isinstance(value.op, Input) else "",
        layers=tuple(layer_paths(graph, value)),
        number=value.number,
        tooltip=node_line(graph, value, indent=""),
    )


def _shown_attributes(value: Value) -> str:
    """The attributes that the type does not show already, as a reshape's shape."""
    shown = {name: item for name, item in value.op.attributes.items() if item not in (value.type.shape, value.dtype)}
    default = {field.name: field.default for field in fields(value.op)}  # type: ignore[arg-type]
    texts = {name: format_literal(item) for name, item in shown.items() if item != default[name]}
    return ", ".join(name if text == "true" else f"{name}={text}" for name, text in texts.items())


def _literal(value: Value) -> str:
    """A constant as its reader shows it; "·" for what an edge brings."""
    if not isinstance(value.op, Constant):
        return "·"
    text = format_constant(value.op).partition("=")[2]
    return text if len(text) <= MAX_LITERAL else str(value.type)
