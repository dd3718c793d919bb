"""Compiled graphs: a traced graph with the machine code for it, run on arrays."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradloom.autotuning import tuned
from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.errors import MemoryLimitError, NumericsError
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.passes.prepare import as_stored, split_prepare
from gradloom.numerics import NumericsCheck
from gradloom.runtime import memory
from gradloom.runtime.interrupts import HeldBack
from gradloom.runtime.locks import new_lock
from gradloom.tracing import TracedGraph

if TYPE_CHECKING:
    from gradloom.compiler.program import Program
    from gradloom.runtime.binding import Binding
    from gradloom.variables import Variable


class CompiledGraph:
    """Compiles a traced graph and runs it: variables and captured arrays are supplied here, the rest by the caller.

    Raises `MemoryLimitError` when the program would need more than `memory_limit` bytes, by default those that the
    machine has, before anything runs.
    autotune: seconds in which to measure how its contractions are computed fastest; None leaves that to cost models.
    check_numerics: whether runs raise `NumericsError` for NaN and infinities; the code that runs is the same.
    Several threads may run one at the same time.
    """

    def __init__(
        self,
        traced: TracedGraph,
        memory_limit: int | None = None,
        autotune: float | None = None,
        check_numerics: bool = False,
    ) -> None:
        from gradloom.runtime.executable import Executable  # its LLVM loads when there is something to run

        self.traced = traced
        tuning = tuned(traced.graph, autotune)
        choices = NO_CHOICES if tuning is None else tuning.choices
        self._check = NumericsCheck(traced, choices) if check_numerics else None
        self.tuning = "" if tuning is None else str(tuning)
        """What measurements said, as text."""
        prepare, graph = split_prepare(traced.graph, choices)
        self.program = compiled_program(graph, memory_limit, choices)
        self.executable = Executable(self.program)
        self.seconds_per_step: float | None = None
        """How long a step took when it was last measured."""
        self._results = {out.name: out.value.type for out in traced.graph.outputs if out.donor is None}
        self._names = {argument.name for argument in self.program.arguments}
        supplied = traced.arguments()
        self._preparation = None
        if prepare is not None:
            self._preparation = Preparation(as_stored(prepare, self.program.arguments), supplied)
            supplied |= self._preparation.results
        self._places = self.executable.places(supplied)

    def bind(self, arrays: Mapping[str, np.ndarray]) -> Binding:
        """Prepare for many runs on the same arrays."""
        given = {name: array for name, array in arrays.items() if name in self._names}
        return self.executable.bind({**self._places, **given})

    def empty_results(self) -> dict[str, np.ndarray]:
        """New arrays for the results."""
        return {name: np.empty(type.shape, type.dtype.numpy) for name, type in self._results.items()}

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one step and return its results in new arrays."""
        results = self.empty_results()
        self.prepare(self.version)
        writes_state = bool(self.traced.trace.assigned)
        try:
            with HeldBack() if writes_state else nullcontext():
                self.run_steps(self.bind({**arrays, **results}))
        finally:
            self.changed()
        return results

    def run_steps(
        self, binding: Binding, first: int = 0, steps: int = 1, version: Hashable = None, rows: int | None = None
    ) -> None:
        """Execute the steps [first, first + steps) on bound arrays, as `Binding.run` does.

        Raises `NumericsError` if numbers are checked: those of new states, and of the first `rows` rows of results.
        """
        if self._check is None:
            binding.run(first, steps, version)
        else:
            self._check.run(binding, first, steps, rows)

    def prepare(self, version: Hashable) -> None:
        """Compute anew what follows from the weights alone, if it was computed for another `version` of them."""
        if self._preparation is not None:
            self._preparation.update(version)

    @property
    def variables(self) -> list[Variable]:
        """The variables that the program reads or writes."""
        return self.traced.trace.variables

    def changed(self) -> None:
        """Note that variables were written."""
        self.traced.trace.changed()

    @property
    def version(self) -> Hashable:
        """Changes whenever a variable that the program reads does: what was derived from the old ones is stale."""
        return tuple(variable.version for variable in self.traced.trace.inputs)


