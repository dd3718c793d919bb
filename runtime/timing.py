"""What the time stamps of a timed program say: when each thread was in which call, and what a step waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradloom.compiler.cached import cached_property
from gradloom.compiler.program import ALIGNMENT, Argument
from gradloom.runtime import memory

NANOSECONDS = 10**9


def stamps_for(argument: Argument, steps: int, threads: int) -> np.ndarray:
    """A zeroed array for the time stamps of so many steps, with all its pages touched."""
    _, *point = argument.type.shape
    rows = memory.allocate(steps * threads * 8 * int(np.prod(point)), ALIGNMENT).view(np.int64)
    rows.fill(0)
    return rows.reshape(steps * threads, *point)


@dataclass(frozen=True)
class Timeline:
    """The times at which threads were between the items (calls and barriers) of a step.

    `times` is int64 of shape (steps, threads, items + 1), in nanoseconds: item i lasts from point i to point i + 1.
    `barriers` says which of the items are barriers.
    """

    times: np.ndarray
    barriers: Sequence[bool]

    @classmethod
    def read(cls, stamps: np.ndarray, barriers: Sequence[bool], steps: int) -> Timeline:
        """Take the stamps of a call on so many steps apart; threads that had no part in it left their rows empty."""
        times = stamps[:, : len(barriers) + 1, 0] * NANOSECONDS + stamps[:, : len(barriers) + 1, 1]
        threads = int(np.count_nonzero(times[:, 0])) // steps
        return cls(times[: steps * threads].reshape(steps, threads, -1), barriers)

    @property
    def threads(self) -> int:
        return int(self.times.shape[1])

    @property
    def starts(self) -> np.ndarray:
        """When threads began items: of shape (steps, threads, items)."""
        return self.times[..., :-1]

    @property
    def ends(self) -> np.ndarray:
        """When threads ended items."""
        return self.times[..., 1:]

    @cached_property
    def critical(self) -> np.ndarray:
        """Nanoseconds that each step spent in each item, of shape (steps, items): they add up to the time of the run.

        Between two barriers everybody waits for the thread that is the last to arrive: the time of the calls is that
        thread's. A barrier's is what goes by from the last arrival until the thread goes on that the next one will
        wait for. Where nothing but the end of a step comes, the stretch reaches into the next one.
        """
        steps, threads, items = self.starts.shape
        starts, ends = (part.transpose(1, 0, 2).reshape(threads, -1) for part in (self.starts, self.ends))
        is_barrier = np.tile(np.asarray(self.barriers, np.bool_), steps)
        at = np.flatnonzero(is_barrier)
        arrivals = np.concatenate([starts[:, at], ends[:, -1:]], axis=1)
        last = np.argmax(arrivals, axis=0)
        stretch = np.cumsum(is_barrier)
        columns = np.arange(steps * items)
        # A barrier ends a stretch and is counted to the one that follows.
        begun_by = last[stretch - is_barrier]
        spent = ends[last[stretch], columns] - starts[begun_by, columns]
        return np.asarray(spent.reshape(steps, items))

    @cached_property
    def busy(self) -> np.ndarray:
        """Nanoseconds that threads spent in each item on average, of shape (steps, items)."""
        return np.asarray((self.ends - self.starts).mean(axis=1))
