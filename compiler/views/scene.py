"""Placing a picture's boxes, kernels and edges: a layered drawing of the kernels, and one inside each kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from gradloom.compiler.views.layout import Arrangement, Item, Key, Link, Point, arrange, assign_layers
from gradloom.compiler.views.picture import Box, Cluster, Edge, Picture, Place
from gradloom.compiler.views.typography import MONO, SANS, text_width

LONG = 7
LONG_BETWEEN_KERNELS = 2
LONG_FROM_INPUT = 1
"""An edge over more layers than this is cut: its reader gets a tag with the name of what it reads. Kernels are tall, so
beside them edges are cut sooner, those from inputs first."""
PADDING = 14.0
HEADER = 30.0
PORT_SPREAD = 16.0


@dataclass(frozen=True)
class Tag:
    """Stands for a box far above, next to those who read it."""

    box: Box
    number: int


@dataclass(frozen=True)
class Rectangle:
    """Something with a place and a size; `x` and `y` are its left upper corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass
class Scene:
    """Everything with its coordinates."""

    width: float
    height: float
    boxes: list[tuple[Box, Rectangle]] = field(default_factory=list)
    tags: list[tuple[Tag, Rectangle]] = field(default_factory=list)
    kernels: list[tuple[int, Rectangle]] = field(default_factory=list)
    edges: list[tuple[Box, bool, list[Point]]] = field(default_factory=list)
    """What is read, whether it lies in memory, and where the edge runs."""


def box_size(box: Box) -> tuple[float, float]:
    """Width and height that the box's text needs."""
    title = text_width(box.title + signature(box), SANS, 12.5)
    number = 0.0 if box.number is None else text_width(f"%{box.number}", MONO, 9) + 10
    widths = [title + number, text_width(box.type, MONO, 10.5), text_width(shown_attributes(box), MONO, 9.5)]
    lines = 1 + bool(box.type) + bool(shown_attributes(box))
    return max(widths) + (32 if box.kind != "op" else 24), 12 + 14.0 * lines


def signature(box: Box) -> str:
    """The operands behind an op's name, where some are constants."""
    return f"({', '.join(box.operands)})" if box.operands else ""


def shown_attributes(box: Box) -> str:
    """The attributes in a box, shortened: the tooltip has them whole."""
    return box.attributes if len(box.attributes) <= 34 else box.attributes[:33] + "…"


def stage(picture: Picture) -> Scene:
    """Place everything."""
    boxes = {box.place: box for box in picture.boxes}
    members: dict[int, list[Box]] = defaultdict(list)
    for box in picture.boxes:
        if box.place.group is not None:
            members[box.place.group].append(box)
    touching: dict[int, list[Edge]] = defaultdict(list)
    for edge in picture.edges:
        for group in {edge.source.group, edge.target.group}:
            if group is not None:
                touching[group].append(edge)
    kernels = {
        number: _Kernel(number, picture.clusters[number], members[number], touching[number], boxes)
        for number in sorted(members)
    }
    return _Outer(picture, boxes, kernels).scene()


class _Kernel:
    """The drawing inside one kernel, with a port for each value that enters or leaves it."""

    def __init__(
        self, number: int, group: Cluster, members: list[Box], edges: list[Edge], boxes: dict[Place, Box]
    ) -> None:
        self.boxes = members
        self.edges: dict[Edge, int] = {}
        self.exits: dict[Place, int] = {}
        items = [Item(box.place, *box_size(box)) for box in members]
        within = [Link(e.source, e.target) for e in edges if not e.crosses]
        rows: dict[Key, int] = {key: layer + 1 for key, layer in assign_layers(items, within).items()}
        last = max(rows.values()) + 1
        links: list[Link] = []
        for edge in edges:
            if edge.target.group != number:
                rows["out", edge.source] = last
                continue
            source: Key = edge.source
            if edge.crosses:
                source = ("in", edge.source)
                rows[source] = 0
            self.edges[edge] = len(links)
            links.append(Link(source, edge.target, 0.0, _arrival(edge, boxes)))
        for place in dict.fromkeys(edge.source for edge in edges if edge.source.group == number and edge.crosses):
            self.exits[place] = len(links)
            links.append(Link(place, ("out", place)))
        items += [Item(key, 0.0, 0.0) for key in rows if not isinstance(key, Place)]
        self.drawing: Arrangement = arrange(items, links, rows)
        title = text_width(group.name, SANS, 12) + 30 + text_width(group.kind, SANS, 10)
        self.width = max(self.drawing.width, title) + 2 * PADDING
        self.height = self.drawing.height + HEADER + PADDING / 2
        self.indent = (self.width - self.drawing.width) / 2

    def port(self, key: Key) -> float:
        """A port's offset from the middle of the kernel."""
        return self.drawing.places[key][0] + self.indent - self.width / 2


def _arrival(edge: Edge, boxes: dict[Place, Box]) -> float:
    """Where on the top of its target an edge arrives: operands from left to right."""
    room = box_size(boxes[edge.target])[0] - 24
    spread = min(PORT_SPREAD, room / max(edge.operands, 1))
    return (edge.operand - (edge.operands - 1) / 2) * spread


