"""Drawings of a profile: a bar for each layer, and the kernels under the roof of the machine; for light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from gradloom.compiler.views.document import document
from gradloom.compiler.views.typography import MONO, SANS, escaped, text_width
from gradloom.inspection.profile_text import headline, shortened, unit_for
from gradloom.inspection.profiling import KernelTime, LayerTime, Profile
from gradloom.inspection.work import ELEMENTWISE

BY_LAYER, ROOFLINE = "time by layer", "roofline"

MARGIN, HEAD = 28.0, 92.0
"""Around a drawing, and what its title takes."""

NAMES, BARS, FIGURES, LINE, BAR = 230.0, 460.0, 190.0, 22.0, 14.0
"""Of the bar chart: columns of names, bars and figures; a line's height, and a bar's."""

NAMED = 8
"""Kernels whose names stand in the roofline, where there is room for them."""

PLOT_WIDTH, PLOT_HEIGHT, SIDE, FOOT = 720.0, 400.0, 54.0, 46.0
"""Of the roofline: the plot, and the room for its scales."""


def bar_chart(profile: Profile, rows: int | None) -> str:
    """Draw the layers, the dearest first; those after `rows` are told in a note."""
    shown, rest = profile.layers[:rows], profile.layers[len(profile.layers[:rows]) :]
    duration = unit_for(max((layer.seconds for layer in shown), default=0.0))
    longest = max((layer.seconds for layer in shown), default=0.0) or 1.0
    width = 2 * MARGIN + NAMES + BARS + FIGURES
    height = HEAD + LINE * len(shown) + (LINE if rest else 0) + MARGIN + (LINE if profile.doubt else 0)
    lines = _titled(profile, BY_LAYER)
    keys = ["forward", *(["gradient"] if any(layer.gradient_seconds for layer in shown) else [])]
    lines += _legend(dict(zip(keys, keys, strict=True)), MARGIN)
    for number, layer in enumerate(shown):
        lines += _bar(layer, HEAD + LINE * number, BARS / longest, duration(layer.seconds), profile)
    if rest:
        spent = duration(sum(layer.seconds for layer in rest))
        y = HEAD + LINE * len(shown) + 14
        lines.append(f'<text class="note" x="{MARGIN + NAMES:g}" y="{y:g}">{len(rest)} other layers: {spent}</text>')
    return document(_title(profile, BY_LAYER), width, height, _STYLE, [*lines, *_doubt(profile, height)])


def _doubt(profile: Profile, height: float) -> list[str]:
    """The line at the foot of a drawing whose figures are not to be trusted."""
    return [f'<text class="note" x="{MARGIN:g}" y="{height - 14:g}">{profile.doubt}</text>'] if profile.doubt else []


def _legend(keys: Mapping[str, str], x: float) -> list[str]:
    """Squares of the colours with what they mean, in a line."""
    lines = []
    for css, text in keys.items():
        lines.append(f'<rect class="{css}" x="{x:.1f}" y="{HEAD - 28:g}" width="11" height="11" rx="2.5"/>')
        lines.append(f'<text class="note" x="{x + 17:.1f}" y="{HEAD - 18.5:g}">{text}</text>')
        x += 17 + text_width(text, SANS, 11) + 18
    return lines


def _bar(layer: LayerTime, y: float, scale: float, spent: str, profile: Profile) -> list[str]:
    left, middle = MARGIN + NAMES, y + BAR / 2 + 4
    name = layer.path or "(nobody's)"
    told = f"{name}: {spent}, {layer.flops:,.0f} FLOPs, {len(layer.calls)} kernels"
    share = f"{100 * layer.seconds / profile.wall_seconds:.1f} %"
    lines = [
        f'<g class="line"><title>{escaped(told)}</title>',
        f'<text class="name" x="{left - 10:g}" y="{middle:.1f}">{escaped(shortened(name, 34))}</text>',
    ]
    x = left
    for css, seconds in (("forward", layer.forward_seconds), ("gradient", layer.gradient_seconds)):
        if (wide := seconds * scale) >= 0.05:
            lines.append(f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{BAR:g}" rx="2.5"/>')
            x += wide
    rate = f" · {layer.gflops:.3g} GFLOP/s" if layer.flops else ""
    lines.append(
        f'<text class="figure" x="{x + 8:.1f}" y="{middle:.1f}">{spent}'
        f'<tspan class="faint" dx="7">{share}{rate}</tspan></text></g>'
    )
    return lines


def roofline_chart(profile: Profile) -> str:
    """Draw a disc for each kernel that computes, larger for more time, at its FLOPs for each byte and each second."""
    dots = [kernel for kernel in profile.dearest if kernel.flops and kernel.bytes and kernel.seconds]
    width, height = 2 * MARGIN + SIDE + PLOT_WIDTH, HEAD + PLOT_HEIGHT + FOOT + MARGIN / 2
    height += LINE if profile.doubt else 0
    lines = _titled(profile, ROOFLINE)
    lines += _legend({"forward": "forward", "gradient": "gradient", "plain": ELEMENTWISE}, MARGIN + SIDE + 40)
    plot = _Plot(profile, dots)
    lines += plot.grid()
    lines += plot.roofs()
    lines += [plot.dot(kernel) for kernel in dots]
    lines += plot.names(dots)
    return document(_title(profile, ROOFLINE), width, height, _STYLE, [*lines, *_doubt(profile, height)])


class _Plot:
    """Two logarithmic scales: FLOPs for each byte to the right, GFLOP/s upward; `taken` is where lines have names."""

    def __init__(self, profile: Profile, dots: Sequence[KernelTime]) -> None:
        self.profile, self.roof = profile, profile.roof
        self.longest = max((kernel.seconds for kernel in dots), default=0.0)
        self.duration = unit_for(self.longest)
        self.taken: list[_Area] = []
        self.peak, ridge = 1e-9 * self.roof.peak, self.roof.peak / self.roof.memory
        at = [kernel.flops / kernel.bytes for kernel in dots]
        rates = [kernel.gflops for kernel in dots]
        self.low, self.high = min([ridge / 25, *(x / 1.6 for x in at)]), max([ridge * 8, *(x * 2 for x in at)])
        self.slow, self.fast = min([self.peak / 50, *(y / 1.6 for y in rates)]), max([self.peak, *rates]) * 1.6

    def x(self, intensity: float) -> float:
        return MARGIN + SIDE + PLOT_WIDTH * math.log(intensity / self.low) / math.log(self.high / self.low)

    def y(self, gflops: float) -> float:
        return HEAD + PLOT_HEIGHT * (1 - math.log(gflops / self.slow) / math.log(self.fast / self.slow))

    def grid(self) -> list[str]:
        left, bottom = MARGIN + SIDE, HEAD + PLOT_HEIGHT
        lines = []
        for tick in _round_numbers(self.low, self.high, PLOT_WIDTH / 45):
            lines.append(f'<path class="grid" d="M{self.x(tick):.1f} {HEAD:g}V{bottom:g}"/>')
            lines.append(f'<text class="tick middle" x="{self.x(tick):.1f}" y="{bottom + 16:g}">{tick:g}</text>')
        for tick in _round_numbers(self.slow, self.fast, PLOT_HEIGHT / 25):
            lines.append(f'<path class="grid" d="M{left:g} {self.y(tick):.1f}H{left + PLOT_WIDTH:g}"/>')
            lines.append(f'<text class="tick end" x="{left - 8:g}" y="{self.y(tick) + 3.5:.1f}">{tick:g}</text>')
        lines.append(
            f'<text class="note middle" x="{left + PLOT_WIDTH / 2:g}" y="{bottom + 36:g}">'
            "FLOPs for each compulsory byte</text>"
        )
        lines.append(f'<text class="note" x="{MARGIN:g}" y="{HEAD - 18.5:g}">GFLOP/s</text>')
        return lines

    def roofs(self) -> list[str]:
        """The slopes of memory and caches up to the level of the peak."""
        lines = []
        slopes = {"memory": self.roof.memory, "shared cache": self.roof.shared, "own cache": self.roof.cache}
        for number, (name, rate) in enumerate(slopes.items()):
            slope = 1e-9 * rate
            start, end = max(self.low, self.slow / slope), self.peak / slope
            css = "roof" if not number else "roof upper"
            top = f"{self.x(end):.1f} {self.y(self.peak):.1f}"
            lines.append(f'<path class="{css}" d="M{self.x(start):.1f} {self.y(slope * start):.1f}L{top}"/>')
            at = start * (end / start) ** (0.12 + 0.16 * number)
            angle = -math.degrees(math.atan2(self.y(slope * start) - self.y(self.peak), self.x(end) - self.x(start)))
            place = f"{self.x(at):.1f} {self.y(slope * at) - 5:.1f}"
            text = f"{name} {slope:.0f} GB/s"
            lines.append(f'<text class="tick" transform="translate({place})rotate({angle:.1f})">{text}</text>')
            # A slanted text is covered by a square for each of its letters.
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            for letter in range(len(text)):
                along = text_width(text[:letter], MONO, 9.5)
                self.taken.append(_Area(self.x(at) + along * across, self.y(slope * at) - 9 + along * up, 7, 7))
        ridge = self.peak / (1e-9 * self.roof.cache)
        right = MARGIN + SIDE + PLOT_WIDTH
        lines.append(f'<path class="roof" d="M{self.x(ridge):.1f} {self.y(self.peak):.1f}H{right:g}"/>')
        y = self.y(self.peak) - 6
        text = f"peak {self.peak:.0f} GFLOP/s"
        lines.append(f'<text class="tick end" x="{right - 4:g}" y="{y:.1f}">{text}</text>')
        long = text_width(text, MONO, 9.5)
        level = _Area((self.x(ridge) + right) / 2, self.y(self.peak), right - self.x(ridge), 2)
        self.taken += [_Area(right - 4 - long / 2, y - 3, long, 9), level]
        return lines

    def place(self, kernel: KernelTime) -> tuple[float, float, float]:
        """The middle of a kernel's disc, and its radius."""
        radius = 3 + 11 * math.sqrt(kernel.seconds / self.longest)
        return self.x(kernel.flops / kernel.bytes), self.y(kernel.gflops), radius

    def dot(self, kernel: KernelTime) -> str:
        gradient = sum(share for credit, share in kernel.credits.items() if credit.gradient)
        css = "plain" if kernel.kind == ELEMENTWISE else "gradient" if gradient > 0.5 else "forward"
        told = (
            f"{kernel.label}\n{kernel.name}\n{self.duration(kernel.seconds)}, {kernel.gflops:.3g} GFLOP/s, "
            f"{kernel.gbs:.3g} GB/s, {100 * kernel.bound_share:.0f} % of the roof"
        )
        x, y, radius = self.place(kernel)
        circle = f'<circle class="{css} dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
        return f"{circle}<title>{escaped(told)}</title></circle>"

    def names(self, dots: Sequence[KernelTime]) -> list[str]:
        """The names of the dearest, below, above or beside their dots, where nothing else stands."""
        lines: list[str] = []
        taken = [*self.taken, *(_Area(x, y, 2 * radius, 2 * radius) for x, y, radius in map(self.place, dots))]
        left, right = MARGIN + SIDE, MARGIN + SIDE + PLOT_WIDTH
        for kernel in dots[:NAMED]:
            text = shortened(kernel.label, 44)
            long, (x, y, radius) = text_width(text, SANS, 10), self.place(kernel)
            within = min(max(x, left + long / 2), right - long / 2)
            aside, off = radius + 4 + long / 2, radius + 9
            places = [
                _Area(*at, long, 12) for at in ((within, y + off), (within, y - off), (x + aside, y), (x - aside, y))
            ]
            for area in places:
                inside = (
                    left <= area.x - long / 2
                    and area.x + long / 2 <= right
                    and HEAD <= area.y <= HEAD + PLOT_HEIGHT - 6
                )
                if inside and not any(area.meets(other) for other in taken):
                    taken.append(area)
                    lines.append(f'<text class="label" x="{area.x:.1f}" y="{area.y + 3.5:.1f}">{escaped(text)}</text>')
                    break
        return lines


