"""What a report shows, as one JSON document: tables of nodes, kernels, buffers and times that refer to each other.

Text that recurs (types, ops, layer paths, lines of source) is held once, in `strings`, and named by its position there:
below, "text" means such a position. A node is named by its position in its stage, a kernel by that of its call.

    {"title", "machine", "strings": [...], "sources": [[text of layer, text of file:line, forward number or -1], ...],
     "origins": [[position in sources, ...], ...], "stages": [...], "calls": [...], "functions": [...],
     "memory": see `MemoryReport.json`, "profile": see `Profile.json`, or None}

A stage that is a graph has a list for each property of its nodes: `number` (behind the %), `op`, `type`, `attributes`,
`layer`, `role` (all text), `part` (0 forward, 1 gradient, 2 update of a parameter), `origin`, `inputs`, `outputs` and
`next`: the nodes of the next stage, or calls, that it became. Lines of code are [first, count] in the stage's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ir_text import format_attributes, layer_paths
from gradloom.compiler.provenance import Provenance
from gradloom.inspection.machine_code import MACHINE_STAGES, Function, assembly_functions, llvm_functions
from gradloom.inspection.report.parts import parts_of
from gradloom.inspection.stages import GraphStage
from gradloom.inspection.work import shares_of_nodes

if TYPE_CHECKING:
    from gradloom.compiler.llvm.target import Target
    from gradloom.inspection.inspection import Inspection
    from gradloom.inspection.profiling import Profile

Document = dict[str, Any]


def report_document(inspection: Inspection, profile: Profile | None) -> tuple[Document, dict[str, str]]:
    """Return the document, and the text of each stage; `scheduled` has every distinct kernel once."""
    tables = _Tables()
    lowering = inspection._way.lowering
    with ThreadPoolExecutor(1) as beside:
        code = beside.submit(lambda: inspection._way.machine_code)
        code.add_done_callback(lambda _: lowering.emitted.set())  # also where nothing had to be emitted
        lowering.emitted.wait()
        kernels = {kernel.name: f"{kernel}\n" for kernel in lowering.kernels}
        texts = {name: "\n".join(kernels.values()) if name == "scheduled" else "" for name in inspection.stages}
        texts |= {name: inspection.stages[name].text() for name in texts if name not in ("scheduled", *MACHINE_STAGES)}
        stages = [_stage(inspection, name, tables) for name in inspection.stages]
        memory = inspection.memory.json()
        texts |= code.result()
    functions = _functions(kernels, texts)
    document = {
        "title": inspection.title,
        "machine": _machine(lowering.options.target),
        "stages": stages,
        "calls": _calls(inspection, list(kernels), tables),
        "functions": functions,
        "memory": memory,
        "profile": None if profile is None else profile.json(),
        "strings": list(tables.strings),
        "sources": list(tables.sources),
        "origins": list(tables.origins),
    }
    return document, texts


def _machine(target: Target) -> str:
    return f"{target.level}, {target.cpu}, {target.lanes} lanes of f32, {target.registers} vector registers"


class _Tables:
    """What is held once and named by its position."""

    def __init__(self) -> None:
        self.strings: dict[str, int] = {}
        self.sources: dict[tuple[int, int, int], int] = {}
        self.origins: dict[tuple[int, ...], int] = {}

    def text(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))

    def origin(self, origins: Iterable[Provenance]) -> int:
        found = sorted(
            {(origin.layer, origin.source, -1 if origin.forward is None else origin.forward) for origin in origins}
        )
        rows = [(self.text(layer), self.text(source), forward) for layer, source, forward in found]
        places = tuple(self.sources.setdefault(row, len(self.sources)) for row in rows)
        return self.origins.setdefault(places, len(self.origins))


def _stage(inspection: Inspection, name: str, tables: _Tables) -> Document:
    stage = inspection.stages[name]
    if not isinstance(stage, GraphStage):
        return {"name": name, "kind": "text"}
    following = dict(zip(inspection.stages, list(inspection.stages)[1:], strict=False))[name]
    return {"name": name, "kind": "graph", "following": following} | _graph(
        stage.graph, inspection._all_became(name), _positions(inspection, following), tables
    )


def _positions(inspection: Inspection, stage: str) -> dict[int | str, int]:
    """The places of a stage's nodes by their numbers; calls are numbered by place."""
    following = inspection.stages[stage]
    if isinstance(following, GraphStage):
        return {value.number: place for place, value in enumerate(following.graph.live())}
    return {call: call for call in range(len(inspection._way.lowering.scheduled.launches))}


