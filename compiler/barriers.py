"""Barriers: where threads must wait for each other, and nowhere else.

Two kernels conflict when one writes bytes that the other reads or writes, unless each thread meets only bytes of its
own: then both divide the buffer into blocks alike, and the same thread gets the same blocks. The steps of a run
follow each other, so the end of a step is compared with the begin of the next as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradloom.compiler.kernels.evaluate import Partition
from gradloom.compiler.loops.grammar import Buffer
from gradloom.compiler.memory import MemoryPlan
from gradloom.compiler.program import Barrier, Call, Pointer, Step
from gradloom.compiler.schedule import Launch, Schedule

ONE_BLOCK = Partition(1, 0, 0)
"""A kernel of a single block: all such kernels run on the same thread."""


@dataclass(frozen=True)
class _Access:
    """Bytes that a kernel touches: a range of a memory, how its blocks divide it, and whether it writes there."""

    memory: str | int
    start: int
    stop: int
    buffer: Buffer
    partition: Partition | None
    writes: bool

    def conflicts(self, other: _Access) -> bool:
        if self.memory != other.memory or self.stop <= other.start or other.stop <= self.start:
            return False
        if not self.writes and not other.writes:
            return False
        if self.partition == ONE_BLOCK == other.partition:
            return False
        own = self.partition is not None and self.partition == other.partition and self.buffer is other.buffer
        return not own


def place_barriers(schedule: Schedule, plan: MemoryPlan, names: Sequence[str]) -> list[Step]:
    """The calls of a step, under the kernels' names in `names`, with the barriers that they need."""
    accesses = [_accesses(launch, schedule, plan) for launch in schedule.launches]
    needed: set[int] = set()
    since: list[_Access] = []
    # The second round meets what the first has left open; barriers that it adds hold for every step.
    for at in [*range(len(accesses)), *range(len(accesses))]:
        if at in needed:
            since = []
        elif any(new.conflicts(old) for new in accesses[at] for old in since):
            needed.add(at)
            since = []
        since = since + accesses[at]
    steps: list[Step] = []
    for at, (launch, name) in enumerate(zip(schedule.launches, names, strict=True)):
        if at in needed:
            steps.append(Barrier())
        pointers = tuple(_pointer(buffer, schedule, plan) for buffer in launch.buffers)
        steps.append(Call(name, pointers, launch.kernel.blocks))
    return steps


def _pointer(buffer: Buffer, schedule: Schedule, plan: MemoryPlan) -> Pointer:
    return schedule.places[buffer] if buffer in schedule.places else Pointer("arena", plan.slots[buffer].offset)


def _accesses(launch: Launch, schedule: Schedule, plan: MemoryPlan) -> list[_Access]:
    found = []
    for buffer, footprint in launch.footprints.items():
        pointer = _pointer(buffer, schedule, plan)
        if isinstance(pointer.at, bytes):
            continue
        partition = ONE_BLOCK if launch.kernel.blocks == 1 else footprint.partition
        if pointer.space == "arena":
            start, stop = pointer.at, pointer.at + buffer.nbytes
            found.append(_Access("arena", start, stop, buffer, partition, footprint.writes))
        else:
            found.append(_Access(pointer.at, 0, 1, buffer, partition, footprint.writes))
    return found
