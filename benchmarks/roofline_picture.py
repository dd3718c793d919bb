"""Draws what `roofline.py` has measured: on the left the roofline, on the right where the time of a step goes.

A numbered disc is a kind of kernel, at the FLOPs that it executes for each byte and in each second; a ring above the
roof is the same kernel counted by the FLOPs of its definition. A bar is the time of a kind in a step, its dark part the
time that the executed FLOPs take at peak. Writes `roofline-NAME.svg` for each program; needs matplotlib (extra
`examples`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import OUT

SHOWN = 16
"""Kinds of kernels that are drawn one by one; bars of the others are one."""

LEAST = 0.004
"""Share of the time of a step from which on a kind is drawn by itself."""

COLOURS = {
    "Winograd": "#5b5bd6",
    "3×3": "#0e8f6e",
    "1×1": "#d98000",
    "gradient of kernels": "#c2356b",
    "matrix product": "#2477c9",
    "element by element": "#7d838c",
}
INK, FAINT, GRID = "#1f2430", "#6b7280", "#e6e8ec"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradloom",
}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write the drawing of one program."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [part for part in result["parts"] if part["seconds"] >= LEAST * result["kernels"]][:SHOWN]
    with pyplot.rc_context(STYLE):
        height = max(4.4, 1.3 + 0.24 * (len(parts) + 1))
        figure, (roof, bars) = pyplot.subplots(
            1, 2, figsize=(10.6, height), width_ratios=(1.25, 1), layout="constrained"
        )
        figure.suptitle(f"{result['title']}, on one core", x=0.012, ha="left", fontsize=12, fontweight="bold")
        _roofline(roof, parts, result["roof"])
        _bars(bars, parts, result)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None}, facecolor="white", dpi=110)
        pyplot.close(figure)


def _roofline(axes: Any, parts: Sequence[Mapping[str, Any]], roof: Mapping[str, float]) -> None:
    from matplotlib.ticker import LogLocator

    points = [
        (number, part, part["flops"] / part["bytes"], 1e-9 * part["flops"] / part["seconds"])
        for number, part in enumerate(parts, 1)
        if part["flops"] and part["bytes"]
    ]
    peak = 1e-9 * roof["peak"]
    ridge = roof["peak"] / roof["memory"]
    low, high = min(ridge / 25, *(x / 1.6 for *_, x, _ in points)), max(x * 12 for *_, x, _ in points)
    top = max(peak, *(y * part["defined"] / part["flops"] for _, part, _, y in points))
    slow = min(peak / 9, *(y / 1.6 for *_, y in points))
    # Labels stand beside the slopes: below the solid one, above the dashed one.
    for name, label, style, side, height in (
        ("memory", "memory", "-", 1, 0.25),
        ("cache", "own L2", (0, (4, 3)), -1, 0.7),
    ):
        slope = 1e-9 * roof[name]
        start, end = max(low, slow / slope), peak / slope
        axes.plot([start, end], [slope * start, peak], color=INK, lw=1.4, ls=style, zorder=2)
        at = start ** (1 - height) * end**height
        axes.annotate(
            f"{label}\n{slope:.0f} GB/s",
            (at, slope * at),
            xytext=(7 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="top" if side > 0 else "bottom",
            fontsize=8,
            color=FAINT,
        )
    axes.plot([peak / (1e-9 * roof["cache"]), high], [peak, peak], color=INK, lw=1.4, zorder=2)
    axes.annotate(
        f"fma on registers\n{peak:.0f} GFLOP/s",
        (high, peak),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=FAINT,
    )
    for number, part, x, y in points:
        colour = COLOURS[part["kind"]]
        more = part["defined"] / part["flops"]
        if more > 1.2:
            axes.plot([x, x * more], [y, y * more], color=colour, lw=0.9, alpha=0.55, zorder=3)
            axes.plot(x * more, y * more, "o", ms=7, mfc="white", mec=colour, mew=1.3, zorder=4)
        axes.plot(x, y, "o", ms=11, mfc=colour, mec="white", mew=0.8, zorder=5)
        axes.annotate(
            str(number), (x, y), ha="center", va="center_baseline", fontsize=6.5, color="white", weight="bold", zorder=6
        )
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(slow, 1.7 * top))
    axes.set_xlabel("FLOPs for each compulsory byte")
    axes.set_ylabel("GFLOP/s")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: "")
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)


def _bars(axes: Any, parts: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> None:
    rest = result["parts"][len(parts) :]
    scale, unit = (1e3, "ms") if result["kernels"] > 0.01 else (1e6, "µs")
    longest = scale * max(part["seconds"] for part in parts)
    lines = [(f"{number}", part["name"], part) for number, part in enumerate(parts, 1)]
    if rest:
        keys = ("count", "flops", "seconds")
        together = {key: sum(part[key] for part in rest) for key in keys}
        lines.append(("", f"{len(rest)} other kinds", {**together, "kind": "element by element"}))
    for at, (number, name, part) in enumerate(lines):
        colour, length = COLOURS[part["kind"]], scale * part["seconds"]
        least = scale * part["flops"] / result["roof"]["peak"]
        digits = 1 if length >= 10 else 2
        # What is left is no kind of its own, and its bar might be the longest.
        end = length if number else 0
        axes.barh(at, end, height=0.7, color=colour, alpha=0.3, lw=0)
        axes.barh(at, min(least, end), height=0.7, color=colour, lw=0)
        times = f"{part['count']}× " if number and part["count"] > 1 else ""
        axes.annotate(
            f"{length:.{digits}f} {unit}   {100 * least / length:.0f} %",
            (end, at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=7.5,
            color=FAINT,
        )
        axes.annotate(
            f"{times}{name}",
            (0, at),
            xytext=(-24, 0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            fontsize=8,
        )
        if number:
            axes.annotate(
                number,
                (0, at),
                xytext=(-11, 0),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white",
                weight="bold",
                bbox={"boxstyle": "circle,pad=0.28", "fc": colour, "ec": "none"},
            )
    axes.set(xlim=(0, longest * 1.42), ylim=(len(lines) - 0.4, -0.6), yticks=[], xticks=[])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.set_title(
        f"{scale * result['kernels']:.0f} {unit} a step; dark: executed FLOPs at peak",
        loc="left",
        fontsize=8.5,
        color=FAINT,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all programs of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=OUT / "roofline.json", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=OUT, help="where drawings go (default: %(default)s)")
    parser.add_argument("--format", default="svg", help="svg or png (default: %(default)s)")
    options = parser.parse_args(argv)
    for name, result in json.loads(options.results.read_text())["results"].items():
        path = options.folder / f"roofline-{name}.{options.format}"
        draw(result, path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
