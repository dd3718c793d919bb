"""The text form of graphs: one line a node, exact enough to be parsed back.

    graph   = 'graph' STRING [ STAGE ] [ 'inference' ] '{' { node | kernel | output } '}'
    node    = '%' INT ':' type '=' OP { '%' INT } [ '{' attribute { ',' attribute } '}' ]
    kernel  = 'kernel' STRING KIND '{' { node } '}' '->' { '%' INT }
    output  = 'output' STRING '=' '%' INT [ 'onto' '%' INT ]
    type    = DTYPE '[' [ size { ',' size } ] ']'             size is an INT, or '?' for an open leading axis
    attribute = NAME '=' literal
    literal = INT | FLOAT | STRING | 'true' | 'false' | 'none' | DTYPE | type | '[' [ literal { ',' literal } ] ']'

Every node, opening, closing and output has a line of its own; `#` starts a comment, which the printer uses for the
paths of the layers that made the node. They are no part of the graph, but behind a node they are read again, so that
kernels keep their names. What a line leaves out is the attribute's default, and an attribute `type` that
repeats the result's. Numbers fix the order of the nodes: where fusion lists a node in several kernels, or a kernel
between the nodes of another, the graph's own order can still be told.

A constant's `value` is a scalar (which fills the whole type), or a nested list; a large one is written as `bytes`, in
hexadecimal, row-major and little-endian. Floats have the shortest digits that give back every bit; a NaN other than the
usual one is `nan:0x7f800001`, with its bits. `onto` names the input whose memory an output is written onto (its donor).

The stage ("forward", "gradient", "simplified", "fused") says what was done to the graph, so that compiling can go on
from there; `inference` that weights stay as they are from run to run. The arrays of inputs of role "captured" are no
part of the text: who runs the program supplies them by label, as for all other inputs.

    graph "step" {
      %0: f32[10] = input {label="bias", role="parameter"}
      %1: f32[] = constant {value=0.5}
      %2: f32[10] = multiply %0 %1                            # dense
      output "bias" = %2 onto %0
    }

`gradloom.compiler.ir_parser` reads it.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from gradloom.compiler.ir import Constant, Graph, Group, Input, Op, Value
from gradloom.compiler.types import BOOL, F64, DType, TensorType

COMMENT_COLUMN = 76
"""Where comments begin behind short lines: fixed, so that one longer line does not move all the others."""

_MARKS = frozenset(',"\\')

READABLE_ELEMENTS = 16
"""Constants with more elements than this, and not all of one value, are printed as bytes."""

QUIET_NAN = {16: 0x7FC0, 32: 0x7FC00000, 64: 0x7FF8000000000000}
"""The bits of the NaN that is printed without them, by the width of its dtype."""


def print_graph(graph: Graph, comments: bool = True) -> str:
    """Return the text of the graph's live nodes, kernels and outputs; `parse` gives back an equal graph.

    Without `comments` it holds nothing that is not part of the graph's identity.
    """
    lines = [" ".join(filter(None, ("graph", quote(graph.name), graph.stage, "inference" * graph.inference, "{")))]
    for item in _items(graph):
        if isinstance(item, Group):
            lines.append(f"  kernel {quote(item.name)} {item.kind} {{")
            lines += (node_line(graph, member, "    ", comments) for member in item.members)
            lines.append("  } ->" + "".join(f" %{result.number}" for result in item.results))
        else:
            lines.append(node_line(graph, item, comments=comments))
    for output in graph.outputs:
        donor = "" if output.donor is None else f" onto %{output.donor.number}"
        lines.append(f"  output {quote(output.name)} = %{output.value.number}{donor}")
    return "\n".join([*lines, "}"]) + "\n"


def node_line(graph: Graph, value: Value, indent: str = "  ", comments: bool = True) -> str:
    """Return the line of one node, with its layers as a comment."""
    operands = "".join(f" %{operand.number}" for operand in value.inputs)
    attributes = format_attributes(value.op, value.type)
    line = f"{indent}%{value.number}: {value.type} = {value.op.name}{operands}"
    line += f" {{{attributes}}}" if attributes else ""
    layers = ", ".join(map(_commented, layer_paths(graph, value))) if comments else ""
    return f"{line.ljust(COMMENT_COLUMN)}  # {layers}" if layers else line


def layer_paths(graph: Graph, value: Value) -> list[str]:
    """Return the paths of the layers that made the node, sorted."""
    return sorted({origin.layer for origin in graph.provenance.get(value, ()) if origin.layer})


def _commented(path: str) -> str:
    """A layer's path in a comment, which ends with its line as paths do with a comma, whatever a layer is called."""
    return path if path.isprintable() and not _MARKS & {*path} else quote(path)