class Preparation:
    """The part of a program that runs once per set of weights: folded normalization, for example.

    `results` are the arrays that the rest of the program reads, by label; `update` fills them.
    """

    def __init__(self, graph: Graph, supplied: Mapping[str, np.ndarray]) -> None:
        from gradloom.runtime.executable import Executable

        program = compiled_program(graph)
        arrays = memory.arrays([out.value.type for out in graph.outputs])
        self.results = {out.name: array for out, array in zip(graph.outputs, arrays, strict=True)}
        known = {**supplied, **self.results}
        self._binding = Executable(program).bind({a.name: known[a.name] for a in program.arguments})
        self._lock = new_lock(self, "_lock")
        self._version: Hashable = None

    def update(self, version: Hashable) -> None:
        """Compute the results for these weights, unless they are there already."""
        with self._lock:
            if version != self._version:
                self._binding.run()
                self._version = version


def compiled_program(graph: Graph, memory_limit: int | None = None, choices: Choices = NO_CHOICES) -> Program:
    """Return the program for a graph, from the cache of compiled code if it is there.

    Work is divided for the processors there are, not for the threads in use: results are the same for any number.
    Raises `MemoryLimitError` for one that needs more than `memory_limit`, or than there is.
    """
    from gradloom.compiler.options import Options, cache_key
    from gradloom.runtime import cache
    from gradloom.runtime.cpus import available_cpus
    from gradloom.runtime.memory import physical_memory

    limit = physical_memory() if memory_limit is None else memory_limit
    options = Options(cores=available_cpus(), choices=choices)
    key = cache_key(graph, options)
    program = cache.load(key)
    if program is None or program.needed_bytes > limit:
        from gradloom.compiler import pipeline  # the compiler's back end loads when there is something to compile

        try:
            program = pipeline.compile_graph(graph, replace(options, memory_limit=limit))
        except MemoryLimitError as error:
            if memory_limit is None:
                raise MemoryLimitError(f"{error}; the limit is the memory that there is") from None
            raise
        cache.store(key, program)
    # The cache knows no names: a program may have been compiled for a graph that calls its arguments otherwise.
    names = [value.op.label for value in graph.inputs if isinstance(value.op, Input)]
    names += [output.name for output in graph.outputs if output.donor is None]
    arguments = [replace(known, name=name) for known, name in zip(program.arguments, names, strict=True)]
    return replace(program, arguments=tuple(arguments))


class PredictProgram:
    """A compiled predict step with arrays of its own for one batch and its results, kept bound between calls.

    inputs, outputs: the labels of the batch's parts and of the results.
    """

    def __init__(self, compiled: CompiledGraph, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.compiled = compiled
        types = {value.op.attributes["label"]: value.type for value in compiled.traced.graph.inputs}
        batch = {label: memory.array(types[label]) for label in inputs}
        results = compiled.empty_results()
        self._batch = list(batch.values())
        self._results = [results[label] for label in outputs]
        self._binding = compiled.bind({**batch, **results})
        self._lock = new_lock(self, "_lock")

    def empty(self, samples: int) -> list[np.ndarray]:
        """New arrays for the predictions of so many samples."""
        return [np.empty((samples, *result.shape[1:]), result.dtype) for result in self._results]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of a whole batch of the first input."""
        shape: tuple[int, ...] = self._batch[0].shape
        return shape

    def run_whole(self, x: np.ndarray) -> np.ndarray:
        """Return the predictions for a whole batch, of a program with one input and one output."""
        with self._lock:
            np.copyto(self._batch[0], x)
            self._run(len(x))
            return self._results[0].copy()

    def run(self, x: Sequence[np.ndarray], out: Sequence[np.ndarray], first: int = 0) -> None:
        """Write the predictions for the rows of each of `x`, at most a batch of them, to each of `out`.

        first: the number of the first row in all data, for errors.
        """
        rows = len(x[0])
        with self._lock:
            for batch, part in zip(self._batch, x, strict=True):
                batch[:rows] = part
                batch[rows:] = 0
            self._run(rows, first)
            for array, result in zip(out, self._results, strict=True):
                array[...] = result[:rows]

    def _run(self, rows: int, first: int = 0) -> None:
        """Compute the results of the batch, of which so many rows count; the caller holds the lock."""
        version = self.compiled.version
        self.compiled.prepare(version)
        try:
            self.compiled.run_steps(self._binding, version=version, rows=rows)
        except NumericsError as error:
            error.in_samples(first, first + rows - 1)
            raise
        self.compiled.changed()
