"""A graph as a `networkx.DiGraph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ir_text import layer_paths

if TYPE_CHECKING:
    import networkx


def to_networkx(graph: Graph) -> networkx.DiGraph:
    """Return the live nodes by number, and an edge from each value to each of its readers.

    Nodes have the attributes `number`, `op` and `type` (text), `attributes` (the op's, a dict), `inputs` (numbers),
    `layers` (paths; `layer` is these joined by ", "), `sources` (the user's lines), `forward` (of a gradient node, the
    numbers of its forward nodes in the graph that was traced), `role` and `label` (of an input, else ""), `group` (the
    name of the first kernel that computes the node, or None), `groups` (the names of all) and `outputs` (the names
    under which it is a result). Edges have `operands`: the positions at which the reader reads the value.
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
            number=value.number,
            op=value.op.name,
            type=str(value.type),
            attributes=value.op.attributes,
            inputs=[operand.number for operand in value.inputs],
            layers=layer_paths(graph, value),
            layer=", ".join(layer_paths(graph, value)),
            sources=sorted({origin.source for origin in graph.provenance[value] if origin.source}),
            forward=sorted({o.forward for o in graph.provenance[value] if o.forward is not None}),
            role=value.op.role if isinstance(value.op, Input) else "",
            label=value.op.label if isinstance(value.op, Input) else "",
            group=groups[0] if groups else None,
            groups=groups,
            outputs=results.get(value, []),
        )
        for operand in dict.fromkeys(value.inputs):
            positions = [position for position, other in enumerate(value.inputs) if other is operand]
            digraph.add_edge(operand.number, value.number, operands=positions)
    return digraph
