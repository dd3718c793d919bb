"""The table that `model.summary()` prints: layers, output shapes, parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from gradloom.layers.layer import Layer
from gradloom.layers.shapes import Shape
from gradloom.variables import Variable

_HEADINGS = ("Layer (type)", "Output Shape", "Param #")
_UNITS = ("B", "KB", "MB", "GB", "TB")


def summary_text(name: str, rows: Iterable[tuple[Layer, Shape | None]], model: Layer) -> str:
    """Return the summary of `model`: a row for each layer with its output shape (None: not known yet), and totals."""
    cells = [
        (
            f"{layer.name} ({type(layer).__name__})",
            "?" if shape is None else str(shape),
            f"{layer.count_params():,}" if layer.built else "0 (unbuilt)",
        )
        for layer, shape in rows
    ]
    trainable, frozen = model.trainable_weights, model.non_trainable_weights
    totals = [
        f" {title} params: {_count(variables):,} ({_size(variables)})"
        for title, variables in (("Total", trainable + frozen), ("Trainable", trainable), ("Non-trainable", frozen))
    ]
    return "\n".join([f'Model: "{name}"', *_table(cells), *totals])


def print_summary(text: str, print_fn: Callable[[str], object] | None) -> None:
    """Hand `text` to `print_fn`, by default to standard output, with lines that its encoding has."""
    if print_fn is not None:
        print_fn(text)
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(str.maketrans("┌┬┐├┼┤└┴┘─│", "+++++++++-|"))
    print(text)


def _table(cells: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True)]

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    def line(row: tuple[str, str, str]) -> str:
        first, second, third = row
        return f"│ {first:<{widths[0]}} │ {second:<{widths[1]}} │ {third:>{widths[2]}} │"

    body = [line(row) for row in cells]
    return [rule("┌", "┬", "┐"), line(_HEADINGS), rule("├", "┼", "┤"), *body, rule("└", "┴", "┘")]


def _count(variables: Iterable[Variable]) -> int:
    return sum(variable.size for variable in variables)


def _size(variables: Iterable[Variable]) -> str:
    size = float(sum(variable.type.nbytes for variable in variables))
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.2f} {unit}"
