"""Autotuner: measures how the kinds of contractions of a graph are computed fastest, and chooses.

Each kind is compiled alone, without what would be fused into it, once for each way that the cost model finds credible.
Who runs programs is above the compiler: the caller hands in how to measure, and where to keep what was measured.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gradloom.compiler.choices import DEFINITION, Choice, Choices, Departure, contraction_kind
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ir_text import layer_paths
from gradloom.compiler.kernels.contraction import multiplications, other_divisions
from gradloom.compiler.ops.base import Contraction
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Convolution
from gradloom.compiler.options import Options, code_version
from gradloom.compiler.passes.algorithms import algorithms, has_fixed_kernel, with_padding
from gradloom.compiler.passes.fixed import changes_inputs, is_fixed
from gradloom.compiler.passes.layout import choose_layouts
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.pipeline import compile_graph, machine_for
from gradloom.compiler.program import Program

MARGIN = 0.03
"""The part of the time by which another candidate must beat the cost model's: less may be noise."""

Measure = Callable[[Sequence[Program], int], Sequence[float]]
"""Seconds that each of some programs takes, when so many bytes are touched from one run to the next."""


class Records(Protocol):
    """Where measurements are kept."""

    def recall(self, key: str) -> str | None:
        """What was kept under a key."""

    def keep(self, key: str, text: str) -> None:
        """Keep a text, for other processes too."""


@dataclass(frozen=True)
class Kind:
    """The contractions of a graph that are computed alike: one of them, the layers of all, and their multiplications.

    `fixed`: whether their kernels are the same from step to step and are transformed before.
    """

    name: str
    example: Value
    fixed: bool
    layers: tuple[str, ...]
    work: int

    @property
    def roles(self) -> list[str]:
        """What the operands are to a program: weights, which it may want in another order, or what others computed."""
        return ["parameter" if is_fixed(operand) else "argument" for operand in self.example.inputs]

    @property
    def where(self) -> str:
        """The layers, as the beginning of a line."""
        if not self.layers:
            return ""
        more = f" and {len(self.layers) - 1} more" if len(self.layers) > 1 else ""
        return f"{self.layers[0]}{more}: "


@dataclass(frozen=True)
class Measurement:
    """A kind with its candidates, the cost model's choice first, and the seconds that each takes."""

    kind: Kind
    candidates: tuple[Choice, ...]
    seconds: tuple[float, ...]

    @property
    def departure(self) -> Departure | None:
        """What is chosen, None where the cost model's choice is not clearly beaten."""
        best = min(range(len(self.seconds)), key=self.seconds.__getitem__)
        if self.seconds[best] >= (1 - MARGIN) * self.seconds[0]:
            return None
        return Departure(self.kind.name, self.candidates[best], self.candidates[0].algorithm)

    def __str__(self) -> str:
        """Candidates with their milliseconds, the fastest first."""
        times = sorted(zip(self.seconds, self.candidates, strict=True), key=lambda pair: pair[0])
        return ", ".join(f"{candidate} {1e3 * seconds:.3g} ms" for seconds, candidate in times)


@dataclass(frozen=True)
class Tuning:
    """What was found out about a graph: `choices` is what its program is to be compiled with.

    `measured` of the measurements were made now, in `seconds`, the others are from the records; of `left` kinds there
    are none, since the time was over.
    """

    graph: str
    measurements: tuple[Measurement, ...]
    measured: int
    seconds: float
    left: int

    @property
    def choices(self) -> Choices:
        """Where the cost models are departed from."""
        found = (measurement.departure for measurement in self.measurements)
        return Choices(tuple(sorted(filter(None, found), key=lambda departure: departure.kind)))

    def __str__(self) -> str:
        """A line for each kind where the cost model is departed from."""
        departed = [(m, d) for m in self.measurements if (d := m.departure) is not None]
        lines = [
            f"autotune {self.graph!r}: measured {self.measured} of {len(self.measurements) + self.left} kinds of "
            f"contractions in {self.seconds:.1f} s, knew {len(self.measurements) - self.measured}, "
            f"had no time for {self.left}; {len(departed)} not as by the cost model"
        ]
        for measurement, departure in departed:
            lines.append(f"  {measurement.kind.where}{departure}")
            lines.append(f"      {measurement}")
        return "\n".join(lines)


