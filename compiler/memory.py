"""Memory planning: offsets in one arena for all intermediate results, from their lifetimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradloom.compiler.errors import MemoryLimitError
from gradloom.compiler.loops import grammar
from gradloom.compiler.loops.grammar import Buffer
from gradloom.compiler.program import ALIGNMENT, Slot
from gradloom.compiler.schedule import Schedule

SHARED_FROM = 4096
"""Bytes from which on a buffer's memory is used again by later ones: for smaller ones a barrier would cost more."""


@dataclass(frozen=True)
class MemoryPlan:
    """Where every intermediate buffer lies in the arena, and how large arena and scratch are."""

    slots: dict[Buffer, Slot]
    arena_bytes: int
    scratch_bytes: int

    def __str__(self) -> str:
        lines = [f"arena {self.arena_bytes} bytes, scratch {self.scratch_bytes} bytes a thread"]
        lines += [str(slot) for slot in sorted(self.slots.values(), key=lambda slot: (slot.offset, slot.first))]
        if self.slots:
            at, live = self.peak()
            held = ", ".join(f"{slot.name} ({slot.nbytes})" for slot in live)
            lines.append(f"peak in call {at}: {held}")
        return "\n".join(lines)

    def peak(self) -> tuple[int, list[Slot]]:
        """The call during which most bytes are alive, and the buffers that hold them, the largest first."""
        calls = range(max((slot.last for slot in self.slots.values()), default=0) + 1)
        alive = {at: [slot for slot in self.slots.values() if slot.first <= at <= slot.last] for at in calls}
        at = max(calls, key=lambda call: sum(slot.nbytes for slot in alive[call]))
        return at, sorted(alive[at], key=lambda slot: -slot.nbytes)


def plan_memory(schedule: Schedule, limit: int | None = None) -> MemoryPlan:
    """Give each intermediate buffer the lowest offset where nothing is alive at the same time.

    The largest buffers are placed first, which keeps the arena close to the peak of what is alive. Raises
    `MemoryLimitError` when arena and arguments of known size together exceed `limit` bytes.
    """
    lifetimes: dict[Buffer, tuple[int, int]] = {}
    for at, launch in enumerate(schedule.launches):
        for buffer in launch.buffers:
            if buffer not in schedule.places:
                first, _ = lifetimes.get(buffer, (at, at))
                lifetimes[buffer] = (first, at)
    placed: list[Slot] = []
    slots: dict[Buffer, Slot] = {}
    end = len(schedule.launches) - 1
    for buffer in sorted(lifetimes, key=lambda buffer: (-buffer.nbytes, lifetimes[buffer])):
        first, last = lifetimes[buffer] if buffer.nbytes >= SHARED_FROM else (0, end)
        slot = Slot(buffer.name, _lowest(placed, buffer.nbytes, first, last), buffer.nbytes, first, last)
        placed.append(slot)
        slots[buffer] = Slot(slot.name, slot.offset, slot.nbytes, *lifetimes[buffer])
    arena = max((_aligned(slot.offset + slot.nbytes) for slot in placed), default=0)
    scratch = max((grammar.nbytes(launch.kernel.scratch) for launch in schedule.launches), default=0)
    plan = MemoryPlan(slots, arena, scratch)
    _check(plan, schedule, limit)
    return plan


def _lowest(placed: Sequence[Slot], nbytes: int, first: int, last: int) -> int:
    """The lowest aligned offset where `nbytes` are free during the calls [first, last]."""
    busy = sorted(
        (slot.offset, slot.offset + slot.nbytes) for slot in placed if slot.first <= last and first <= slot.last
    )
    offset = 0
    for start, stop in busy:
        if offset + nbytes <= start:
            break
        offset = max(offset, _aligned(stop))
    return offset


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _check(plan: MemoryPlan, schedule: Schedule, limit: int | None) -> None:
    if limit is None:
        return
    arguments = sum(argument.type.nbytes for argument in schedule.arguments if argument.type.nbytes > 0)
    needed = plan.arena_bytes + plan.scratch_bytes + arguments
    if needed <= limit:
        return
    where = "it has no intermediate results"
    if plan.slots:
        at, live = plan.peak()
        largest = ", ".join(f"{slot.name} of {slot.nbytes}" for slot in live[:3])
        where = f"the peak is in kernel {schedule.launches[at].group.name!r}, held by {largest} bytes"
    raise MemoryLimitError(
        f"Expected a program within memory_limit={limit} bytes. Received: one that needs {needed} "
        f"({arguments} for its arguments, {plan.arena_bytes} for intermediate results, {plan.scratch_bytes} for "
        f"scratch a thread); {where}"
    )
