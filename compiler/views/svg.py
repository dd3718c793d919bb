"""A graph as SVG: boxes tinted by layer, kernels as shaded areas, for light and dark backgrounds."""

from __future__ import annotations

from gradloom.compiler.ir import Graph
from gradloom.compiler.views import palette
from gradloom.compiler.views.document import document
from gradloom.compiler.views.layout import Point
from gradloom.compiler.views.legend import legend
from gradloom.compiler.views.picture import Box, Picture, Place, picture_of
from gradloom.compiler.views.scene import Rectangle, Tag, shown_attributes, signature, stage, tag_text
from gradloom.compiler.views.typography import MONO, SANS, escaped, text_width

MARGIN = 28.0


def to_svg(graph: Graph) -> str:
    """Return the drawing of a graph as an SVG document."""
    return draw_svg(picture_of(graph))


def draw_svg(picture: Picture) -> str:
    """Return a drawing as an SVG document.

    Constants stand inside their readers. Where an edge would run past many layers, the reader has a tag that names (and
    links to) what it reads. Hovering over a box shows its line of IR, with layers.
    """
    scene = stage(picture)
    hues = palette.box_hues(picture)
    kinds = {
        number: palette.KIND_HUES.get(group.kind, palette.NEUTRAL) for number, group in enumerate(picture.clusters)
    }
    legend_lines, legend_width, legend_height = legend(picture, hues, max(scene.width, 620.0))
    width = max(scene.width, legend_width) + 2 * MARGIN
    left = (width - scene.width) / 2
    top = MARGIN + legend_height
    height = top + scene.height + MARGIN
    used = {hue for hue in hues.values() if hue is not None}
    ids = {place: f"n{number}" for number, place in enumerate(hues)}
    lines = [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto" '
        'markerUnits="userSpaceOnUse"><path class="tip" d="M0 0.8 8 4 0 7.2z"/></marker></defs>',
        f'<g transform="translate({MARGIN:g} {MARGIN:g})">',
        *legend_lines,
        "</g>",
        f'<g transform="translate({left:.1f} {top:.1f})">',
    ]
    for number, rectangle in scene.kernels:
        lines.append(_kernel(kinds[number], rectangle))
    for box, in_memory, points in scene.edges:
        css = "edge memory" if in_memory else "edge"
        lines.append(f'<path class="{css}" d="{_path(points)}"><title>{escaped(box.tooltip)}</title></path>')
    for number, rectangle in scene.kernels:
        group = picture.clusters[number]
        lines.append(_kernel_title(group.name, group.kind, kinds[number], rectangle))
    for box, rectangle in scene.boxes:
        lines += _box(box, rectangle, hues[box.place], ids[box.place])
    for tag, rectangle in scene.tags:
        lines.append(_tag(tag, rectangle, hues[tag.box.place], ids))
    return document(picture.name, width, height, _style(used, set(kinds.values())), [*lines, "</g>"])


def _kernel(hue: int, area: Rectangle) -> str:
    return f'<g class="kernel k{hue}"><rect {_corner(area)} rx="12"/></g>'


def _kernel_title(name: str, kind: str, hue: int, area: Rectangle) -> str:
    y = f"{area.y + 20:.1f}"
    return (
        f'<g class="kernel k{hue}"><text class="kernel-name" x="{area.x + 14:.1f}" y="{y}">{escaped(name)}</text>'
        f'<text class="kernel-kind" x="{area.x + area.width - 12:.1f}" y="{y}">{escaped(kind)}</text></g>'
    )


def _box(box: Box, area: Rectangle, hue: int | None, identity: str) -> list[str]:
    css = f"box h{hue}" if hue is not None else "box"
    radius = area.height / 2 if box.kind != "op" else 7
    lines = [
        f'<g class="{css} {box.kind}" id="{identity}"><title>{escaped(box.tooltip)}</title>'
        f'<rect {_corner(area)} rx="{radius:g}"/>'
    ]
    middle, y = area.x + area.width / 2, area.y + 18.5
    operands = f'<tspan class="operands">{escaped(signature(box))}</tspan>' if box.operands else ""
    indent = 0.0
    if box.number is not None and box.kind == "op":
        label = f"%{box.number}"
        lines.append(f'<text class="number" x="{area.x + area.width - 7:.1f}" y="{area.y + 12:.1f}">{label}</text>')
        indent = (text_width(label, MONO, 9) + 4) / 2
    lines.append(f'<text class="title" x="{middle - indent:.1f}" y="{y:.1f}">{escaped(box.title)}{operands}</text>')
    for css, text in (("type", box.type), ("attributes", shown_attributes(box))):
        if text:
            y += 13.5
            lines.append(f'<text class="{css}" x="{middle:.1f}" y="{y:.1f}">{escaped(text)}</text>')
    return [*lines, "</g>"]


