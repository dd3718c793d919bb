"""A graph as a `networkx.DiGraph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ir_text import layer_paths

if TYPE_CHECKING:
    import networkx


def to_networkx(graph: Graph) -> networkx.DiGraph:
    """Return the live nodes by number, and an edge from each value to each of its readers.

    Nodes have the attributes `op` and `type` (text), `attributes` (the op's, a dict), `layer` (its paths joined by
    ", "), `role` (of an input, else ""), `group` (the name of the first kernel that computes the node, or None),
    `groups` (the names of all) and `outputs` (the names under which it is a result). Edges have `operands`: the
    positions at which the reader reads the value.
    """
    import networkx

    digraph: networkx.DiGraph = networkx.DiGraph(name=graph.name)
    kernels: dict[Value, list[str]] = {}
    for group in graph.groups:
        for member in group.members:
            kernels.setdefault(member, []).append(group.name)
    results: dict[Value, list[str]] = {}
    for output in graph.outputs:
        results.setdefault(output.value, []).append(output.name)
    for value in graph.live():
        groups = kernels.get(value, [])
        digraph.add_node(
            value.number,
            op=value.op.name,
            type=str(value.type),
            attributes=value.op.attributes,
            layer=", ".join(layer_paths(graph, value)),
            role=value.op.role if isinstance(value.op, Input) else "",
            group=groups[0] if groups else None,
            groups=groups,
            outputs=results.get(value, []),
        )
        for operand in dict.fromkeys(value.inputs):
            positions = [position for position, other in enumerate(value.inputs) if other is operand]
            digraph.add_edge(operand.number, value.number, operands=positions)
    return digraph