def tune(graph: Graph, options: Options, measure: Measure, seconds: float, records: Records) -> Tuning:
    """Choose how to compute the contractions of a graph, the heaviest kinds first, in about `seconds`.

    `graph` is whole, before what follows from parameters alone is split off. No measurement begins when the time is
    over; what is in the records is taken from there whatever the time.
    """
    started = time.monotonic()
    source = with_padding(choose_layouts(simplify(graph), options.target.lanes))
    footprint = _footprint(source, options)
    measurements: list[Measurement] = []
    measured = left = 0
    for kind in kinds(source):
        found = candidates(kind, options)
        if len(found) < 2:
            continue
        key = _key(kind, options, footprint)
        times = _times(records.recall(key), len(found))
        if times is None:
            if time.monotonic() - started >= seconds:
                left += 1
                continue
            programs = [_alone(kind, candidate, options) for candidate in found]
            times = tuple(measure(programs, footprint))
            records.keep(key, json.dumps(times))
            measured += 1
        measurements.append(Measurement(kind, found, times))
    return Tuning(graph.name, tuple(measurements), measured, time.monotonic() - started, left)


def kinds(graph: Graph) -> list[Kind]:
    """The kinds of contractions in a simplified graph, those with most work first."""
    inference = not changes_inputs(graph)
    nodes: dict[str, list[Value]] = {}
    for value in graph.live():
        if isinstance(value.op, Matmul | Convolution) and value.type.size:
            nodes.setdefault(contraction_kind(value), []).append(value)
    found = []
    for name, alike in nodes.items():
        fixed = inference and all(map(has_fixed_kernel, alike))
        layers = sorted({path for node in alike for path in layer_paths(graph, node)})
        found.append(Kind(name, alike[0], fixed, tuple(layers), len(alike) * multiplications(alike[0])))
    return sorted(found, key=lambda kind: -kind.work)


def candidates(kind: Kind, options: Options) -> tuple[Choice, ...]:
    """What may be chosen for a kind: what the cost models would take first."""
    found = algorithms(kind.example, kind.fixed)
    choices = [Choice(algorithm) for algorithm in found]
    if found[0] == DEFINITION:
        choices += [Choice(DEFINITION, other) for other in other_divisions(kind.example, machine_for(options))]
    return tuple(choices)


def _alone(kind: Kind, choice: Choice, options: Options) -> Program:
    """A program that does nothing but a contraction of the kind, on kernels that are prepared if they can be."""
    node, graph = kind.example, Graph("candidate")
    operands = [
        graph.input(f"operand{place}", operand.type, role)
        for place, (operand, role) in enumerate(zip(node.inputs, kind.roles, strict=True))
    ]
    graph.output("result", graph.apply(node.op, *operands))
    choices = Choices((Departure(kind.name, choice, DEFINITION),))
    if kind.fixed:
        _, graph = split_prepare(graph, choices)
    return compile_graph(graph, replace(options, choices=choices))


def _footprint(graph: Graph, options: Options) -> int:
    """Bytes that a step touches before it comes back to one contraction, as far as it matters: twice what caches hold.

    The weights of a network larger than the caches come from memory anew in each step, those of a small one do not.
    """
    contractions = [value for value in graph.live() if isinstance(value.op, Contraction)]
    touched = {value for node in contractions for value in (node, *node.inputs)}
    return min(sum(value.type.nbytes for value in touched if value.type.nbytes > 0), 2 * options.target.l3)


def _key(kind: Kind, options: Options, footprint: int) -> str:
    """Under what measurements are kept: all that they and the list of candidates depend on.

    Of the footprint it is the order of magnitude, so that networks of like sizes share measurements.
    """
    from llvmlite import __version__ as llvmlite_version

    alone = (kind.name, *kind.roles, "fixed" if kind.fixed else "changing", footprint.bit_length())
    return "\n".join(map(str, ("autotune", code_version(), llvmlite_version, options, *alone)))


def _times(text: str | None, count: int) -> tuple[float, ...] | None:
    """The seconds in a record, None if it is none of `count` candidates."""
    try:
        times = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(times, list) or len(times) != count:
        return None
    sound = all(isinstance(seconds, float) and 0 < seconds < math.inf for seconds in times)
    return tuple(times) if sound else None
