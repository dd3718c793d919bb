"""Runs the timed program of a step on copies of a model's arrays: what it measures leaves no trace in the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gradloom.compiler.collection import no_garbage_collection
from gradloom.compiler.ir import Graph
from gradloom.compiler.options import cache_key
from gradloom.compiler.passes.prepare import PREPARED, as_stored
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.program import TIME_STAMPS, Barrier, Program
from gradloom.drawn_arrays import drawn_argument, drawn_arrays
from gradloom.execution import Preparation
from gradloom.runtime import cache
from gradloom.runtime.binding import Binding
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
    """Seconds of a step, and of each of its items (calls and barriers): medians over `steps` steps.

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
    # The steps come first: they know where memory lies, and that there is enough.
    barriers = [isinstance(step, Barrier) for step in lowering.steps]
    program = timed_program(lowering)
    given = copies(program, prepare, arrays)
    executable = Executable(program)
    binding, _ = bound(executable, given, 1)
    with binding:
        binding.run()
        begun = time.perf_counter()
        binding.run()
        once = time.perf_counter() - begun
    steps = max(1, min(MOST_STEPS, int(CALL_SECONDS / once)))
    binding, stamps = bound(executable, given, steps)
    items: list[np.ndarray] = []
    busy: list[np.ndarray] = []
    begun = time.perf_counter()
    with binding:
        binding.run(0, steps)
        while len(items) < LEAST_CALLS or (len(items) < MOST_CALLS and time.perf_counter() - begun < seconds):
            binding.run(0, steps)
            timeline = Timeline.read(stamps, barriers, steps)
            items.append(timeline.critical)
            busy.append(timeline.busy)
    wall = 1e-9 * float(np.median(np.concatenate(items).sum(axis=1)))
    sample = _some_steps(timeline, wall)
    return Measurement(wall, _medians(items), _medians(busy), steps * len(items), sample)


def timed_program(lowering: Lowering) -> Program:
    """The program of a lowering with time stamps, from the cache of compiled code if it is there."""
    key = cache_key(lowering.graph, replace(lowering.options, memory_limit=None))
    program = cache.load(key)
    if program is None:
        with no_garbage_collection():
            program = lowering.program()
        cache.store(key, program)
    # The cache knows no names.
    return Program(**{**vars(program), "arguments": lowering.arguments})


def bound(executable: Executable, given: Mapping[str, np.ndarray], steps: int) -> tuple[Binding, np.ndarray]:
    """Bind arrays for calls of so many steps, and return the time stamps as well: none, unless the program is timed.

    Rows are read in order, and anew from the first on.
    """
    wanted = {argument.name for argument in executable.program.arguments}
    arrays = {name: array for name, array in given.items() if name in wanted}
    length = min((len(given[a.name]) for a in executable.program.arguments if a.role == "data"), default=1)
    for argument in executable.program.arguments:
        if argument.role == "indices":
            order = np.arange(steps * argument.type.size) % length
            arrays[argument.name] = order.astype(argument.type.dtype.numpy)
        elif argument.role == TIME_STAMPS:
            arrays[argument.name] = stamps_for(argument, steps, executable.threads)
    return executable.bind(arrays), arrays.get(TIME_STAMPS, np.empty(0, np.int64))


def copies(program: Program, prepare: Graph | None, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that a program runs on: what it writes is a copy, what is missing drawn, and `prepare` has run."""
    rows = max((argument.type.size for argument in program.arguments if argument.role == "indices"), default=1)
    written = {argument.name for argument in program.arguments if argument.written}
    found = {name: array.copy() if name in written else array for name, array in arrays.items()}
    supplied = ("indices", TIME_STAMPS) if prepare is None else ("indices", TIME_STAMPS, PREPARED)
    for argument in program.arguments:
        if argument.name not in found and argument.role not in supplied:
            found[argument.name] = drawn_argument(argument, 0, rows)
    if prepare is not None:
        found = drawn_arrays(prepare, 0, found) | found
        preparation = Preparation(as_stored(prepare, program.arguments), found)
        preparation.update(0)
        found |= preparation.results
    return found


def _medians(parts: list[np.ndarray]) -> tuple[float, ...]:
    return tuple(1e-9 * float(ns) for ns in np.median(np.concatenate(parts), axis=0))


def _some_steps(timeline: Timeline, wall: float) -> Timeline:
    """Up to three steps after each other of a timeline, around the one that is nearest to the median."""
    spans = timeline.times[:, 0, -1] - timeline.times[:, 0, 0]
    middle = int(np.argmin(np.abs(spans - 1e9 * wall)))
    first = max(0, min(middle - 1, len(spans) - 3))
    return Timeline(timeline.times[first : first + 3].copy(), timeline.barriers)
