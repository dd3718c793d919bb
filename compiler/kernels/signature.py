"""What the kernel of a task depends on: tasks of one signature are lowered once, and share the kernel."""

from __future__ import annotations

from collections.abc import Hashable

from gradloom.compiler.ir import Constant, Value
from gradloom.compiler.kernels.lowering import Task
from gradloom.compiler.loops.grammar import Buffer
from gradloom.compiler.passes.reading import storage


def signature(task: Task) -> tuple[Hashable, list[Buffer]]:
    """A key that names values and buffers by number only, and the buffers in the order of their numbers."""
    writer = _Writer(task)
    nodes = [writer.node(value) for value in task.group.members]
    results = [(writer.value(value), writer.buffer(task.targets[value])) for value in task.group.results]
    return (task.group.kind, tuple(nodes), tuple(results), tuple(writer.leaves)), writer.buffers


class _Writer:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.members = set(task.group.members)
        self.numbers: dict[Value, int] = {}
        self.buffers: list[Buffer] = []
        self.leaves: list[Hashable] = []

    def node(self, value: Value) -> Hashable:
        operands = tuple(self.value(operand) for operand in value.inputs)
        return (value.op, value.type, operands, self.value(value))

    def value(self, value: Value) -> int:
        if value not in self.numbers:
            self.numbers[value] = len(self.numbers)
            # A member may lie in memory besides: images with a border, which a reshape stands for.
            if value not in self.members or value in self.task.stored:
                self.leaves.append((self.numbers[value], *self.leaf(value)))
        return self.numbers[value]

    def leaf(self, value: Value) -> tuple[Hashable, ...]:
        """What is to be known of a value that comes from outside the group."""
        literal = value.op if isinstance(value.op, Constant) and value.type.size == 1 else None
        holder = value if value in self.task.stored else storage(value)
        place = self.buffer(self.task.stored[holder]) if holder in self.task.stored else None
        return (value.type, literal, holder.type, place, self.task.produced.get(storage(value)))

    def buffer(self, buffer: Buffer) -> Hashable:
        """The buffer's number and layout: results may share the memory of operands."""
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return (self.buffers.index(buffer), buffer.type, buffer.panel, buffer.border)
