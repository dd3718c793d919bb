"""How a graph is compiled, and the key under which the result is kept: all that a warm start needs to know."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gradloom.compiler.ir import Graph
from gradloom.compiler.ir_text import print_graph
from gradloom.compiler.llvm.target import Target


@dataclass(frozen=True)
class Options:
    """How a graph is compiled.

    `cores` is the number of threads to divide work for (any number runs the program, with the same results);
    `memory_limit` in bytes; without `simplify` or `fuse`, graphs go through these stages unchanged.
    """

    target: Target = field(default_factory=Target.host)
    cores: int = 1
    simplify: bool = True
    fuse: bool = True
    memory_limit: int | None = None


@cache
def code_version() -> str:
    """A digest of the compiler's own sources: code that another version of it generated is never used."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cache_key(graph: Graph, options: Options) -> str:
    """A digest of what compiled code depends on: the graph without provenance, and all that compiles it."""
    from llvmlite import __version__ as llvmlite_version

    text = print_graph(graph, comments=False)
    parts: Sequence[object] = (code_version(), llvmlite_version, options, text)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
