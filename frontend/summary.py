"""The table that `model.summary()` prints: layers, output shapes, parameters, and what each is connected to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gradloom.layers.layer import Layer
from gradloom.plain_text import PLAIN
from gradloom.symbolic import Call, SymbolicTensor
from gradloom.variables import Variable

if TYPE_CHECKING:
    from gradloom.network import Network

_HEADINGS = ("Layer (type)", "Output Shape", "Param #", "Connected to")
_UNITS = ("B", "KB", "MB", "GB", "TB")


def summary_text(model: Network, expand_nested: bool = False) -> str:
    """Return the summary of a model: a row for each layer with its output shape ("?": not known yet), and totals."""
    rows = list(_rows(model, expand_nested))
    columns = 4 if any(row[3] for row in rows) else 3
    trainable, frozen = model.trainable_weights, model.non_trainable_weights
    totals = [
        f" {title} params: {_count(variables):,} ({_size(variables)})"
        for title, variables in (("Total", trainable + frozen), ("Trainable", trainable), ("Non-trainable", frozen))
    ]
    return "\n".join([f'Model: "{model.name}"', *_table([row[:columns] for row in rows], columns), *totals])


def print_summary(text: str, print_fn: Callable[[str], object] | None) -> None:
    """Hand `text` to `print_fn`, by default to standard output, with characters that its encoding has."""
    if print_fn is not None:
        print_fn(text)
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, PLAIN).decode(encoding))


Row = tuple[str, ...]


def _rows(model: Any, expand_nested: bool, depth: int = 0) -> Iterator[Row]:
    """A row for each layer and each function called by a network, in the order of their first calls."""
    calls = _calls(model)
    connected = model.built and not model.call_graph.is_chain
    listed = {layer: calls.get(layer, []) for layer in model.layers} if not connected else calls
    for operation, made in listed.items():
        inputs = [_reference(tensor, calls) for call in made for tensor in call.inputs] if connected else []
        name = made[0].name if made else operation.name
        yield (
            "   " * depth + ("└ " if depth else "") + f"{name} ({_type(operation)})",
            ", ".join(str(tensor.shape) for tensor in made[0].outputs) if made else "?",
            _parameters(operation),
            ", ".join(inputs) if connected else "",
        )
        if expand_nested and hasattr(type(operation), "call_graph"):
            yield from _rows(operation, expand_nested, depth + 1)


def _calls(model: Network) -> dict[Any, list[Call]]:
    """The calls of each layer, and each call of a function by itself: inputs first, then in order."""
    if not model.built:
        return {}
    graph = model.call_graph
    entries = [tensor.call for tensor in graph.inputs if tensor.call is not None]
    by_operation: dict[Any, list[Call]] = {}
    for call in (*entries, *graph.calls):
        key = call.operation if isinstance(call.operation, Layer) else call
        by_operation.setdefault(key, []).append(call)
    return by_operation


def _reference(tensor: SymbolicTensor, calls: dict[Any, list[Call]]) -> str:
    """What made a tensor, in which of its calls, and as which of the results: `dense[0][0]`."""
    call = tensor.call
    if call is None:
        return tensor.name
    siblings = calls.get(call.operation, [call])
    return f"{call.name}[{siblings.index(call)}][{call.outputs.index(tensor)}]"


def _type(operation: Any) -> str:
    if isinstance(operation, Call):
        return str(getattr(operation.operation, "__name__", "function"))
    return type(operation).__name__


def _parameters(operation: Any) -> str:
    if not isinstance(operation, Layer):
        return "0"
    return f"{operation.count_params():,}" if operation.built else "0 (unbuilt)"


def _table(cells: Sequence[Row], columns: int) -> list[str]:
    headings = _HEADINGS[:columns]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    def line(row: Row) -> str:
        aligned = [
            f"{cell:>{w}}" if at == 2 else f"{cell:<{w}}" for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "│ " + " │ ".join(aligned) + " │"

    body = [line(row) for row in cells]
    return [rule("┌", "┬", "┐"), line(headings), rule("├", "┼", "┤"), *body, rule("└", "┴", "┘")]


def _count(variables: Iterable[Variable]) -> int:
    return sum(variable.size for variable in variables)


def _size(variables: Iterable[Variable]) -> str:
    size = float(sum(variable.type.nbytes for variable in variables))
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.2f} {unit}"