def _graph(
    graph: Graph, became: Mapping[str, list[int | str]], positions: Mapping[int | str, int], tables: _Tables
) -> Document:
    live = graph.live()
    place = {value: position for position, value in enumerate(live)}
    layers, parts = parts_of(graph)
    outputs: dict[Value, list[str]] = {}
    for output in graph.outputs:
        outputs.setdefault(output.value, []).append(output.name)
    groups = [
        {
            "name": group.name,
            "kind": group.kind,
            "members": [place[member] for member in group.members],
            "results": [place[result] for result in group.results],
        }
        for group in graph.groups
    ]
    return {
        "number": [value.number for value in live],
        "op": [tables.text(value.op.label if isinstance(value.op, Input) else value.op.name) for value in live],
        "role": [tables.text(_role(value)) for value in live],
        "type": [tables.text(str(value.type)) for value in live],
        "attributes": [tables.text(_attributes(value)) for value in live],
        "layer": [tables.text(layer) for layer in layers],
        "part": parts,
        "layers": [tables.text(", ".join(layer_paths(graph, value)[:12])) for value in live],
        "origin": [tables.origin(graph.provenance.get(value, ())) for value in live],
        "inputs": [[place[operand] for operand in value.inputs] for value in live],
        "outputs": [[place[value], tables.text(", ".join(names))] for value, names in outputs.items()],
        "next": [
            [positions[number] for number in became.get(str(value.number), ()) if number in positions] for value in live
        ],
        "groups": groups,
    }


LONGEST = 200
"""Characters of a node's attributes that are shown; a literal tensor may have thousands."""


def _attributes(value: Value) -> str:
    text = format_attributes(value.op, value.type)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _role(value: Value) -> str:
    """The role of an input, else "constant" for a literal, else nothing."""
    if isinstance(value.op, Input):
        return value.op.role
    return "constant" if value.op.name == "constant" else ""


def _calls(inspection: Inspection, functions: list[str], tables: _Tables) -> list[Document]:
    lowering = inspection._way.lowering
    groups = {group: number for number, group in enumerate(lowering.fused.groups)}
    place = {value: position for position, value in enumerate(lowering.fused.live())}
    number = {name: position for position, name in enumerate(functions)}
    calls = []
    for launch, name in zip(lowering.scheduled.launches, lowering.kernel_names, strict=True):
        shares = {node: share for node, share in shares_of_nodes(launch.group).items() if node in place}
        calls.append(
            {
                "name": tables.text(launch.group.name),
                "kind": tables.text(launch.group.kind),
                "function": number[name],
                "group": groups.get(launch.group, -1),
                "members": [place[member] for member in shares],
                "shares": [round(share, 4) for share in shares.values()],
                "layers": tables.text(", ".join(_layers(lowering.fused, launch.group.members))),
                "buffers": [[tables.text(buffer.name), tables.text(str(buffer.type))] for buffer in launch.buffers],
            }
        )
    return calls


def _layers(graph: Graph, members: Iterable[Value]) -> list[str]:
    paths = dict.fromkeys(
        path for member in members for path in layer_paths(graph, member) if member.op.name != "constant"
    )
    return list(paths)[:12]


def _functions(kernels: Mapping[str, str], texts: Mapping[str, str]) -> list[Document]:
    """Each distinct kernel with the lines of its loop IR, LLVM IR and assembly."""
    found: dict[str, Mapping[str, list[int]]] = {
        "llvm": _ranges(texts["llvm"], llvm_functions(texts["llvm"])),
        "assembly": _ranges(texts["assembly"], assembly_functions(texts["assembly"])),
    }
    rows, line = [], 0
    for name, text in kernels.items():
        count = text.count("\n")
        rows.append(
            {"name": name, "scheduled": [line, count]} | {stage: lines.get(name) for stage, lines in found.items()}
        )
        line += count + 1
    return rows


def _ranges(text: str, functions: Mapping[str, Function]) -> dict[str, list[int]]:
    first = {line: number for number, line in enumerate(text.splitlines())}
    return {name: [first[function.lines[0]], len(function.lines)] for name, function in functions.items()}
