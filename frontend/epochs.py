"""Epochs of training and rounds of testing: many steps in each native call, Python back some ten times a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradloom.callbacks import CallbackList
from gradloom.compiler.errors import NumericsError
from gradloom.data_adapter import Dataset
from gradloom.execution import CompiledGraph
from gradloom.step_graphs import ROWS, DataTypes
from gradloom.training_setup import TrainingSetup

if TYPE_CHECKING:
    from gradloom.programs import StepPrograms
    from gradloom.runtime.binding import Binding

INTERVAL = 0.1
"""Seconds that a native call should take: Python is back for the progress bar, callbacks and Ctrl-C."""

FIRST_STEPS = 8
"""Steps of a program's first call, which measures how long a step takes."""


@dataclass(frozen=True)
class Segment:
    """Steps of one program on one set of arrays, each of `samples` samples; `before` steps of an epoch come first."""

    compiled: CompiledGraph
    binding: Binding
    steps: int
    samples: int
    before: int

    @contextmanager
    def open(self, by_steps: bool = False) -> Iterator[None]:
        """Run steps inside. Parameters stay in the program's own layout between calls, unless `by_steps`."""
        try:
            if by_steps:
                yield
            else:
                with self.binding:
                    yield
        finally:
            self.compiled.changed()

    def advance(self, done: int, by_steps: bool = False, epoch: int | None = None) -> int:
        """Execute what fits one native call of the steps from `done` on; return how many that were.

        A `NumericsError` names the batch, and the epoch, counted here from 0.
        """
        steps = min(self.steps - done, 1 if by_steps else self._call_size())
        started = time.perf_counter()
        try:
            self.compiled.run_steps(self.binding, done, steps)
        except NumericsError as error:
            error.batch = self.before + error.step + 1
            error.epoch = None if epoch is None else epoch + 1
            raise
        self.compiled.seconds_per_step = (time.perf_counter() - started) / steps
        return steps

    def _call_size(self) -> int:
        seconds = self.compiled.seconds_per_step
        return FIRST_STEPS if seconds is None else max(1, int(INTERVAL / max(seconds, 1e-9)))


def _segments(
    program: Callable[[int, DataTypes], CompiledGraph],
    data: Dataset,
    order: np.ndarray,
    batches: Iterable[tuple[int, int]],
) -> list[Segment]:
    """Bind programs to a data set that is read in `order`: for each pair so many steps of so many samples."""
    segments: list[Segment] = []
    first = 0
    for steps, rows in batches:
        if steps:
            compiled = program(rows, data.types)
            binding = compiled.bind({**data.arrays, ROWS: order[first : first + steps * rows]})
            before = sum(segment.steps for segment in segments)
            segments.append(Segment(compiled, binding, steps, rows, before))
            first += steps * rows
    return segments


class Training:
    """A data set that is trained on epoch by epoch: programs are compiled and arrays bound when it is made.

    shuffle: the generator that draws each epoch's order, None for the order of the data.
    """

    def __init__(
        self,
        programs: StepPrograms,
        setup: TrainingSetup,
        data: Dataset,
        batch_size: int,
        shuffle: np.random.Generator | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self._setup = setup
        self._shuffle = shuffle
        self._order = np.arange(len(data), dtype=np.int32)
        full, rest = divmod(len(data), batch_size)
        if steps_per_epoch is not None and steps_per_epoch <= full:
            full, rest = steps_per_epoch, 0
        self._segments = _segments(programs.train, data, self._order, ((full, batch_size), (min(rest, 1), rest)))

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return sum(segment.steps for segment in self._segments)

    def run_epoch(self, callbacks: CallbackList, epoch: int | None = None) -> dict[str, float]:
        """Train on all samples once; return the epoch's loss and metrics. `epoch` is its number from 0, for errors."""
        if self._shuffle is not None:
            self._shuffle.shuffle(self._order)
        each_batch = callbacks.overrides("on_train_batch_begin", "on_train_batch_end")
        watched = callbacks.overrides("on_progress")
        batches = samples = 0
        with self._setup.round():
            for segment in self._segments:
                done = 0
                with segment.open(by_steps=each_batch):
                    while done < segment.steps:
                        if each_batch:
                            callbacks.call("on_train_batch_begin", batches, {})
                        steps = segment.advance(done, each_batch, epoch)
                        done, batches, samples = done + steps, batches + steps, samples + steps * segment.samples
                        if not (each_batch or watched):
                            continue
                        logs = self._setup.logs(samples)
                        if each_batch:
                            segment.compiled.changed()
                            callbacks.call("on_train_batch_end", batches - 1, logs)
                        callbacks.call("on_progress", batches, logs)
            return self._setup.logs(samples)


class Testing:
    """A data set that loss and metrics are computed on, its last batch by a program of its own if it is smaller.

    Padding would not do: models, losses and metrics may look across the samples of a batch.
    """

    def __init__(self, programs: StepPrograms, setup: TrainingSetup, data: Dataset, batch_size: int) -> None:
        self._setup = setup
        self._samples = len(data)
        full, rest = divmod(len(data), batch_size)
        order = np.arange(len(data), dtype=np.int32)
        self._segments = _segments(programs.test, data, order, ((full, batch_size), (min(rest, 1), rest)))

    @property
    def steps(self) -> int:
        """Batches in all."""
        return sum(segment.steps for segment in self._segments)

    def run(self, callbacks: CallbackList) -> dict[str, float]:
        """Return loss and metrics over all samples."""
        batches = samples = 0
        with self._setup.round():
            callbacks.call("on_test_begin", {})
            for segment in self._segments:
                done = 0
                with segment.open():
                    while done < segment.steps:
                        steps = segment.advance(done)
                        done, batches, samples = done + steps, batches + steps, samples + steps * segment.samples
                        callbacks.call("on_test_progress", batches, self._setup.logs(samples))
            logs = self._setup.logs(self._samples)
            callbacks.call("on_test_end", logs)
            return logs
