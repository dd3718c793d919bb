"""Scheduling: puts a graph's kernels in order, gives every value its memory, and lowers each group to loop IR."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.errors import VerificationError
from gradloom.compiler.growing import Growing
from gradloom.compiler.ir import Constant, Graph, Group, Input, Value
from gradloom.compiler.kernels.border import lower_border
from gradloom.compiler.kernels.contraction import lower_contraction
from gradloom.compiler.kernels.convolution import border_needed
from gradloom.compiler.kernels.evaluate import Footprint, Partition
from gradloom.compiler.kernels.lowering import Lowered, Machine, Task
from gradloom.compiler.kernels.map import lower_map
from gradloom.compiler.kernels.product import NO_BORDER
from gradloom.compiler.kernels.reduce import lower_reduce
from gradloom.compiler.kernels.rows import lower_row_group
from gradloom.compiler.kernels.scatter import lower_scatter
from gradloom.compiler.kernels.signature import signature
from gradloom.compiler.loops.grammar import Buffer, Kernel
from gradloom.compiler.ops.base import Elementwise, Windowed
from gradloom.compiler.passes.layout import STORED_ROLES
from gradloom.compiler.passes.reading import reaches, storage
from gradloom.compiler.program import Argument, Pointer
from gradloom.compiler.types import TensorType

Border = tuple[int, int, int, int]

Known = dict[Hashable, tuple[Task, list[Buffer], list[Lowered]]]
"""Tasks that were lowered, by their signature, with their buffers and kernels."""

LOWERINGS = {
    "map": lower_map,
    "rows": lower_row_group,
    "reduce": lower_reduce,
    "scatter": lower_scatter,
}
"""The kernel builder of each kind of group."""

PANELLED_FROM = 4096
"""Bytes from which on a matrix is laid out in panels."""


@dataclass(frozen=True)
class Launch:
    """A kernel in the order of a step, the buffers that it is called with, and what it does to each of them.

    Launches may share a kernel, which then names the buffers of the first of them.
    """

    kernel: Kernel
    group: Group
    buffers: tuple[Buffer, ...]
    footprints: Mapping[Buffer, Footprint]
    panels: Mapping[Buffer, int] = field(default_factory=dict)


@dataclass
class Schedule:
    """The kernels of one step in order, and where buffers live that are not the schedule's own.

    `places` maps buffers to arguments and constants; all other buffers of the launches are intermediate results, for
    which `gradloom.compiler.memory` finds room. Each of the launches is lowered when a reader first comes to it.
    """

    arguments: list[Argument] = field(default_factory=list)
    launches: Sequence[Launch] = ()
    places: dict[Buffer, Pointer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n\n".join(str(launch.kernel) for launch in self.launches)


def schedule(
    graph: Graph, machine: Machine, choices: Choices = NO_CHOICES, broken: Callable[[], None] = lambda: None
) -> Schedule:
    """Order and lower the groups of a fused graph; `broken` is called if lowering fails while the launches are read.

    An output that is donated an input's memory is written there in place when every reader of the old value comes
    before, else into memory of its own and copied at the end, which a note records.

    What threads write by columns is laid out in panels, so that no thread's cache lines (and what its prefetcher takes
    along with them) are another's: kernels are outlined first, to see how they divide their results.
    """
    scheduler = Scheduler(graph, machine, choices)
    scheduler.begin({}, outline=True)
    panels = scheduler.panels(list(scheduler.run()))
    result = scheduler.begin(panels)
    result.launches = Growing(scheduler.run(), broken)
    return result


class Scheduler:
    """A graph's groups in an order; schedules of them are begun and run: an outline, then the one that counts."""

    def __init__(self, graph: Graph, machine: Machine, choices: Choices) -> None:
        self.graph = graph
        self.machine = machine
        self.choices = choices
        self.borders = self._borders()
        self.readers = self._readers()
        self.maker = {value: group for group in graph.groups for value in group.results}
        self.after: dict[Group, set[Group]] = {
            group: {self.maker[value] for value in self._read_by(group) if value in self.maker} - {group}
            for group in graph.groups
        }
        # Kept from the outline: by then kernels are ordered such that results can be written in place.
        self.refusals: dict[tuple[Value, Value], str | None] = {}

    def begin(self, panels: Mapping[Value, int], outline: bool = False) -> Schedule:
        """Begin a schedule, or the outline of one, with all but its launches, which `run` then makes."""
        self.panelled = panels
        self.outline = outline
        self.known: Known = {}
        self.result = Schedule()
        self.lowered: list[Launch] = []
        self.buffers: dict[Value, Buffer] = {}
        self.produced: dict[Value, Partition] = {}
        self.early: list[tuple[Value, Buffer]] = []
        self.late: list[tuple[Value, Buffer]] = []
        self.saved: dict[Buffer, Buffer] = {}
        self.bordered: dict[Value, Buffer] = {}
        self._place_inputs()
        self._place_outputs()
        return self.result

    def run(self) -> Iterator[Launch]:
        """Lower the groups one by one; each yields its launches."""
        for value, buffer in self.early:
            self._copy(value, self.buffers[value], buffer)
        for group in self._ordered():
            for value in group.results:
                if value not in self.buffers:
                    self.buffers[value] = self._intermediate(value)
            self._lower(group)
            yield from self._taken()
        for value, buffer in self.early:
            if buffer in self.saved:
                self._copy(value, buffer, self.saved[buffer])
        for value, buffer in self.late:
            self._copy(value, self.buffers[value], buffer)
        yield from self._taken()

    def _taken(self) -> list[Launch]:
        """What was lowered since it was last taken."""
        taken, self.lowered = self.lowered, []
        return taken

    def _intermediate(self, value: Value) -> Buffer:
        """Memory for a result that stays within the step."""
        border = self.borders.get(value, NO_BORDER)
        buffer = Buffer(f"v{value.number}", value.type, panel=self.panelled.get(value, 0), border=border)
        self._clear_border(value, buffer)
        return buffer

    def _borders(self) -> dict[Value, Border]:
        """How far windows reach beyond the images that convolutions read."""
        borders: dict[Value, Border] = {}
        for value in self.graph.live():
            if isinstance(value.op, Windowed) and any(border := border_needed(value)):
                x = value.inputs[0]
                sides = [max(pair) for pair in zip(borders.get(x, NO_BORDER), border, strict=True)]
                borders[x] = (sides[0], sides[1], sides[2], sides[3])
        return borders

    def _clear_border(self, value: Value, buffer: Buffer) -> None:
        if any(buffer.border):
            lanes = self.machine.lanes([buffer.type.dtype])
            group = Group(f"border/{buffer.name}", "map", (), (value,))
            self._append(lower_border(buffer, lanes), group, {buffer: buffer})

    def _bordered_operands(self, group: Group) -> dict[Value, Buffer]:
        """Copies with a border of what convolutions read and what lies in memory without one (inputs, reshapes)."""
        found: dict[Value, Buffer] = {}
        for member in group.members:
            x = member.inputs[0] if isinstance(member.op, Windowed) else None
            if x is None or x not in self.borders or self.buffers[storage(x)].border == self.borders[x]:
                continue
            if x not in self.bordered:
                self.bordered[x] = Buffer(f"bordered{x.number}", x.type, border=self.borders[x])
                self._clear_border(x, self.bordered[x])
                self._copy(x, self.buffers[storage(x)], self.bordered[x])
            found[x] = self.bordered[x]
        return found

    def panels(self, launches: Sequence[Launch]) -> dict[Value, int]:
        """The values that should lie in panels, with the panels' widths.

        They are matrices that several threads write, each its own columns; and intermediate results and weights that
        are only read, the way their readers wish.
        """
        writes: dict[Buffer, set[Partition | None]] = {}
        wishes: dict[Buffer, set[int]] = {}
        for launch in launches:
            for buffer, footprint in launch.footprints.items():
                if footprint.writes:
                    writes.setdefault(buffer, set()).update(footprint.partitions)
            for buffer, panel in launch.panels.items():
                wishes.setdefault(buffer, set()).add(panel)
        chosen = {}
        for value, buffer in self.buffers.items():
            pointer = self.result.places.get(buffer)
            stored = pointer is not None and self._is_stored(pointer)
            partitions = writes.get(buffer, set())
            free = pointer is None or (stored and buffer not in writes)
            if free and len(wishes.get(buffer, ())) == 1:
                (chosen[value],) = wishes[buffer]
                continue
            fixed = pointer is not None and not stored
            if fixed or len(partitions) != 1 or buffer.type.nbytes < PANELLED_FROM or any(buffer.border):
                continue
            (partition,) = partitions
            width = buffer.type.shape[-1]
            if (
                partition
                and partition.unit < partition.period == width < buffer.type.size
                and not width % partition.unit
            ):
                chosen[value] = partition.unit
        return chosen

    def _is_stored(self, pointer: Pointer) -> bool:
        return isinstance(pointer.at, int) and self.result.arguments[pointer.at].role in STORED_ROLES

    # What a group reads from memory.

    def _read_by(self, group: Group) -> set[Value]:
        members = set(group.members)
        read = {storage(operand) for member in group.members for operand in member.inputs if operand not in members}
        return read - members

    def _readers(self) -> dict[Value, list[Group]]:
        readers: dict[Value, list[Group]] = {}
        for group in self.graph.groups:
            for value in self._read_by(group):
                readers.setdefault(value, []).append(group)
        return readers

    # Arguments.

    def _argument(
        self, name: str, type: TensorType, role: str, permutation: tuple[int, ...] = (), panel: int = 0
    ) -> Buffer:
        buffer = Buffer(name, type, panel=panel)
        self.result.places[buffer] = Pointer("argument", len(self.result.arguments))
        self.result.arguments.append(Argument(name, type, role, permutation, panel))
        return buffer

    def _place_inputs(self) -> None:
        for value in self.graph.live():
            if isinstance(value.op, Input):
                op = value.op
                self.buffers[value] = self._argument(
                    op.label, op.type, op.role, op.permutation, self.panelled.get(value, 0)
                )
            elif isinstance(value.op, Constant):
                buffer = self.buffers[value] = Buffer(f"constant{value.number}", value.type)
                self.result.places[buffer] = Pointer("constant", value.op.data)

    def _place_outputs(self) -> None:
        """Give outputs their memory: that of their donor, or an argument of their own."""
        for output in self.graph.outputs:
            value = storage(output.value)
            if value is output.donor:
                continue
            if output.donor is None:
                target = self._argument(output.name, output.value.type, "result")
            else:
                target = self.buffers[output.donor]
            refusal = self._direct(value, output.donor)
            if refusal is None:
                self.buffers[value] = target
                continue
            self._copy_onto(value, target, output.donor)
            if output.donor is not None:
                self.result.notes.append(f"{output.name} is copied onto its donor at the end: {refusal}")

    def _copy_onto(self, value: Value, target: Buffer, donor: Value | None) -> None:
        """Plan the copy of an output: of an input before anything can overwrite it, of a computed value at the end."""
        if value in self.maker:
            self.late.append((value, target))
        elif donor is None:
            self.early.append((value, target))
        else:
            saved = Buffer(f"old{value.number}", value.type)
            self.early.append((value, saved))
            self.saved[saved] = target

    def _direct(self, value: Value, donor: Value | None) -> str | None:
        """Why a kernel cannot write an output straight where it belongs; None after ordering kernels so that it can."""
        if value not in self.maker:
            return "no kernel computes it"
        if value in self.buffers:
            return "its kernel writes it elsewhere already"
        if donor is None:
            return None
        if (value, donor) not in self.refusals:
            self.refusals[value, donor] = self._refusal(value, donor)
        return self.refusals[value, donor]

    def _refusal(self, value: Value, donor: Value) -> str | None:
        """Why a kernel cannot overwrite the donor of its result."""
        writer = self.maker[value]
        others = [group for group in self.readers.get(donor, ()) if group is not writer]
        if reaches(others, writer, self.after.__getitem__):
            return "a later kernel reads the old value"
        if writer in self.readers.get(donor, ()) and not _replaces(writer, donor, value):
            return "its own kernel reads the old value at other positions"
        self.after[writer].update(others)
        return None

    # Order.

    def _ordered(self) -> Iterable[Group]:
        """Groups such that each comes after all that it needs; else in the order of the graph."""
        place = {group: number for number, group in enumerate(self.graph.groups)}
        missing = {group: len(needs) for group, needs in self.after.items()}
        followers: dict[Group, list[Group]] = {group: [] for group in place}
        for group, needs in self.after.items():
            for need in needs:
                followers[need].append(group)
        by_place = list(self.graph.groups)
        ready = [place[group] for group, count in missing.items() if not count]
        heapq.heapify(ready)
        done = 0
        while ready:
            group = by_place[heapq.heappop(ready)]
            done += 1
            yield group
            for follower in followers[group]:
                missing[follower] -= 1
                if not missing[follower]:
                    heapq.heappush(ready, place[follower])
        if done < len(by_place):
            raise VerificationError(f"the groups of graph {self.graph.name!r} need each other in a circle")

    def _lower(self, group: Group) -> None:
        operands = {operand for member in group.members for operand in member.inputs}
        outside = (operands | set(map(storage, operands))) - set(group.members)
        stored = {value: self.buffers[value] for value in outside if value in self.buffers}
        stored |= self._bordered_operands(group)
        targets = {value: self.buffers[value] for value in group.results}
        self._launch(Task(group, stored, targets, self.produced, self.machine, self.choices, self.outline))

    def _copy(self, value: Value, source: Buffer, target: Buffer) -> None:
        group = Group(f"copy/{target.name}", "map", (), (value,))
        self._launch(Task(group, {storage(value): source}, {value: target}, {}, self.machine))

    def _launch(self, task: Task) -> None:
        """Lower a task, or take the kernels of one that is alike but for its buffers."""
        key, buffers = signature(task)
        if key not in self.known:
            contraction = task.group.kind == "contraction"
            kernels = lower_contraction(task) if contraction else [LOWERINGS[task.group.kind](task)]
            self.known[key] = task, buffers, kernels
        like, its_buffers, kernels = self.known[key]
        own = dict(zip(its_buffers, buffers, strict=True))
        values = dict(zip(like.group.results, task.group.results, strict=True))
        for lowered in kernels:
            if task.group.members:
                self.produced.update({values[value]: partition for value, partition in lowered.produced.items()})
            self._append(lowered, task.group, own)

    def _append(self, lowered: Lowered, group: Group, own: Mapping[Buffer, Buffer]) -> None:
        if lowered.kernel.blocks:
            buffers = tuple(own[buffer] for buffer in lowered.kernel.buffers)
            footprints = {own[buffer]: footprint for buffer, footprint in lowered.footprints.items()}
            panels = {own[buffer]: panel for buffer, panel in lowered.panels.items()}
            self.lowered.append(Launch(lowered.kernel, group, buffers, footprints, panels))


def _replaces(group: Group, donor: Value, value: Value) -> bool:
    """Whether a kernel reads the donor's element only to compute the element that replaces it."""
    elsewhere: set[Value] = set()
    for member in reversed(group.members):
        if member in elsewhere or not isinstance(member.op, Elementwise) or member.shape != value.shape:
            elsewhere.update(member.inputs)
    return donor not in {storage(operand) for operand in elsewhere}
