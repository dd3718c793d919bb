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
from gradloom.random_seed import Stream
from gradloom.runtime.interrupts import HeldBack
from gradloom.step_graphs import ROWS, DataTypes
from gradloom.training_setup import TrainingSetup
from gradloom.variables import Variable

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

    def advance(self, done: int, by_steps: bool = False, epoch: int | None = None, is_only: bool = False) -> int:
        """Execute what fits one native call of the steps from `done` on; return how many that were.

        A `NumericsError` names the batch, unless it `is_only`, and the epoch, counted here from 0.
        """
        steps = min(self.steps - done, 1 if by_steps else self._call_size())
        started = time.perf_counter()
        try:
            self.compiled.run_steps(self.binding, done, steps)
        except NumericsError as error:
            if not is_only:
                error.in_batch(self.before + error.step + 1, None if epoch is None else epoch + 1)
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

    shuffle: the stream that each epoch's order is drawn from, None for the order of the data.
    """

    def __init__(
        self,
        programs: StepPrograms,
        setup: TrainingSetup,
        data: Dataset,
        batch_size: int,
        shuffle: Stream | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.samples = len(data)
        self.batch_size = batch_size
        self.batches = 0
        """How many batches of the epoch that is on are done; 0 between epochs."""
        self._setup = setup
        self._order = np.arange(len(data), dtype=np.int32)
        self._begin_orders(shuffle)
        full, rest = divmod(len(data), batch_size)
        if steps_per_epoch is not None and steps_per_epoch <= full:
            full, rest = steps_per_epoch, 0
        self._segments = _segments(programs.train, data, self._order, ((full, batch_size), (min(rest, 1), rest)))
        self._put_back: Callable[[], None] | None = None

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return sum(segment.steps for segment in self._segments)

    @property
    def variables(self) -> list[Variable]:
        """All variables that a step reads or changes."""
        return list(dict.fromkeys(one for segment in self._segments for one in segment.compiled.variables))

    def resume(self, shuffle: Stream | None, orders: int, batches: int, put_back: Callable[[], None]) -> None:
        """Go on after `batches` batches of an epoch, the order of which is number `orders` of the stream `shuffle`.

        put_back: gives variables and callbacks what they had then, once the epoch has begun.
        """
        self._begin_orders(shuffle)
        for _ in range(orders):
            self._draw_order()
        self.batches, self._put_back = batches, put_back if batches else None

    def run_epoch(self, callbacks: CallbackList, epoch: int | None = None) -> dict[str, float]:
        """Train on all samples once, or on those that are left; return the epoch's loss and metrics.

        epoch: its number from 0, for errors; None for a step by itself.
        """
        if not self.batches:
            self._draw_order()
        # An interrupt finds the weights after a whole number of steps.
        with HeldBack() as interrupts, self._setup.round():
            if self._put_back is not None:
                self._put_back()
                self._put_back = None
            samples = self._run_batches(callbacks, interrupts, epoch)
            self.batches = 0
            return self._setup.logs(samples)

    def _run_batches(self, callbacks: CallbackList, interrupts: HeldBack, epoch: int | None) -> int:
        """Run the batches that are left, unless the model's `stop_training` says that it is enough.

        Returns how many samples there were since the epoch began.
        """
        each_batch = callbacks.overrides("on_train_batch_begin", "on_train_batch_end")
        watched = callbacks.overrides("on_progress")
        samples = 0
        for segment in self._segments:
            done = min(max(self.batches - segment.before, 0), segment.steps)
            samples += done * segment.samples
            with segment.open(by_steps=each_batch):
                while done < segment.steps and not (self.batches and callbacks.model.stop_training):
                    if each_batch:
                        with interrupts.let_through():
                            callbacks.call("on_train_batch_begin", self.batches, {})
                    steps = segment.advance(done, each_batch, epoch, is_only=epoch is None)
                    done, samples = done + steps, samples + steps * segment.samples
                    self.batches = segment.before + done
                    interrupts.deliver()
                    if not (each_batch or watched):
                        continue
                    logs = self._setup.logs(samples)
                    if each_batch:
                        segment.compiled.changed()
                    with interrupts.let_through():
                        if each_batch:
                            callbacks.call("on_train_batch_end", self.batches - 1, logs)
                        callbacks.call("on_progress", self.batches, logs)
        return samples

    def _begin_orders(self, stream: Stream | None) -> None:
        self.stream = stream
        self.orders = 0
        """How many orders were drawn from the stream."""
        self._generator = None if stream is None else stream.generator()
        self._order[...] = np.arange(self.samples, dtype=np.int32)

    def _draw_order(self) -> None:
        self.orders += 1
        if self._generator is not None:
            self._generator.shuffle(self._order)


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
        with HeldBack() as interrupts, self._setup.round():
            with interrupts.let_through():
                callbacks.call("on_test_begin", {})
            for segment in self._segments:
                done = 0
                with segment.open():
                    while done < segment.steps:
                        steps = segment.advance(done, is_only=self.steps == 1)
                        done, batches, samples = done + steps, batches + steps, samples + steps * segment.samples
                        with interrupts.let_through():
                            callbacks.call("on_test_progress", batches, self._setup.logs(samples))
            logs = self._setup.logs(self._samples)
            with interrupts.let_through():
                callbacks.call("on_test_end", logs)
            return logs
