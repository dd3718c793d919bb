"""How a graph is compiled, and the key under which the result is kept: all that a warm start needs to know."""

from __future__ import annotations

import hashlib
import inspect
import uuid
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.ir import Graph, Input, Op, Value
from gradloom.compiler.ir_text import print_graph
from gradloom.compiler.llvm.target import Target

BLOCK_COST = 8192
"""Instructions that a block should hold at least, so that handing it to another thread pays."""

PARALLEL_BYTES = 16384
"""Bytes that a step moves at least for a second thread to pay."""


@dataclass(frozen=True)
class Options:
    """How a graph is compiled.

    `cores` is the number of threads to divide work for (any number runs the program, with the same results);
    `memory_limit` in bytes; without `simplify` or `fuse`, graphs go through these stages unchanged;
    `choices` come before the cost models' own; `timed` code notes when each thread begins and ends each kernel;
    blocks of `block_cost` instructions and steps that move `parallel_bytes` are worth a second thread.
    """

    target: Target = field(default_factory=Target.host)
    cores: int = 1
    simplify: bool = True
    fuse: bool = True
    memory_limit: int | None = None
    choices: Choices = NO_CHOICES
    timed: bool = False
    block_cost: int = BLOCK_COST
    parallel_bytes: int = PARALLEL_BYTES


@cache
def code_version() -> str:
    """A digest of the compiler's own sources: code that another version of it generated is never used."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cache_key(graph: Graph, options: Options) -> str:
    """A digest of what compiled code depends on: the graph without provenance and names, and all that compiles it."""
    text = print_graph(_anonymous(graph), comments=False)
    return hashlib.sha256("\n".join([*environment(graph, options), text]).encode()).hexdigest()


def environment(graph: Graph, options: Options) -> list[str]:
    """What the code of a graph depends on besides its text: all that compiles it."""
    from llvmlite import __version__ as llvmlite_version

    return [code_version(), llvmlite_version, str(options), *_foreign_sources(graph)]


def _anonymous(graph: Graph) -> Graph:
    """The graph with inputs and outputs named by number: what they are called changes no code."""
    result = Graph(graph.name)
    new: dict[Value, Value] = {}
    for number, value in enumerate(graph.live()):
        if isinstance(value.op, Input):
            new[value] = result.apply(replace(value.op, label=str(number)), provenance=())
        else:
            new[value] = result.copy(value, *(new[operand] for operand in value.inputs))
    for number, output in enumerate(graph.outputs):
        result.output(str(number), new[output.value], None if output.donor is None else new[output.donor])
    return result


def _foreign_sources(graph: Graph) -> list[str]:
    """The sources of ops that are defined outside of this package; what has none is never taken from the cache."""
    kinds = {type(value.op) for value in graph.live()}
    foreign = {kind.name: kind for kind in kinds if not kind.__module__.startswith("gradloom.")}
    return [_source(foreign[name]) for name in sorted(foreign)]


def _source(kind: type[Op]) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return uuid.uuid4().hex
