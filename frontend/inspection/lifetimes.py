"""The memory of a step: every intermediate buffer with its size, lifetime and owner, the peak, and a chart."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gradloom.compiler.cached import cached_property
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.views import palette
from gradloom.compiler.views.document import document
from gradloom.compiler.views.typography import MONO, SANS, escaped, text_width

if TYPE_CHECKING:
    import networkx

WIDTH, HEIGHT, LEFT, TOP, CURVE = 900.0, 380.0, 92.0, 64.0, 90.0
"""Of the chart in pixels: what its areas take, where the first begins, and the height of the curve below."""

THIN = 6.0
"""Pixels of height below which a firm outline would hide a buffer."""


@dataclass(frozen=True)
class LiveBuffer:
    """An intermediate result in the arena: bytes from `offset` on, needed from call `first` to call `last`.

    `owner` is the kernel that makes it, named by layers and ops; `layers` are their paths.
    """

    name: str
    nbytes: int
    offset: int
    first: int
    last: int
    owner: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemoryReport:
    """The arena of a step, in bytes, by the calls of the schedule.

    `scratch_bytes` is what each thread has besides, `calls` the number of calls. Arguments (weights, data) are the
    caller's, and not part of it.
    """

    title: str
    buffers: tuple[LiveBuffer, ...]
    arena_bytes: int
    scratch_bytes: int
    calls: int

    @cached_property
    def alive(self) -> list[int]:
        """For each call the bytes that are alive during it."""
        change = [0] * (self.calls + 1)
        for buffer in self.buffers:
            change[buffer.first] += buffer.nbytes
            change[buffer.last + 1] -= buffer.nbytes
        totals, total = [], 0
        for step in change[:-1]:
            total += step
            totals.append(total)
        return totals

    @property
    def peak_bytes(self) -> int:
        """The most bytes alive during any call; the arena may be somewhat larger, for the gaps between buffers."""
        return max(self.alive, default=0)

    @property
    def peak_call(self) -> int:
        """The first call during which so many are."""
        return self.alive.index(self.peak_bytes) if self.alive else 0

    @property
    def holders(self) -> list[LiveBuffer]:
        """The buffers that are alive at the peak, the largest first."""
        at = self.peak_call
        held = [buffer for buffer in self.buffers if buffer.first <= at <= buffer.last]
        return sorted(held, key=lambda buffer: (-buffer.nbytes, buffer.offset))

    def text(self) -> str:
        """Return a table of all buffers, and who holds the peak."""
        lines = [
            f"arena {self.arena_bytes:,} bytes, scratch {self.scratch_bytes:,} bytes a thread, calls: {self.calls:,}",
            f"peak {self.peak_bytes:,} bytes in call {self.peak_call}, held by "
            + (", ".join(f"{buffer.name} ({buffer.nbytes:,})" for buffer in self.holders) or "nothing"),
        ]
        rows = [("buffer", "bytes", "offset", "calls", "owner")]
        rows += [(b.name, f"{b.nbytes:,}", f"{b.offset:,}", f"{b.first}–{b.last}", b.owner) for b in self.buffers]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, nbytes, offset, calls, owner in rows if self.buffers else ():
            lines.append(
                f"{name:<{widths[0]}}  {nbytes:>{widths[1]}}  {offset:>{widths[2]}}  {calls:>{widths[3]}}  {owner}"
            )
        return "\n".join(lines) + "\n"

    def json(self) -> dict[str, Any]:
        """Return all of it as dicts and lists that `json.dumps` takes."""
        return {
            "title": self.title,
            "buffers": [asdict(buffer) | {"layers": list(buffer.layers)} for buffer in self.buffers],
            "alive": self.alive,
            "holders": [buffer.name for buffer in self.holders],
            "calls": self.calls,
            **self.figures(),
        }

    def figures(self) -> dict[str, int]:
        """The figures of the whole, by name."""
        return {
            "arena_bytes": self.arena_bytes,
            "scratch_bytes": self.scratch_bytes,
            "peak_bytes": self.peak_bytes,
            "peak_call": self.peak_call,
        }

    def svg(self) -> str:
        """Return the chart of lifetimes: calls to the right, addresses downward, and the bytes alive below.

        Colours tell layers apart, the holders of the peak have a firm outline; it follows light or dark colours.
        """
        return _chart(self)

    def _repr_svg_(self) -> str:
        return self.svg()

    def __str__(self) -> str:
        return self.text()


def memory_report(title: str, lowering: Lowering, network: networkx.DiGraph) -> MemoryReport:
    """Read a program's memory plan; `network` is that of its kernels, who own the buffers."""
    plan = lowering.memory
    buffers = []
    for slot in plan.slots.values():
        makers = [network.nodes[call] for call in sorted(network.predecessors(slot.name))]
        # What clears a border names the buffer; who fills it says more.
        makers.sort(key=lambda maker: maker["group"] is None)
        owner: str = makers[0]["name"] if makers else slot.name
        layers: list[str] = makers[0]["layers"] if makers else []
        buffers.append(LiveBuffer(slot.name, slot.nbytes, slot.offset, slot.first, slot.last, owner, tuple(layers)))
    buffers.sort(key=lambda buffer: (buffer.offset, buffer.first))
    calls = len(lowering.scheduled.launches)
    return MemoryReport(title, tuple(buffers), plan.arena_bytes, plan.scratch_bytes, calls)


