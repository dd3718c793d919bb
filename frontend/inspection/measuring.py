"""Runs the timed program of a step on copies of a model's arrays: what it measures leaves no trace in the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gradloom.compiler.collection import no_garbage_collection
from gradloom.compiler.ir import Graph
from gradloom.compiler.options import cache_key
from gradloom.compiler.passes.prepare import as_stored
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.program import TIME_STAMPS, Barrier, Program
from gradloom.execution import Preparation
from gradloom.inspection.supply import drawn
from gradloom.runtime import cache
from gradloom.runtime.executable import Executable
from gradloom.runtime.timing import Timeline, stamps_for

CALL_SECONDS = 0.02
"""How long a native call should take: the threads' waking up hardly counts."""

MOST_STEPS = 256
"""Steps of a native call at most."""

LEAST_CALLS, MOST_CALLS = 3, 50
"""Timed calls."""


@dataclass(frozen=True)
class Measurement:
    """What was measured: seconds of a step by the wall, and of each of its items (calls and barriers) as medians.

    `items` and `busy` are what `Timeline` calls critical and busy. `sample` has the time stamps of some steps.
    """

    wall: float
    items: tuple[float, ...]
    busy: tuple[float, ...]
    steps: int
    sample: Timeline

    @property
    def threads(self) -> int:
        return self.sample.threads


def measure(lowering: Lowering, prepare: Graph | None, arrays: Mapping[str, np.ndarray], seconds: float) -> Measurement:
    """Run a timed program for about so many seconds on copies of `arrays`, and on drawn ones where there are none."""
    program = timed_program(lowering)
    rows = max((a.type.size for a in program.arguments if a.role == "indices"), default=1)
    given = _copies(program, arrays, rows)
    if prepare is not None:
        preparation = Preparation(as_stored(prepare, program.arguments), given)
        preparation.update(0)
        given |= preparation.results
    executable = Executable(program)
    barriers = [isinstance(step, Barrier) for step in lowering.steps]
    binding, _ = _bound(executable, given, 1)
    with binding:
        binding.run()
        begun = time.perf_counter()
        binding.run()
        once = time.perf_counter() - begun
    steps = max(1, min(MOST_STEPS, int(CALL_SECONDS / once)))
    binding, stamps = _bound(executable, given, steps)
    walls: list[float] = []
    items: list[np.ndarray] = []
    busy: list[np.ndarray] = []
    begun = time.perf_counter()
    with binding:
        binding.run(0, steps)
        while len(walls) < LEAST_CALLS or (len(walls) < MOST_CALLS and time.perf_counter() - begun < seconds):
            start = time.perf_counter()
            binding.run(0, steps)
            walls.append((time.perf_counter() - start) / steps)
            timeline = Timeline.read(stamps, barriers, steps)
            items.append(timeline.critical)
            busy.append(timeline.busy)
    return Measurement(
        median(walls), _medians(items), _medians(busy), steps * len(walls), _some_steps(timeline, median(walls))
    )


def timed_program(lowering: Lowering) -> Program:
    """The program of a lowering with time stamps, from the cache of compiled code if it is there."""
    key = cache_key(lowering.graph, lowering.options)
    program = cache.load(key)
    if program is None:
        with no_garbage_collection():
            program = lowering.program()
        cache.store(key, program)
    # The cache knows no names.
    return Program(**{**vars(program), "arguments": lowering.arguments})


def _bound(executable: Executable, given: Mapping[str, np.ndarray], steps: int) -> tuple[Any, np.ndarray]:
    """Bind arrays for calls of so many steps: rows are read in order, and anew from the first on."""
    arrays = dict(given)
    length = min((len(given[a.name]) for a in executable.program.arguments if a.role == "data"), default=1)
    for argument in executable.program.arguments:
        if argument.role == "indices":
            order = np.arange(steps * argument.type.size) % length
            arrays[argument.name] = order.astype(argument.type.dtype.numpy)
        elif argument.role == TIME_STAMPS:
            arrays[argument.name] = stamps_for(argument, steps, executable.threads)
    return executable.bind(arrays), arrays[TIME_STAMPS]


def _copies(program: Program, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """The arrays that a program and its preparation read: what is written is a copy, what is missing is drawn."""
    written = {argument.name for argument in program.arguments if argument.written}
    found = {name: array.copy() if name in written else array for name, array in arrays.items()}
    for argument in program.arguments:
        if argument.name not in found and argument.role not in ("indices", "prepared", TIME_STAMPS):
            found[argument.name] = drawn(argument, rows)
    return found


def _medians(parts: list[np.ndarray]) -> tuple[float, ...]:
    return tuple(1e-9 * float(ns) for ns in np.median(np.concatenate(parts), axis=0))


def _some_steps(timeline: Timeline, wall: float) -> Timeline:
    """Up to three steps after each other of a timeline, around the one that is nearest to the median."""
    spans = timeline.times[:, 0, -1] - timeline.times[:, 0, 0]
    middle = int(np.argmin(np.abs(spans - 1e9 * wall)))
    first = max(0, min(middle - 1, len(spans) - 3))
    return Timeline(timeline.times[first : first + 3].copy(), timeline.barriers)
