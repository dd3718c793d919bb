"""Autotuning on the machine at hand: runs the compiler's candidates, and keeps what they took with compiled code."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.ir import Graph
from gradloom.compiler.passes.layout import WEIGHT_ROLES
from gradloom.runtime import cache

if TYPE_CHECKING:
    from gradloom.compiler.autotune import Tuning
    from gradloom.compiler.program import Argument, Program

DEFAULT_SECONDS = 30.0
"""How long the measurements for one program may take unless the caller says."""

ROUNDS = 9
"""How often candidates are timed by turns, at most: what disturbs the machine meanwhile hits all of them."""

ROUND_SECONDS = 0.003
"""Seconds that one timing of a candidate takes at least."""

MOST_COPIES = 32
"""Copies of weights at most: of smaller ones it hardly matters where they come from."""

KIND_SECONDS = 0.6
"""Seconds after which the candidates of a kind are timed no further, but for three rounds."""


def time_box(autotune: Any) -> float | None:
    """The seconds that `autotune` allows for measurements, None where it asks for none.

    Raises `ValueError` for what is neither a truth value nor a positive number.
    """
    if isinstance(autotune, (bool, np.bool_)):
        return DEFAULT_SECONDS if autotune else None
    if isinstance(autotune, (int, float, np.integer, np.floating)) and 0 < autotune < math.inf:
        return float(autotune)
    raise ValueError(
        "Expected autotune as True, False, or the seconds that measuring may take for each program. "
        f"Received: autotune={autotune!r}"
    )


def chosen(graph: Graph, seconds: float | None) -> Choices:
    """What a program of the graph is to be compiled with."""
    tuning = tuned(graph, seconds)
    return NO_CHOICES if tuning is None else tuning.choices


def tuned(graph: Graph, seconds: float | None) -> Tuning | None:
    """Measure how the contractions of a graph are computed fastest; None where there is no time for it at all."""
    if seconds is None:
        return None
    from gradloom.compiler.autotune import tune  # loads LLVM
    from gradloom.compiler.options import Options
    from gradloom.runtime.cpus import available_cpus

    return tune(graph, Options(cores=available_cpus()), measure, seconds, _records)


class _Records:
    """Measurements of this process, which are on the disk, too, unless the cache is off."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def recall(self, key: str) -> str | None:
        text = self._known.get(key) or cache.load_text(key)
        if text is not None:
            self._known[key] = text
        return text

    def keep(self, key: str, text: str) -> None:
        self._known[key] = text
        cache.store_text(key, text)

    def clear(self) -> None:
        """Forget what this process knows, but not what is on the disk."""
        self._known.clear()


_records = _Records()


def measure(programs: Sequence[Program], footprint: int) -> list[float]:
    """Median seconds of each program on random data, timed by turns.

    Runs take turns among copies of the weights that take `footprint` bytes together: within a whole step, too, a
    kernel finds in the caches what the kernel before it wrote, but of the weights no more than they can hold.
    What a call from Python takes is not the kernel's: threads are awake when a timing begins, arrays in the program's
    order, and where the nearest cache holds the weights of a whole step, all runs of a timing are one call.
    """
    arrays: dict[Any, np.ndarray] = {}
    times: list[list[float]] = [[] for _ in programs]
    with ExitStack() as stack:
        rotations = [_Rotation(program, footprint, arrays, stack) for program in programs]
        once = [rotation.warm_up() for rotation in rotations]
        started = time.perf_counter()
        for done in range(ROUNDS):
            if done >= 3 and time.perf_counter() - started > KIND_SECONDS:
                break
            for rotation, seconds, taken in zip(rotations, once, times, strict=True):
                taken.append(rotation.timed(max(1, math.ceil(ROUND_SECONDS / seconds))))
    return [median(taken) for taken in times]


class _Rotation:
    """A program bound to several copies of its weights, which runs use one after the other, as long as `stack`."""

    def __init__(self, program: Program, footprint: int, arrays: dict[Any, np.ndarray], stack: ExitStack) -> None:
        from gradloom.compiler.llvm.target import Target
        from gradloom.runtime.executable import Executable

        executable = Executable(program)
        nbytes = sum(argument.type.nbytes for argument in program.arguments if argument.role in WEIGHT_ROLES)
        is_near = not nbytes or footprint <= Target.host().l2
        self._bindings = [
            stack.enter_context(
                executable.bind({argument.name: _array(argument, copy, arrays) for argument in program.arguments})
            )
            for copy in range(1 if is_near else min(MOST_COPIES, math.ceil(footprint / nbytes)))
        ]
        self._next = 0

    def warm_up(self) -> float:
        """Run on each of the copies; return seconds for a run."""
        self._run(len(self._bindings))
        return self.timed(1)

    def timed(self, count: int) -> float:
        """Run so many times, after a run that wakes the threads; return seconds for each."""
        self._run(1)
        started = time.perf_counter()
        self._run(count)
        return (time.perf_counter() - started) / count

    def _run(self, count: int) -> None:
        if len(self._bindings) == 1:
            self._bindings[0].run(0, count)
            return
        for _ in range(count):
            self._bindings[self._next].run()
            self._next = (self._next + 1) % len(self._bindings)


def _array(argument: Argument, copy: int, arrays: dict[Any, np.ndarray]) -> np.ndarray:
    """An array for an argument; candidates whose arguments are alike share it, and copies share all but weights."""
    copy = copy if argument.role in WEIGHT_ROLES else 0
    key = argument.name, argument.host_shape, argument.type.dtype, copy
    if key not in arrays:
        random = np.random.default_rng(copy).random(argument.host_shape, np.float32)
        arrays[key] = (2 * random - 1).astype(argument.type.dtype.numpy)
    return arrays[key]
