"""A profile as text: the kernels and the layers as tables of at most 100 columns, totals, the roof."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gradloom.inspection.profiling import Profile

WIDTH = 100
"""Columns."""

BAR = 8
"""Columns of the longest bar."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def profile_text(profile: Profile, rows: int | None) -> str:
    """Return the tables, each with the dearest lines first and at most so many."""
    duration = unit_for(max([kernel.seconds for kernel in profile.kernels] or [0.0]))
    kernels = [
        [
            kernel.label,
            duration(kernel.seconds),
            *_share(kernel.seconds, profile),
            _rate(kernel.gflops) if kernel.flops else "",
            _rate(kernel.gbs),
            f"{100 * kernel.bound_share:.0f} %",
        ]
        for kernel in profile.dearest
    ]
    headings = ["kernel", "time", "share", "", "GFLOP/s", "GB/s", "of roof"]
    layers = [
        [
            layer.path or "(nobody's)",
            duration(layer.forward_seconds) if layer.forward_seconds else "",
            duration(layer.gradient_seconds) if layer.gradient_seconds else "",
            duration(layer.seconds),
            *_share(layer.seconds, profile),
            _rate(layer.gflops) if layer.flops else "",
        ]
        for layer in profile.layers
    ]
    titles = ["layer", "forward", "gradient", "time", "share", "", "GFLOP/s"]
    rest = sum(kernel.seconds for kernel in profile.dearest[rows:]) if rows is not None else 0.0
    more = sum(layer.seconds for layer in profile.layers[rows:]) if rows is not None else 0.0
    lines = [
        f"profile of {profile.title}",
        headline(profile),
        f"medians of {profile.steps} steps; the machine's roof: {1e-9 * profile.roof.peak:.0f} GFLOP/s, "
        f"{1e-9 * profile.roof.memory:.0f} GB/s from memory, {1e-9 * profile.roof.shared:.0f} and "
        f"{1e-9 * profile.roof.cache:.0f} from caches",
        *([profile.doubt] if profile.doubt else []),
        "",
        *_table(headings, kernels, rows, lambda count: f"{count} other kernels: {duration(rest)}"),
        "",
        *_table(titles, layers, rows, lambda count: f"{count} other layers: {duration(more)}"),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def headline(profile: Profile) -> str:
    """What a step takes, and how much of it is spent in kernels and at barriers."""
    times = profile.wall_seconds, profile.kernel_seconds, profile.barrier_seconds
    wall, kernels, barriers = (unit_for(time)(time) for time in times)
    threads, called = _number(profile.threads, "thread"), _number(len(profile.kernels), "kernel")
    return (
        f"a step takes {wall} on {threads}: {called} {kernels}, "
        f"{_number(profile.barriers, 'barrier')} {barriers}; {1e-9 * profile.flops:.3g} GFLOP"
    )


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def unit_for(seconds: float) -> Callable[[float], str]:
    """How to write times of about this length."""
    scale, unit = (1e3, "ms") if seconds >= 0.002 else (1e6, "µs")

    def written(time: float) -> str:
        value = scale * time
        return (
            f"{value:.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}" if value >= 100 else f"{value:.2f} {unit}"
        )

    return written


def _share(seconds: float, profile: Profile) -> list[str]:
    share = seconds / profile.wall_seconds if profile.wall_seconds else 0.0
    longest = max([kernel.seconds for kernel in profile.kernels] + [layer.seconds for layer in profile.layers])
    eighths = round(8 * BAR * seconds / longest) if longest else 0
    bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
    return [f"{100 * share:.1f} %", bar]


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}"


def _table(
    headings: Sequence[str], lines: Sequence[Sequence[str]], rows: int | None, more: Callable[[int], str]
) -> list[str]:
    """Columns under their headings, the first and the bars to the left; the first is cut to fit."""
    shown = lines[:rows]
    cells = [headings, *shown]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    if "" in headings:
        widths[headings.index("")] = BAR
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    result = ["  ".join(_cell(text, at, widths, headings) for at, text in enumerate(line)) for line in cells]
    result.insert(1, "─" * min(WIDTH, max(map(len, result))))
    return [*result, *([more(len(lines) - len(shown))] if len(lines) > len(shown) else [])]


def _cell(text: str, column: int, widths: Sequence[int], headings: Sequence[str]) -> str:
    width = widths[column]
    if column == 0:
        return shortened(text, width).ljust(width)
    return text.rjust(width) if headings[column] else text.ljust(width)


def shortened(text: str, width: int) -> str:
    """A text cut in the middle, so that its begin and its end are seen."""
    if len(text) <= width:
        return text
    end = (width - 1) // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"
