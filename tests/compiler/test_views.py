"""Drawings: the layout keeps its promises for any graph, SVG and DOT show every node, networkx has every edge."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.ir import Constant, Graph, Group, Input
from gradloom.compiler.passes.fuse import fuse
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.provenance import layer_scope
from gradloom.compiler.types import F32, TensorType
from gradloom.compiler.views import to_dot, to_networkx, to_svg
from gradloom.compiler.views.layout import Arrangement, Item, Key, Link, arrange, assign_layers
from gradloom.compiler.views.picture import picture_of
from gradloom.compiler.views.scene import Scene, stage
from gradloom.testing import graphs

SVG = "{http://www.w3.org/2000/svg}"
Case = tuple[Graph, dict[str, np.ndarray]]


def mlp(layers: int = 2) -> Graph:
    """Dense layers, and a result that is written onto a state."""
    graph = Graph("mlp")
    x = graph.input("x", TensorType(F32, (32, 16)), "data")
    total = graph.input("total", TensorType(F32, ()), "state")
    for number in range(layers):
        with layer_scope(f"dense_{number}"):
            kernel = graph.input(f"dense_{number}/kernel", TensorType(F32, (16, 16)), "parameter")
            x = ops.relu(x @ kernel + 0.5)
    graph.output("total", total + ops.sum(x), total)
    graph.output("result", x)
    return graph


def long_chain() -> Graph:
    """A chain whose last node also reads the first."""
    graph = Graph("long")
    first = value = ops.exp(graph.input("x", TensorType(F32, (4,))))
    for _ in range(30):
        value = ops.tanh(value)
    graph.output("y", value + first)
    return graph


def fused(graph: Graph) -> Graph:
    return fuse(simplify(graph))[0]


# Layout.


@st.composite
def drawn_graphs(draw: st.DrawFn) -> tuple[list[Item], list[Link]]:
    """Rectangles of all sizes, with links from earlier to later ones, some of them double."""
    count = draw(st.integers(1, 14))
    items = [Item(n, draw(st.floats(0, 200)), draw(st.floats(0, 90))) for n in range(count)]
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=24))
    return items, [Link(min(a, b), max(a, b)) for a, b in pairs if a != b]


@given(drawn_graphs())
def test_layers_run_downward(case: tuple[list[Item], list[Link]]) -> None:
    items, links = case
    layers = assign_layers(items, links)
    assert set(layers) == {item.key for item in items}
    assert min(layers.values()) == 0
    for link in links:
        assert layers[link.source] < layers[link.target]


@given(drawn_graphs())
def test_nothing_overlaps_and_links_meet_their_ends(case: tuple[list[Item], list[Link]]) -> None:
    items, links = case
    drawing = arrange(items, links, assign_layers(items, links))
    size = {item.key: (item.width, item.height) for item in items}
    for position, item in enumerate(items):
        x, y = drawing.places[item.key]
        width, height = size[item.key]
        assert x - width / 2 >= -0.01 and x + width / 2 <= drawing.width + 0.01
        assert y - height / 2 >= -0.01 and y + height / 2 <= drawing.height + 0.01
        for other in items[:position]:
            other_x, other_y = drawing.places[other.key]
            apart = abs(x - other_x) >= (width + size[other.key][0]) / 2 - 0.01
            assert apart or abs(y - other_y) >= (height + size[other.key][1]) / 2 - 0.01
    for link, route in zip(links, drawing.routes, strict=True):
        assert route[0] == pytest.approx(_end(drawing, link.source, size[link.source][1] / 2))
        assert route[-1] == pytest.approx(_end(drawing, link.target, -size[link.target][1] / 2))
        assert all(upper[1] <= lower[1] + 0.01 for upper, lower in pairwise(route))


def _end(drawing: Arrangement, key: Key, below: float) -> tuple[float, float]:
    x, y = drawing.places[key]
    return x, y + below


def test_a_chain_is_straight() -> None:
    items = [Item(n, 40.0 + 10 * (n % 3), 20.0) for n in range(12)]
    links = [Link(n, n + 1) for n in range(11)]
    places = arrange(items, links, assign_layers(items, links)).places
    assert {round(x, 3) for x, _ in places.values()} == {round(places[0][0], 3)}


def test_two_chains_do_not_cross() -> None:
    """Given in the order that crosses: a–d and b–c."""
    items = [Item(key, 30.0, 20.0) for key in "abcd"]
    links = [Link("a", "d"), Link("b", "c"), Link("a", "d"), Link("b", "c")]
    places = arrange(
        [*items, Item("e", 30.0, 20.0)],
        [*links, Link("c", "e"), Link("d", "e")],
        {**dict.fromkeys("ab", 0), **dict.fromkeys("cd", 1), "e": 2},
    ).places
    assert (places["a"][0] < places["b"][0]) == (places["d"][0] < places["c"][0])


def test_inputs_stand_above_their_first_reader() -> None:
    items = [Item(key, 30.0, 20.0) for key in ["x", "w", 1, 2, 3]]
    links = [Link("x", 1), Link(1, 2), Link(2, 3), Link("w", 3)]
    assert assign_layers(items, links) == {"x": 0, 1: 1, 2: 2, "w": 2, 3: 3}


# SVG.


def parts(svg: str, css: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    return [element for element in root.iter() if css in element.get("class", "").split()]


def scene_of(graph: Graph) -> Scene:
    return stage(picture_of(graph))


@given(graphs(), st.booleans())
def test_every_node_is_drawn_once_in_each_kernel(case: Case, fuse_it: bool) -> None:
    graph = fused(case[0]) if fuse_it else case[0]
    svg = to_svg(graph)
    ElementTree.fromstring(svg)
    shown = [value for value in graph.live() if not isinstance(value.op, Constant | Input)]
    copies = [
        member for group in graph.groups for member in group.members if not isinstance(member.op, Constant | Input)
    ]
    expected = len(set(shown) - set(copies)) + len(copies)
    results = {output.value for output in graph.outputs if isinstance(output.value.op, Constant)}
    assert len(parts(svg, "op")) == expected + len(results)
    assert len(parts(svg, "kernel-name")) == len(graph.groups)


@given(graphs())
def test_boxes_do_not_overlap_and_lie_in_their_kernels(case: Case) -> None:
    graph = fused(case[0])
    scene = scene_of(graph)
    areas = dict(scene.kernels)
    for position, (box, area) in enumerate(scene.boxes):
        for _, other in [*scene.boxes[:position], *scene.tags]:
            beside = area.x + area.width <= other.x + 0.01 or other.x + other.width <= area.x + 0.01
            assert beside or area.y + area.height <= other.y + 0.01 or other.y + other.height <= area.y + 0.01
        if box.place.group is not None:
            kernel = areas[box.place.group]
            assert kernel.x <= area.x and area.x + area.width <= kernel.x + kernel.width
            assert kernel.y <= area.y and area.y + area.height <= kernel.y + kernel.height


def test_a_drawing_says_what_is_in_it() -> None:
    graph = mlp()
    svg = to_svg(graph)
    text = "\n".join(ElementTree.fromstring(svg).itertext())
    for expected in ("mlp", "matmul", "f32[32,16]", "dense_0/kernel", "parameter", "dense_1", "in place", "result"):
        assert expected in text
    # Constants stand in their readers, and the tooltip is the line of IR.
    assert "(·, 0.5)" in text
    assert "%3: f32[32,16] = matmul %0 %2" in text
    assert [box.title for box, _ in scene_of(graph).boxes if box.title == "constant"] == []


def test_a_drawing_is_the_same_every_time() -> None:
    assert to_svg(mlp()) == to_svg(mlp())
    assert to_svg(fused(mlp())) == to_svg(fused(mlp()))


def test_colours_follow_the_background() -> None:
    svg = to_svg(mlp())
    light, _, dark = svg.partition("@media (prefers-color-scheme:dark)")
    fills = [re.findall(r"\.page\{fill:(#\w+)\}", css) for css in (light, dark)]
    assert all(fills) and fills[0] != fills[1]


def test_drawings_in_one_page_leave_one_another_alone() -> None:
    """Every rule is for one drawing, every id in one drawing, and what refers to an id finds its own."""
    drawings = [to_svg(long_chain()), to_svg(fused(mlp()))]
    seen: set[str] = set()
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        own = root.get("class", "")
        style = re.sub(r"@media [^{]*\{", "", svg.partition("<style>")[2].partition("</style>")[0])
        selectors = [each for rule in re.findall(r"([^{}]+)\{", style) for each in rule.split(",")]
        assert own and len(selectors) > 9 and all(each.strip().startswith(f".{own} ") for each in selectors)
        ids = {element.get("id", "") for element in root.iter()} - {""}
        named = re.findall(r'(?:url\(|href=")#([^)"]+)', svg)
        assert set(named) <= ids and not ids & seen and own not in seen
        seen |= ids | {own}
    assert "href=" in drawings[0] and "url(#" in drawings[0]


def test_long_edges_become_tags_that_link_to_what_they_name() -> None:
    svg = to_svg(long_chain())
    (tag,) = parts(svg, "tag")
    assert "↑ %1 exp" in "".join(tag.itertext())
    (link,) = ElementTree.fromstring(svg).iter(f"{SVG}a")
    target = [
        element for element in ElementTree.fromstring(svg).iter() if element.get("id") == link.get("href", "")[1:]
    ]
    assert "exp" in "".join(target[0].itertext())


def test_names_are_escaped() -> None:
    graph = Graph("<a&b>\0")
    with layer_scope("</svg>\x1b"):
        x = graph.input('"<x>', TensorType(F32, (2,)))
        graph.output("<&", ops.exp(x))
    graph.groups = (Group("<k>&", "map", (graph.outputs[0].value,), (graph.outputs[0].value,)),)
    root = ElementTree.fromstring(to_svg(graph))
    assert "<k>&" in "".join(root.itertext())
    assert to_dot(graph)


def test_names_of_layers_stand_as_they_are() -> None:
    graph = Graph("quoted")
    with layer_scope('a "b", <c>'):
        graph.output("y", ops.exp(graph.input("x", TensorType(F32, (2,)))))
    keys = ["".join(key.itertext()) for key in parts(to_svg(graph), "key")]
    assert 'a "b", <c>' in keys
    assert to_networkx(graph).nodes[1]["layers"] == ['a "b", <c>']
    assert r'# "a \"b\", <c>"' in str(graph)


def test_a_graph_of_thousands_of_nodes_is_drawn() -> None:
    graph = mlp(layers=500)
    svg = to_svg(graph)
    assert len(parts(svg, "op")) > 1500
    # Bounded work also means a bounded picture: long edges are cut, not routed through a thousand layers.
    assert len(svg) < 3000 * len(graph.values)


@pytest.mark.parametrize("graph", [Graph("empty"), Graph("one")])
def test_graphs_with_nothing_in_them_are_drawn(graph: Graph) -> None:
    if graph.name == "one":
        graph.output("c", graph.constant(np.arange(3)))
    ElementTree.fromstring(to_svg(graph))
    assert to_dot(graph).startswith("digraph")
    assert len(to_networkx(graph)) == len(graph.live())


# DOT and networkx.


def test_dot_has_clusters_colours_and_every_edge() -> None:
    graph = fused(mlp())
    dot = to_dot(graph)
    picture = picture_of(graph)
    assert dot.count("->") == len(picture.edges)
    assert dot.count("subgraph cluster_") == len(graph.groups)
    assert dot.count("{") == dot.count("}")
    assert len(set(re.findall(r'fillcolor="(#\w+)"', dot))) >= 4
    assert graph.groups[0].name in dot


def test_dot_golden(golden: Callable[[str, str], None]) -> None:
    golden("mlp.dot", to_dot(mlp()))


@given(graphs(), st.booleans())
def test_networkx_has_every_node_and_edge(case: Case, fuse_it: bool) -> None:
    graph = fused(case[0]) if fuse_it else case[0]
    digraph = to_networkx(graph)
    live = graph.live()
    assert set(digraph) == {value.number for value in live}
    assert networkx.is_directed_acyclic_graph(digraph)
    for value in live:
        node = digraph.nodes[value.number]
        assert (node["op"], node["type"]) == (value.op.name, str(value.type))
        operands = {}
        for source, _, data in digraph.in_edges(value.number, data=True):
            operands |= dict.fromkeys(data["operands"], source)
        assert [operands[position] for position in range(len(value.inputs))] == [v.number for v in value.inputs]
        assert node["groups"] == [group.name for group in graph.groups if value in group.members]
        assert node["group"] == (node["groups"][0] if node["groups"] else None)


def test_networkx_attributes() -> None:
    digraph = to_networkx(mlp())
    by_op = {data["op"]: data for _, data in digraph.nodes(data=True)}
    assert by_op["matmul"]["layer"] == "dense_1"
    assert by_op["matmul"]["attributes"] == {"transpose_a": False, "transpose_b": False}
    assert by_op["maximum"]["outputs"] == ["result"]
    assert [data["role"] for _, data in digraph.nodes(data=True) if data["op"] == "input"] == [
        "data",
        "state",
        "parameter",
        "parameter",
    ]
