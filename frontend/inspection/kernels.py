"""The network of a step's kernels and of the buffers between them: the stages `scheduled` and `memory`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradloom.compiler.ir import Graph
from gradloom.compiler.ir_text import layer_paths

if TYPE_CHECKING:
    import networkx

    from gradloom.compiler.loops.grammar import Buffer, Kernel
    from gradloom.compiler.pipeline import Lowering
    from gradloom.compiler.schedule import Launch


def kernel_network(lowering: Lowering) -> networkx.DiGraph:
    """The kernels of a step by the numbers of their calls, and the buffers that they read and write.

    A buffer of the caller's that a step writes onto is two nodes: before, for those who read it, and after.
    """
    import networkx

    schedule, network = lowering.scheduled, networkx.DiGraph(name=lowering.graph.name)
    network.graph["notes"] = (f"{len(schedule.launches):,} kernels in order",)
    groups = {group: position for position, group in enumerate(lowering.fused.groups)}
    nodes = _Buffers(network, lowering)
    accesses: dict[Kernel, tuple[set[Buffer], set[Buffer]]] = {}
    for call, (launch, function) in enumerate(zip(schedule.launches, lowering.kernel_names, strict=True)):
        if launch.kernel not in accesses:
            accesses[launch.kernel] = launch.kernel.loaded(), launch.kernel.stored()
        read, written = (
            [own for own, buffer in zip(launch.buffers, launch.kernel.buffers, strict=True) if buffer in accessed]
            for accessed in accesses[launch.kernel]
        )
        reads = [nodes.before(buffer) for buffer in read if nodes.is_drawn(buffer)]
        writes = [nodes.after(buffer) for buffer in written]
        network.add_node(
            call,
            **_kernel(lowering.fused, launch, groups.get(launch.group)),
            call=call,
            function=function,
            reads=reads,
            writes=writes,
        )
        for source in reads:
            if source not in writes:
                network.add_edge(source, call)
        network.add_edges_from((call, target) for target in writes)
    return network


def memory_network(lowering: Lowering, whole: networkx.DiGraph) -> networkx.DiGraph:
    """The calls of the kernels' network `whole` and their intermediate results, with the places of these in memory."""
    slots = {buffer.name: slot for buffer, slot in lowering.memory.slots.items()}
    buffers = [node for node, data in whole.nodes(data=True) if data.get("place") == "arena"]
    kept = {*buffers, *range(len(lowering.scheduled.launches))}
    network = whole.subgraph([node for node in whole if node in kept]).copy()
    for node in buffers:
        data = network.nodes[node]
        slot = slots[data["name"]]
        makers = sorted(network.predecessors(node))
        owner = network.nodes[makers[0]]["name"] if makers else data["name"]
        data.update(offset=slot.offset, first=slot.first, last=slot.last, owner=owner)
        data["note"] = f"calls {slot.first}–{slot.last}"
    network.graph["notes"] = (f"arena of {lowering.memory.arena_bytes:,} bytes", f"{len(buffers):,} buffers")
    return network


class _Buffers:
    """The nodes of buffers, added when a kernel first needs them."""

    def __init__(self, network: networkx.DiGraph, lowering: Lowering) -> None:
        self.network = network
        self.schedule = lowering.scheduled

    def is_drawn(self, buffer: Buffer) -> bool:
        """Literals are part of the kernels that read them."""
        return self._place(buffer) != "constant"

    def before(self, buffer: Buffer) -> str:
        """The node that readers read."""
        return self._node(buffer, after=False)

    def after(self, buffer: Buffer) -> str:
        """The node that writers write: another one, where the caller's array had a value before."""
        return self._node(buffer, after=self._place(buffer) == "argument" and self._role(buffer) != "result")

    def _place(self, buffer: Buffer) -> str:
        pointer = self.schedule.places.get(buffer)
        return "arena" if pointer is None else pointer.space

    def _role(self, buffer: Buffer) -> str:
        pointer = self.schedule.places.get(buffer)
        return self.schedule.arguments[pointer.at].role if pointer and isinstance(pointer.at, int) else "intermediate"

    def _node(self, buffer: Buffer, after: bool) -> str:
        node = f"{buffer.name} after" if after else buffer.name
        if node not in self.network:
            place, role = self._place(buffer), self._role(buffer)
            result = after or role == "result"
            self.network.add_node(
                node,
                kind="output" if result else "input",
                title=buffer.name,
                name=buffer.name,
                type=str(buffer.type),
                note="in place" if after else f"panels of {buffer.panel}" if buffer.panel else "",
                bytes=None if buffer.type.nbytes < 0 else buffer.nbytes,
                place=place,
                role="output" if result else role,
                tooltip=f"{node}: {buffer.type}, {place}",
            )
        return node


def _kernel(fused: Graph, launch: Launch, position: int | None) -> dict[str, Any]:
    """What a kernel's node says."""
    group = launch.group
    members = group.members
    layers = sorted({path for member in members for path in layer_paths(fused, member)})
    sources = sorted({o.source for member in members for o in fused.provenance[member] if o.source})
    blocks = launch.kernel.blocks
    return {
        "kind": "op",
        "title": group.name,
        "type": f"{blocks:,} blocks" if blocks > 1 else "1 block",
        "note": ", ".join(dict.fromkeys(member.op.name for member in members)),
        "tooltip": f"{group.name}\n{', '.join(layers)}",
        "name": group.name,
        "group": position,
        "role": group.kind,
        "members": [member.number for member in members],
        "layers": layers,
        "sources": sources,
        "blocks": blocks,
    }


def kernel_codes(lowering: Lowering) -> dict[str, Any]:
    """The pseudo-C of every function that a step calls, once for all calls of it, by its name."""
    return {"codes": {kernel.name: str(kernel) for kernel in lowering.kernels}}