class _Area(NamedTuple):
    """A rectangle by its middle."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: _Area) -> bool:
        apart = abs(self.x - other.x) >= (self.width + other.width) / 2
        return not apart and abs(self.y - other.y) < (self.height + other.height) / 2


def _round_numbers(low: float, high: float, most: float) -> Iterator[float]:
    """1, 2, 5, 10, … between two numbers, or fewer of them where so many do not fit."""
    decades = math.log10(high / low)
    digits = (1, 2, 5) if 3 * decades <= most else (1,)
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        yield from (digit * 10.0**power for digit in digits if low <= digit * 10.0**power <= high)


def _title(profile: Profile, what: str) -> str:
    return f"{what} of {profile.title}"


def _titled(profile: Profile, what: str) -> list[str]:
    """The begin of a drawing: its title, and what was measured."""
    note = f"{headline(profile)}; medians of {profile.steps} steps"
    return [
        f'<text class="title" x="{MARGIN:g}" y="30">{escaped(_title(profile, what))}</text>',
        f'<text class="note" x="{MARGIN:g}" y="49">{escaped(note)}</text>',
    ]


def _colours(page: str, ink: str, quiet: str, grid: str, forward: str, gradient: str, plain: str) -> str:
    return (
        f".page{{fill:{page}}} text{{fill:{ink}}} .note,.tick,.faint{{fill:{quiet}}} .grid{{stroke:{grid}}} "
        f".roof{{stroke:{ink}}} .dot,.label{{stroke:{page}}} .forward{{fill:{forward}}} .gradient{{fill:{gradient}}} "
        f".plain{{fill:{plain}}}"
    )


_STYLE = f"""
text{{font-family:{SANS};font-size:11.5px}} .title{{font-size:17px;font-weight:700}} .note{{font-size:11px}}

.label{{font-size:10px;text-anchor:middle;paint-order:stroke;stroke-width:3px;stroke-linejoin:round}}
.name,.end{{text-anchor:end}} .middle{{text-anchor:middle}} .figure{{font-variant-numeric:tabular-nums}}
.tick{{font-family:{MONO};font-size:9.5px}} .grid{{stroke-width:1;fill:none}} .roof{{stroke-width:1.6;fill:none}}
.upper{{stroke-dasharray:5 4}} .dot{{stroke-width:1;fill-opacity:.85}} .line:hover rect,.dot:hover{{opacity:.7}}
{_colours("#ffffff", "#1b2430", "#5f6b7a", "#e8ebef", "#2f6fde", "#93b8f5", "#8a94a3")}
@media (prefers-color-scheme:dark){{
{_colours("#11151b", "#e8ebf0", "#9aa4b2", "#252c36", "#5b93f2", "#2c5299", "#6b7686")}
}}
"""
