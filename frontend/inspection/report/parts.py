"""Where a node is drawn in a report: at which layer, and there among forward, gradient or the update of a parameter."""

from __future__ import annotations

from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.ir_text import layer_paths

FORWARD_PART, GRADIENT_PART, UPDATE_PART = range(3)


def parts_of(graph: Graph) -> tuple[list[str], list[int]]:
    """Return the layer path and the part of each live node.

    A node that computes the new value of one layer's parameters only (the optimizer's) is drawn at that layer; one
    that several layers share, at the first of them.
    """
    live = graph.live()
    own = {value: next(iter(layer_paths(graph, value)), "") for value in live}
    differentiated = {value: _is_gradient(graph, value) for value in live}
    updated = _updated_layers(graph, live, own)
    part: dict[Value, int] = {}
    layer = dict(own)
    for value in live:
        part[value] = GRADIENT_PART if differentiated[value] else FORWARD_PART
        stored = isinstance(value.op, Input) and value.op.role == "state"
        follows = any(part[operand] != FORWARD_PART for operand in value.inputs)
        only = next(iter(updated[value])) if len(updated[value]) == 1 else own[value]
        if not differentiated[value] and only != own[value] and (stored or follows):
            layer[value], part[value] = only, UPDATE_PART
    return [layer[value] for value in live], [part[value] for value in live]


def _is_gradient(graph: Graph, value: Value) -> bool:
    if isinstance(value.op, Constant | Input):
        return False
    origins = graph.provenance.get(value, frozenset())
    return bool(origins) and all(origin.forward is not None for origin in origins)


def _updated_layers(graph: Graph, live: list[Value], own: dict[Value, str]) -> dict[Value, set[str]]:
    """For each node the layers of the parameters whose new values depend on it."""
    updated: dict[Value, set[str]] = {value: set() for value in live}
    for output in graph.outputs:
        donor = output.donor
        if donor is not None and isinstance(donor.op, Input) and donor.op.role == "parameter":
            updated[output.value].add(own[donor])
    for value in reversed(live):
        for operand in value.inputs:
            if len(updated[operand]) < 2:
                updated[operand] |= updated[value]
    return updated
