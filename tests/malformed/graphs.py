"""Texts of graphs: every op, train steps of dense and convolutional layers, divided into kernels or not."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

import gradloom as gl
import op_cases
from gradloom.command import main
from gradloom.compiler import ParseError, parse
from gradloom.compiler.ir import Graph, Group
from gradloom.compiler.passes.fuse import fuse
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.types import F32, OPEN
from malformed.formats import Format
from malformed.mutators import BYTES, TEXT, Mutator, damaged, with_a_number_everywhere, with_a_word_everywhere

SMALL_BYTES, SMALL_NODES = 1 << 20, 100
"""Results of all nodes together, and their number, in a graph that is run: a larger one may be right to take long."""

CONVOLUTION = """graph "step" {
  %0: f32[2,8,8,3] = input {label="x"}
  %1: f32[3,3,3,4] = input {label="conv/kernel", role="parameter"}
  %2: f32[4] = input {label="conv/bias", role="parameter"}
  %3: i32[2] = input {label="rows", role="indices"}
  %4: f32[?,5] = input {label="table", role="data"}
  %5: f32[2,8,8,4] = conv2d %0 %1 {strides=[1, 1], padding=[[1, 1], [1, 1]]}   # conv
  %6: f32[2,8,8,4] = broadcast_to %2 {shape=[2, 8, 8, 4]}                      # conv
  %7: f32[2,8,8,4] = add %5 %6                                                 # conv
  %8: f32[] = constant {value=0.0}
  %9: f32[2,8,8,4] = broadcast_to %8 {shape=[2, 8, 8, 4]}
  %10: f32[2,8,8,4] = maximum %7 %9                                            # relu
  %11: f32[2,4] = sum %10 {axes=[1, 2]}                                        # pool
  %12: f32[2,5] = gather %4 %3
  %13: f32[2,9] = concatenate %11 %12 {axis=1}
  %14: f32[3] = constant {value=[0.5, nan, -inf]}
  output "y" = %13
  output "z" = %14
}
"""


def train_step() -> Graph:
    """A step of a small classifier: reductions, row-wise kernels, updates onto their states."""
    model = gl.Sequential(
        [
            gl.layers.Dense(6, activation="relu", input_shape=(5,), name="hidden"),
            gl.layers.Dense(3, activation="softmax", name="scores"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model.train_graph(4, F32)


def with_other_kernels(rng: Random, content: bytes, other: bytes) -> bytes:
    """Groups merged, split, of another kind, with other members and results: what fusion may not have allowed."""
    try:
        graph = parse(content.decode())
    except ValueError:
        return content
    if not graph.groups:
        return content
    for _ in range(rng.choice((1, 1, 2))):
        groups = list(graph.groups)
        group, partner = groups.pop(rng.randrange(len(groups))), rng.choice(groups or graph.groups)
        some = [value for value in graph.values if rng.random() < 0.1]
        change = rng.randrange(6)
        if change == 0:
            groups = [g for g in groups if g is not partner]
            members = sorted({*group.members, *partner.members}, key=lambda value: value.number)
            kind = rng.choice((group.kind, partner.kind))
            made = [Group("merged", kind, tuple(members), (*group.results, *partner.results))]
        elif change == 1:
            cut = rng.randrange(len(group.members) + 1)
            parts = group.members[:cut], group.members[cut:]
            made = [Group(f"part {n}", rng.choice((group.kind, "map")), part, part) for n, part in enumerate(parts)]
        elif change == 2:
            made = [replace(group, kind=rng.choice(("map", "rows", "reduce", "contraction", "scatter")))]
        elif change == 3:
            made = [replace(group, members=tuple(sorted({*group.members, *some}, key=lambda value: value.number)))]
        elif change == 4:
            made = [replace(group, members=tuple(value for value in group.members if value not in some))]
        else:
            made = [replace(group, results=tuple(rng.sample(group.members, min(len(group.members), 2))))]
        graph.groups = (*groups, *made)
    return str(graph).encode()


class IrFormat(Format):
    """A text that parses makes a graph that verifies and reads back; compiling it works or is refused."""

    mutators: tuple[Mutator, ...] = (
        *TEXT,
        *BYTES[:4],
        *[with_a_number_everywhere, with_a_word_everywhere, with_other_kernels] * 8,
    )
    suffix = ".ir"

    def __init__(self, folder: Path) -> None:
        golden = [path.read_text() for path in sorted((Path(__file__).parents[1] / "golden").glob("*.ir"))]
        steps = [parse(CONVOLUTION), *map(parse, golden), train_step()]
        fused = [fuse(simplify(graph))[0] for graph in steps if not graph.groups]
        for graph in fused:
            graph.stage = "fused"
        self.steps = [text.encode() for text in map(str, (*steps, *fused))]
        self.corpus = [*self.steps, *(str(case.graph()).encode() for case in op_cases.CASES)]

    def mutant(self, rng: Random) -> bytes:
        # Half of them from the few long texts.
        return damaged(rng, self.corpus if rng.random() < 0.5 else self.steps, self.mutators)

    def read(self, path: Path, content: bytes) -> str:
        try:
            graph = parse(content.decode("utf-8", "surrogateescape"))
        except ParseError:
            # Beginning with the path, as the command cannot decode what is not UTF-8.
            assert told_by("show", str(path)).startswith(f"error: {path}:")
            raise
        graph.verify()
        # Numbers of nodes are counted anew: what is live is what a text says.
        again = parse(str(graph))
        assert str(again.rebuild()[0]) == str(graph.rebuild()[0])
        if is_small(graph):
            told_by("run", str(path), "--check")
        else:
            told_by("show", str(path), "--stage", "scheduled")
        return "read"


def told_by(*command: str) -> str:
    """What a command says of a graph that it refuses, in a few lines; "" of one that it takes."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors), np.errstate(all="ignore"):
        code = main(command)
    told = errors.getvalue()
    assert code == (told != ""), f"{' '.join(command)}: exit code {code}\n{told}"
    assert "internal" not in told and len(told.splitlines()) <= 5, told
    return told


def is_small(graph: Graph) -> bool:
    sizes = [math.prod(8 if size == OPEN else size for size in value.shape) for value in graph.values]
    return len(sizes) + len(graph.outputs) <= SMALL_NODES and 8 * sum(sizes) <= SMALL_BYTES