def _tag(tag: Tag, area: Rectangle, hue: int | None, ids: dict[Place, str]) -> str:
    css = f"tag h{hue}" if hue is not None else "tag"
    x, y = area.x + area.width / 2, area.y + 12.5
    return (
        f'<a href="#{ids[tag.box.place]}"><g class="{css}"><title>{escaped(tag.box.tooltip)}</title>'
        f'<rect {_corner(area)} rx="9"/>'
        f'<text class="tag-name" x="{x:.1f}" y="{y:.1f}">{escaped(tag_text(tag))}</text>'
        "</g></a>"
    )


def _corner(area: Rectangle) -> str:
    return f'x="{area.x:.1f}" y="{area.y:.1f}" width="{area.width:.1f}" height="{area.height:.1f}"'


def _path(points: list[Point]) -> str:
    """A curve that leaves and arrives vertically at each point."""
    x, y = points[0]
    parts = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in points[1:]:
        if abs(next_x - x) < 0.05:
            if next_y != y:
                parts.append(f"V{next_y:.1f}")
        else:
            middle = (y + next_y) / 2
            parts.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return "".join(parts)


def _style(hues: set[int], kernels: set[int]) -> str:
    light, dark = (_colours(hues, kernels, dark) for dark in (False, True))
    return f"""
text{{font-family:{SANS};text-anchor:middle}}
.title{{font-size:12.5px;font-weight:600}} .operands{{font-weight:400;fill-opacity:.75}}
.type,.attributes,.number,.tag-name{{font-family:{MONO}}}
.type{{font-size:10.5px;fill-opacity:.85}} .attributes{{font-size:9.5px;fill-opacity:.7}}
.number{{font-size:9px;text-anchor:end;fill-opacity:.55}} .tag-name{{font-size:9.5px}}
.box rect{{stroke-width:1.1}} .input rect{{stroke-width:1.6}} .output rect{{stroke-width:2.2}}
.box:hover rect,.tag:hover rect{{stroke-width:2.6}} .tag rect{{stroke-width:1;stroke-dasharray:3 2}}
.edge{{fill:none;stroke-width:1.1;marker-end:url(#tip)}} .memory{{stroke-width:1.7}} .edge:hover{{stroke-width:3}}
.kernel rect{{stroke-width:1.2}} .kernel text{{paint-order:stroke;stroke-width:5px;stroke-linejoin:round}}
.kernel-name{{font-size:12px;font-weight:600;text-anchor:start}} .kernel-kind{{font-size:10px;text-anchor:end}}
.graph-name{{font-size:17px;font-weight:700;text-anchor:start}} .note,.key{{font-size:11px;text-anchor:start}}
.heading{{font-size:10px;font-weight:600;text-anchor:start;letter-spacing:.06em}}
{light}
@media (prefers-color-scheme:dark){{
{dark}
}}
"""


def _colours(hues: set[int], kernels: set[int], dark: bool) -> str:
    page, ink, quiet, edge, memory, plain, outline = (
        ("#11151b", "#e8ebf0", "#9aa4b2", "#5c6674", "#8c98a8", "#1d232c", "#5b6675")
        if dark
        else ("#ffffff", "#1b2430", "#5f6b7a", "#b3bcc8", "#8591a1", "#f3f5f8", "#98a3b1")
    )
    rules = [
        f".page{{fill:{page}}} text{{fill:{ink}}} .note,.key,.heading{{fill:{quiet}}}",
        f".edge{{stroke:{edge}}} .memory{{stroke:{memory}}} .tip{{fill:{memory}}}",
        f".box rect,.tag rect{{fill:{plain};stroke:{outline}}}",
    ]
    for hue in sorted(hues):
        rules.append(
            f".h{hue} rect{{fill:{palette.fill(hue, dark)};stroke:{palette.stroke(hue, dark)}}}"
            f" .h{hue} text{{fill:{palette.ink(hue, dark)}}}"
        )
    for hue in sorted(kernels):
        rules.append(
            f".k{hue} rect{{fill:{palette.wash(hue, dark)};stroke:{palette.rim(hue, dark)}}}"
            f" .k{hue} text{{fill:{palette.ink(hue, dark)};stroke:{palette.wash(hue, dark)}}}"
        )
    return "\n".join(rules)