class _Outer:
    """The drawing around the kernels."""

    def __init__(self, picture: Picture, boxes: dict[Place, Box], inner: dict[int, _Kernel]) -> None:
        self.picture = picture
        self.boxes = boxes
        self.inner = inner
        self.items = [Item(number, kernel.width, kernel.height) for number, kernel in inner.items()]
        self.items += [Item(box.place, *box_size(box)) for box in picture.boxes if box.place.group is None]
        # Several members of a kernel that read one value share the edge to it.
        self.shared: dict[tuple[Place, Key, float], list[Edge]] = defaultdict(list)
        for edge in picture.edges:
            if edge.crosses:
                self.shared[edge.source, self._end(edge.target), self._arrival(edge)].append(edge)

    def _end(self, place: Place) -> Key:
        return place if place.group is None else place.group

    def _arrival(self, edge: Edge) -> float:
        if edge.target.group is None:
            return 0.0 if edge.target not in self.boxes else _arrival(edge, self.boxes)
        return self.inner[edge.target.group].port(("in", edge.source))

    def _departure(self, source: Place) -> float:
        return 0.0 if source.group is None else self.inner[source.group].port(("out", source))

    def scene(self) -> Scene:
        whole = [Link(self._end(source), target) for source, target, _ in self.shared]
        layers = assign_layers(self.items, whole)
        tags, tag_of = self._cut(layers)
        links = []
        for source, target, arrival in self.shared:
            tag = tag_of.get((source, target))
            if tag is None:
                links.append(Link(self._end(source), target, self._departure(source), arrival))
            else:
                links.append(Link(tag, target, 0.0, arrival))
        items = [*self.items, *(Item(tag, *tag_size(tag)) for tag in tags if isinstance(tag, Tag))]
        drawing = arrange(items, links, layers | tags)
        return self._compose(drawing, items, tag_of)

    def _cut(self, layers: dict[Key, int]) -> tuple[dict[Key, int], dict[tuple[Place, Key], Tag]]:
        """Tags with their layers, and the edges that they replace. Readers near each other share a tag."""
        tags: dict[Key, int] = {}
        tag_of: dict[tuple[Place, Key], Tag] = {}
        readers: dict[Place, set[Key]] = defaultdict(set)
        for source, target, _ in self.shared:
            readers[source].add(target)
        for source, targets in readers.items():
            start = layers[self._end(source)]
            long = LONG
            if self.inner:
                long = LONG_FROM_INPUT if self.boxes[source].kind == "input" else LONG_BETWEEN_KERNELS
            near: tuple[int, Tag] | None = None
            for target in sorted(targets, key=lambda key: layers[key]):
                if layers[target] - start <= long:
                    continue
                if near is None or layers[target] - near[0] > (1 if self.inner else 2):
                    near = (layers[target] - 1, Tag(self.boxes[source], len(tags)))
                    tags[near[1]] = near[0]
                tag_of[source, target] = near[1]
        return tags, tag_of

    def _compose(self, drawing: Arrangement, items: list[Item], tag_of: dict[tuple[Place, Key], Tag]) -> Scene:
        scene = Scene(drawing.width, drawing.height)
        corner: dict[Hashable, Point] = {}
        for item in items:
            x, y = drawing.places[item.key]
            rectangle = Rectangle(x - item.width / 2, y - item.height / 2, item.width, item.height)
            corner[item.key] = (rectangle.x, rectangle.y)
            if isinstance(item.key, Tag):
                scene.tags.append((item.key, rectangle))
            elif isinstance(item.key, int):
                scene.kernels.append((item.key, rectangle))
            elif isinstance(item.key, Place):
                scene.boxes.append((self.boxes[item.key], rectangle))
        for number, kernel in self.inner.items():
            left, top = corner[number][0] + kernel.indent, corner[number][1] + HEADER
            for box in kernel.boxes:
                x, y = kernel.drawing.places[box.place]
                width, height = box_size(box)
                scene.boxes.append((box, Rectangle(left + x - width / 2, top + y - height / 2, width, height)))
            for edge, route in kernel.edges.items():
                if not edge.crosses:
                    points = [(left + x, top + y) for x, y in kernel.drawing.routes[route]]
                    scene.edges.append((self.boxes[edge.source], False, points))
        for (source, target, arrival), route_points in zip(self.shared, drawing.routes, strict=True):
            tagged = (source, target) in tag_of
            for edge in self.shared[source, target, arrival]:
                points = [] if tagged else self._inside(source.group, source, corner, leaving=True)
                points = points + route_points + self._inside(edge.target.group, edge, corner, leaving=False)
                scene.edges.append((self.boxes[source], bool(self.inner), points))
        return scene

    def _inside(
        self, group: int | None, what: Place | Edge, corner: dict[Hashable, Point], leaving: bool
    ) -> list[Point]:
        """The part of an edge that runs inside a kernel."""
        if group is None:
            return []
        kernel = self.inner[group]
        index = kernel.exits[what] if isinstance(what, Place) else kernel.edges[what]
        left, top = corner[group][0] + kernel.indent, corner[group][1] + HEADER
        return [(left + x, top + y) for x, y in kernel.drawing.routes[index]]


def tag_size(tag: Tag) -> tuple[float, float]:
    """Width and height of a tag."""
    return text_width(tag_text(tag), MONO, 9.5) + 16, 18.0


def tag_text(tag: Tag) -> str:
    """What a tag says."""
    return f"↑ {tag.box.title}" if tag.box.number is None else f"↑ %{tag.box.number} {tag.box.title}"
