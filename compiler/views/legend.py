"""The head of a drawing: the graph's name and figures, and what colours and lines mean."""

from __future__ import annotations

from gradloom.compiler.views import palette
from gradloom.compiler.views.picture import Picture, Place
from gradloom.compiler.views.typography import SANS, escaped, text_width

MAX_LAYERS = 24
ROW = 20.0


def legend(picture: Picture, hues: dict[Place, int | None], room: float) -> tuple[list[str], float, float]:
    """Return the lines of SVG, the width and the height of the legend, wrapped to `room`."""
    notes = " · ".join(picture.notes)
    lines = [
        f'<text class="graph-name" x="0" y="14">{escaped(picture.name)}</text>',
        f'<text class="note" x="0" y="33">{escaped(notes)}</text>',
    ]
    width = max(text_width(picture.name, SANS, 18), text_width(notes, SANS, 11))
    y = 58.0
    for heading, entries in _sections(picture, hues):
        x = 78.0
        lines.append(f'<text class="heading" x="0" y="{y:g}">{heading}</text>')
        for swatch, text in entries:
            advance = 22 + text_width(text, SANS, 11) + 14
            if x + advance > room and x > 78:
                x, y = 78.0, y + ROW
            lines.append(f'<g transform="translate({x:.1f} {y - 9:g})">{swatch}')
            lines.append(f'<text class="key" x="21" y="9">{escaped(text)}</text></g>')
            x += advance
            width = max(width, x - 14)
        y += ROW
    return lines, width, y + 4


def _sections(picture: Picture, hues: dict[Place, int | None]) -> list[tuple[str, list[tuple[str, str]]]]:
    layers = picture.layers
    sections = []
    if layers:
        shown = [
            (_swatch(f"h{palette.HUES[n % len(palette.HUES)]}", 3), name) for n, name in enumerate(layers[:MAX_LAYERS])
        ]
        if len(layers) > MAX_LAYERS:
            shown.append(("", f"… {len(layers) - MAX_LAYERS} more"))
        sections.append(("LAYERS", shown))
    roles = dict.fromkeys(box.role for box in picture.boxes if box.role)
    if roles:
        kind_of = {box.role: box.kind for box in picture.boxes}
        names = [
            (_swatch(f"h{palette.role_hue(role)} {kind_of[role]}", 3 if kind_of[role] == "op" else 6), role)
            for role in roles
        ]
        sections.append(("ROLES", names))
    if picture.clusters:
        kinds = dict.fromkeys(cluster.kind for cluster in picture.clusters)
        entries = [(_swatch(f"kernel k{palette.KIND_HUES.get(kind, palette.NEUTRAL)}", 3), kind) for kind in kinds]
        if picture.heading == "KERNELS":
            entries += [(_line("edge memory"), "in memory"), (_line("edge"), "in registers")]
        sections.append((picture.heading, entries))
    return sections


def _swatch(css: str, radius: float) -> str:
    kind = css if "kernel" in css else f"box {css}"
    return f'<g class="{kind}"><rect width="15" height="12" y="-1.5" rx="{radius:g}"/></g>'


def _line(css: str) -> str:
    return f'<path class="{css}" d="M0 4.5H15"/>'
