"""The texts of LLVM IR and assembly, and the network of the functions in them: who calls whom, how long each is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gradloom.compiler.cached import cached_property
from gradloom.compiler.program import LAUNCH, STOP, WORKER
from gradloom.runtime import cache

if TYPE_CHECKING:
    import networkx

    from gradloom.compiler.pipeline import Lowering

_DEFINITION = re.compile(r"^define [^@]*@\"?([\w.$-]+)")
_NAME = re.compile(r"[A-Za-z_$][\w.$]*")
_FUNCTION = re.compile(r"^\s*\.type\s+([\w.$]+),\s*[@%]function")


MACHINE_STAGES = ("llvm", "assembly")
"""The stages that LLVM makes."""


def machine_texts(lowering: Lowering) -> dict[str, str]:
    """The texts of `MACHINE_STAGES` by stage, kept on disk: LLVM takes seconds for those of a large network."""
    from gradloom.compiler.ir_text import print_graph
    from gradloom.compiler.options import environment

    # What the code does, and what kernels are named after.
    graph, groups = print_graph(lowering.graph, comments=False), [group.name for group in lowering.fused.groups]
    key = "\n".join([*environment(lowering.graph, lowering.options), *groups, graph])
    known = {stage: cache.load_text(f"{stage}\n{key}") for stage in MACHINE_STAGES}
    texts = {stage: text for stage, text in known.items() if text is not None}
    if len(texts) < len(known):
        texts = {"llvm": lowering.llvm(), "assembly": lowering.assembly()}
        for stage, text in texts.items():
            cache.store_text(f"{stage}\n{key}", text)
    return texts


@dataclass
class Function:
    """A function of a module: its lines, how many of them are instructions, and what it names."""

    name: str
    lines: list[str] = field(default_factory=list)
    instructions: int = 0

    @cached_property
    def named(self) -> list[str]:
        """The names in its lines, in order and each once: variables, instructions, the functions that it calls."""
        return list(dict.fromkeys(name for line in self.lines for name in _NAME.findall(line)))


def llvm_functions(text: str) -> dict[str, Function]:
    """The functions that a module of LLVM IR defines."""
    functions: dict[str, Function] = {}
    current: Function | None = None
    for line in text.splitlines():
        if definition := _DEFINITION.match(line):
            current = functions[definition[1]] = Function(definition[1])
        if current is None:
            continue
        current.lines.append(line)
        if line.startswith("  ") and not line.lstrip().startswith((";", "]", "i64 ", "i32 ")):
            current.instructions += 1
        if line == "}":
            current = None
    return functions


def assembly_functions(text: str) -> dict[str, Function]:
    """The functions that assembly (in ELF's form) defines."""
    names = {found[1] for line in text.splitlines() if (found := _FUNCTION.match(line))}
    functions: dict[str, Function] = {}
    current: Function | None = None
    for line in text.splitlines():
        label = line.partition(":")[0]
        if label in names and line.startswith(f"{label}:"):
            current = functions[label] = Function(label)
        if current is None:
            continue
        current.lines.append(line)
        word = line.strip()
        if line[:1].isspace() and word and not word.startswith((".", "#", "//")):
            current.instructions += 1
        if word.startswith(".size"):
            current = None
    return functions


def function_network(
    name: str, functions: Mapping[str, Function], kernels: Mapping[str, Mapping[str, Any]]
) -> networkx.DiGraph:
    """The functions in the order in which they are first called, and an edge from each to those that it calls.

    Edges of kind "next" lead from each kernel to the one that is called next. kernels: what the network of kernels says
    of each, by the name of its function.
    """
    import networkx

    total = sum(function.instructions for function in functions.values())
    network = networkx.DiGraph(name=name, notes=(f"{len(functions):,} functions", f"{total:,} instructions"))
    for function in _in_order(functions):
        kernel = kernels.get(function.name, {})
        network.add_node(
            function.name,
            kind="op" if kernel else "input",
            title=function.name,
            type=f"{function.instructions:,} instructions",
            note=", ".join(kernel.get("layers", ()))[:40],
            role=kernel.get("role", "runtime"),
            layers=list(kernel.get("layers", ())),
            instructions=function.instructions,
            code="\n".join(function.lines) + "\n",
        )
    for function in functions.values():
        for callee in function.named:
            if callee in functions and callee != function.name:
                network.add_edge(function.name, callee, kind="calls", drawn=True)
    # A step that calls a hundred kernels would be drawn too wide: there each kernel leads to the next one.
    called = [node for node in network if node in kernels]
    for before, after in pairwise(called):
        for caller in network.pred[after]:
            network.edges[caller, after]["drawn"] = False
        network.add_edge(before, after, kind="next", drawn=True)
    return network


def _in_order(functions: Mapping[str, Function]) -> Iterator[Function]:
    """Functions, each where it is first named, from what the runtime calls on."""
    seen: set[str] = set()
    waiting = [*reversed([*functions]), *(name for name in (STOP, WORKER, LAUNCH) if name in functions)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield functions[name]
        waiting += [named for named in reversed(functions[name].named) if named in functions]
