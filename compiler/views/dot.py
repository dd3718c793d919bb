"""A graph in Graphviz's DOT language: kernels as clusters, colours by layer and role. No Graphviz binary is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradloom.compiler.ir import Graph
from gradloom.compiler.views.palette import KIND_HUES, NEUTRAL, box_hues, fill, rim, stroke, wash
from gradloom.compiler.views.picture import Box, Picture, picture_of

if TYPE_CHECKING:
    import graphviz


def to_dot(graph: Graph) -> str:
    """Return the graph as DOT source, for `dot -Tpdf` and the like."""
    return draw_dot(picture_of(graph))


def draw_dot(picture: Picture, rankdir: str = "TB", dpi: int | None = None) -> str:
    """Return a drawing as DOT source. rankdir: "TB", "LR", "BT" or "RL". dpi: of bitmaps made of it."""
    import graphviz

    hues = box_hues(picture)
    names = {box.place: f"n{position}" for position, box in enumerate(picture.boxes)}
    dot = graphviz.Digraph(
        # Quoted by the package; a name of digits or a keyword is no problem.
        picture.name,
        graph_attr={"fontname": "Helvetica", "rankdir": rankdir, "nodesep": "0.25", "ranksep": "0.4"}
        | ({} if dpi is None else {"dpi": str(dpi)}),
        node_attr={"fontname": "Helvetica", "fontsize": "11", "shape": "box", "style": "rounded,filled"},
        edge_attr={"arrowsize": "0.6", "color": "#8a94a3"},
    )
    for box in picture.boxes:
        if box.place.group is None:
            _add(dot, names[box.place], box, hues[box.place])
    for number, group in enumerate(picture.clusters):
        hue = KIND_HUES.get(group.kind, NEUTRAL)
        with dot.subgraph(name=f"cluster_{number}") as cluster:
            label = graphviz.escape(f"{group.name}  ({group.kind})")
            cluster.attr(label=label, style="rounded,filled", color=rim(hue), fillcolor=wash(hue), fontsize="12")
            for box in picture.boxes:
                if box.place.group == number:
                    _add(cluster, names[box.place], box, hues[box.place])
    for edge in picture.edges:
        width = "1.4" if edge.crosses and picture.clusters else "0.9"
        dot.edge(names[edge.source], names[edge.target], penwidth=width)
    return str(dot.source)


def _add(dot: graphviz.Digraph, name: str, box: Box, hue: int | None) -> None:
    import graphviz

    title = box.title + (f"({', '.join(box.operands)})" if box.operands else "")
    if box.attributes:
        title += f" {{{box.attributes}}}"
    label = "\\n".join(graphviz.escape(line) for line in (title, box.type) if line)
    shape = {"style": "filled", "shape": "oval"} if box.kind != "op" else {}
    dot.node(
        name,
        label=label,
        tooltip=graphviz.escape(box.tooltip),
        fillcolor="#f1f3f5" if hue is None else fill(hue),
        color="#8a94a3" if hue is None else stroke(hue),
        **shape,
    )