def format_attributes(op: Op, type: TensorType) -> str:
    """Return `name=literal, …` for the attributes that neither the result's type nor a default gives."""
    if isinstance(op, Constant):
        return format_constant(op)
    shown = []
    for attribute in fields(op):  # type: ignore[arg-type]
        value = getattr(op, attribute.name)
        repeats_type = attribute.name == "type" and value == type
        if not repeats_type and not _same(value, attribute.default):
            shown.append(f"{attribute.name}={format_literal(value)}")
    return ", ".join(shown)


def format_constant(op: Constant) -> str:
    """Return `value=…`, or `bytes=…` where digits would be long or lose bits."""
    dtype, size, data = op.type.dtype, op.type.size, op.data
    irregular = len(data) != op.type.nbytes or (dtype == BOOL and max(data, default=0) > 1)
    if irregular:
        return f"bytes={quote(data.hex())}"
    elements = np.frombuffer(data, dtype.numpy)
    if size and data == data[: dtype.itemsize] * size:
        return f"value={format_scalar(elements[0], dtype)}"
    if size > READABLE_ELEMENTS:
        return f"bytes={quote(data.hex())}"
    return f"value={_nested(elements.reshape(op.type.shape), dtype)}"


def format_literal(value: Any) -> str:
    """Return the text of an attribute's value."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return format_scalar(np.float64(value), F64)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, DType | TensorType):
        return str(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(format_literal, value)) + "]"
    # Shown for the reader's sake: the parser refuses it.
    return f"<{value!r}>"


def format_scalar(value: Any, dtype: DType) -> str:
    """Return the shortest digits that give back every bit of a NumPy scalar."""
    if not dtype.is_float:
        return ("true" if value else "false") if dtype == BOOL else str(int(value))
    with np.errstate(invalid="ignore"):  # asking a signaling NaN may warn
        is_nan = np.isnan(value)
    if is_nan:
        bits = int(value.view(f"u{dtype.itemsize}"))
        return "nan" if bits == QUIET_NAN[dtype.bits] else f"nan:{bits:#x}"
    digits = str(value)
    # Digits are read as float64 and then rounded: where that rounds twice, the float64 digits are needed. Those of bf16
    # may look like an integer's, of which there is no −0.
    exact = dtype.numpy.type(float(digits)) == value and not digits.lstrip("-").isdecimal()
    return digits if exact else repr(float(value))


def quote(text: str) -> str:
    """Return a string literal on one line, escaped as in JSON."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _nested(array: np.ndarray, dtype: DType) -> str:
    if not array.ndim:
        return format_scalar(array[()], dtype)
    return "[" + ", ".join(_nested(row, dtype) for row in array) + "]"


def _same(value: Any, default: Any) -> bool:
    """Whether a default gives the attribute bit by bit: −0.0 is not 0.0, and 1 is not 1.0."""
    return default is not MISSING and format_literal(value) == format_literal(default)


def _items(graph: Graph) -> list[Value | Group]:
    """Nodes and groups in reading order: inputs first, then each group after the nodes outside that it reads."""
    live = graph.live()
    grouped = {member for group in graph.groups for member in group.members}
    if not grouped:
        return list(live)
    outside = [value for value in live if value not in grouped]
    inputs = [value for value in outside if isinstance(value.op, Input)]
    printed = set(inputs)
    items: list[Value | Group] = [*inputs]
    for group in graph.groups:
        needed: set[Value] = set()
        pending = [operand for member in group.members for operand in member.inputs]
        while pending:
            operand = pending.pop()
            if operand not in grouped and operand not in printed and operand not in needed:
                needed.add(operand)
                pending += operand.inputs
        items += [*sorted(needed, key=_number), group]
        printed |= needed
    return items + [value for value in outside if value not in printed]


def _number(value: Value) -> int:
    return value.number