def _chart(report: MemoryReport) -> str:
    layers = list(dict.fromkeys(buffer.layers[0] for buffer in report.buffers if buffer.layers))
    hues = {layer: palette.HUES[number % len(palette.HUES)] for number, layer in enumerate(layers)}
    across, down = WIDTH / max(report.calls, 1), HEIGHT / max(report.arena_bytes, 1)
    width, height = LEFT + WIDTH + 28, TOP + HEIGHT + 34 + CURVE + 44
    note = (
        f"arena {report.arena_bytes:,} bytes · {len(report.buffers):,} buffers · "
        f"peak {report.peak_bytes:,} bytes in call {report.peak_call}"
    )
    lines = [
        f'<text class="name" x="28" y="30">memory of {escaped(report.title)}</text>',
        f'<text class="note" x="28" y="49">{note}</text>',
    ]
    lines += _grid(report, TOP, HEIGHT, report.arena_bytes, downward=True)
    peak = LEFT + report.peak_call * across
    lines.append(f'<rect class="peak" x="{peak:.1f}" y="{TOP:g}" width="{max(across, 1.5):.1f}" height="{HEIGHT:g}"/>')
    held = set(report.holders)
    for buffer in report.buffers:
        x, y = LEFT + buffer.first * across, TOP + buffer.offset * down
        wide, high = max((buffer.last + 1 - buffer.first) * across, 1.0), max(buffer.nbytes * down, 1.0)
        hue = f"h{hues[buffer.layers[0]]}" if buffer.layers else ""
        title = (
            f"{buffer.name}: {buffer.nbytes:,} bytes at {buffer.offset:,}, calls {buffer.first}–{buffer.last}\n"
            f"{buffer.owner}"
        )
        css = " ".join(filter(None, ("buffer", hue, "held" * (buffer in held), "thin" * (high < THIN))))
        lines.append(f'<g class="{css}"><title>{escaped(title)}</title>')
        lines.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="{min(3.0, high / 3):.1f}"/>'
        )
        label = next((text for text in (buffer.owner, buffer.name) if text_width(text, SANS, 10) + 8 <= wide), "")
        if label and high >= 14:
            lines.append(f'<text x="{x + wide / 2:.1f}" y="{y + high / 2 + 3.5:.1f}">{escaped(label)}</text>')
        lines.append("</g>")
    lines += _curve(report, TOP + HEIGHT + 34, across)
    return document(f"memory of {report.title}", width, height, _style(sorted(set(hues.values()))), lines)


def _curve(report: MemoryReport, top: float, across: float) -> list[str]:
    """The bytes alive during each call."""
    down = CURVE / max(report.peak_bytes, 1)
    lines = _grid(report, top, CURVE, report.peak_bytes, downward=False)
    path = f"M{LEFT:g} {top + CURVE:g}"
    for call, alive in enumerate(report.alive):
        path += f"V{top + CURVE - alive * down:.1f}H{LEFT + (call + 1) * across:.1f}"
    lines.append(f'<path class="alive" d="{path}V{top + CURVE:g}Z"><title>bytes alive during each call</title></path>')
    for call in _ticks(report.calls):
        x = LEFT + call * across
        lines.append(f'<text class="tick" x="{x:.1f}" y="{top + CURVE + 16:g}">{call}</text>')
    lines.append(f'<text class="note" x="{LEFT:g}" y="{top + CURVE + 34:g}">calls, in order</text>')
    return lines


def _grid(report: MemoryReport, top: float, height: float, nbytes: int, downward: bool) -> list[str]:
    """Lines at round numbers of bytes, with their names on the left."""
    lines = []
    for tick in _ticks(nbytes, 5):
        y = top + height * (tick / max(nbytes, 1) if downward else 1 - tick / max(nbytes, 1))
        lines.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{LEFT + WIDTH:g}"/>')
        lines.append(f'<text class="tick left" x="{LEFT - 8:g}" y="{y + 3.5:.1f}">{_bytes(tick)}</text>')
    return lines


def _ticks(total: int, most: int = 12) -> range:
    """Round numbers from 0 to `total`."""
    steps = (digit * 10**power for power in itertools.count() for digit in (1, 2, 5))
    return range(0, total + 1, next(step for step in steps if total / step <= most))


def _bytes(count: int) -> str:
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} B"


def _style(hues: list[int]) -> str:
    light, dark = (_colours(hues, dark) for dark in (False, True))
    return f"""
text{{font-family:{SANS};text-anchor:middle;font-size:10px}}
.name{{font-size:17px;font-weight:700;text-anchor:start}} .note{{font-size:11px;text-anchor:start}}
.tick{{font-family:{MONO};font-size:9.5px}} .left{{text-anchor:end}} .grid{{stroke-width:1;fill:none}}
.buffer rect{{stroke-width:.8}} .held rect{{stroke-width:2}} .thin rect{{stroke-width:.5}}
.buffer:hover rect{{stroke-width:3}}
{light}
@media (prefers-color-scheme:dark){{
{dark}
}}
"""


def _colours(hues: list[int], dark: bool) -> str:
    page, ink, quiet, grid, mark = (
        ("#11151b", "#e8ebf0", "#9aa4b2", "#262d37", "#3a2a12")
        if dark
        else ("#ffffff", "#1b2430", "#5f6b7a", "#e8ebef", "#fdf0d5")
    )
    rules = [
        f".page{{fill:{page}}} text{{fill:{ink}}} .note,.tick{{fill:{quiet}}} .grid{{stroke:{grid}}}",
        f".peak{{fill:{mark}}} .buffer rect{{fill:{palette.fill(215, dark)};stroke:{palette.stroke(215, dark)}}}",
        f".alive{{fill:{palette.fill(188, dark)};stroke:{palette.stroke(188, dark)};stroke-width:1.2}}",
    ]
    rules += [
        f".h{hue} rect{{fill:{palette.fill(hue, dark)};stroke:{palette.stroke(hue, dark)}}}"
        f" .h{hue} text{{fill:{palette.ink(hue, dark)}}}"
        for hue in hues
    ]
    return "\n".join(rules)
