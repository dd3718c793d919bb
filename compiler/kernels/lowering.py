"""What all kernel builders share: the kernel under construction, its blocks, and vector loops with their tails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.ir import Group, Value
from gradloom.compiler.kernels.evaluate import Evaluator, Footprint, Partition
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr, Kernel
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.passes.reading import storage
from gradloom.compiler.types import DType

MOST_BLOCKS = 64
"""Blocks that a kernel is cut into at most: enough for any thread count, few enough to cost nothing."""


@dataclass(frozen=True)
class Machine:
    """What kernel builders need to know of the target: vector lanes by dtype, registers, cores and cache sizes.

    `block_cost` is how many instructions a block should hold at least, so that handing it to another thread pays.
    `multiplies_bf16` says that `dot2` is one instruction.
    """

    vector_bytes: int
    registers: int
    cores: int
    l1_bytes: int
    l2_bytes: int
    block_cost: int
    multiplies_bf16: bool = False

    def lanes(self, dtypes: Sequence[DType]) -> int:
        """Lanes in which values of these dtypes are computed together: the widest one fills a register."""
        floats = [dtype.itemsize for dtype in dtypes if dtype.is_float]
        widest = max(floats or [dtype.itemsize for dtype in dtypes])
        return max(2, self.vector_bytes // max(widest, 4))


@dataclass(frozen=True)
class Task:
    """One group to lower.

    `stored` maps values outside the group to their buffers, `targets` the group's results to theirs; `produced` tells
    how earlier kernels divided the values that they made, so that a thread can go on with what it made itself;
    `choices` come before the cost models' own. Of an `outline` only is to be known how its blocks divide what it
    writes: it reads and stores nothing.
    """

    group: Group
    stored: Mapping[Value, Buffer]
    targets: Mapping[Value, Buffer]
    produced: Mapping[Value, Partition]
    machine: Machine
    choices: Choices = NO_CHOICES
    outline: bool = False

    @property
    def lanes(self) -> int:
        return self.machine.lanes([value.dtype for value in (*self.group.members, *self.group.results)])


@dataclass(frozen=True)
class Lowered:
    """A kernel with what it does to each of its parameters.

    `panels` are the widths of panels in which it would like to find matrices that it reads panel by panel.
    """

    kernel: Kernel
    footprints: Mapping[Buffer, Footprint]
    produced: Mapping[Value, Partition]
    panels: Mapping[Buffer, int] = field(default_factory=dict)


class Lowering:
    """A kernel under construction for a task: the builder and the evaluator, and the ways to finish results."""

    def __init__(self, task: Task, flat: bool = False) -> None:
        self.task = task
        self.b = Builder(task.group.name)
        self.evaluator = Evaluator(self.b, task.stored, flat, task.outline)
        self.panels: dict[Buffer, int] = {}

    @contextmanager
    def blocks(self, count: int) -> Iterator[Index]:
        """Open the parallel loop over blocks; yields the block's number."""
        self.evaluator.blocks = count
        with self.b.parallel(count) as loop:
            self.evaluator.block = loop.statement.var
            yield loop.index

    def finish(self, blocks: int) -> Lowered:
        """The lowered kernel."""
        produced = {}
        for value, buffer in self.task.targets.items():
            footprint = self.evaluator.footprints.get(buffer)
            if footprint is not None and footprint.partition is not None:
                produced[value] = footprint.partition
        return Lowered(self.b.kernel(blocks), self.evaluator.footprints, produced, self.panels)

    def store(self, results: Sequence[Value], position: Position) -> None:
        """Compute `results` at `position`, then write them: all are read before memory that they share is written."""
        computed = [self.evaluator.read(value, position) for value in results]
        for value, element in zip(results, computed, strict=True):
            self.evaluator.store(self.task.targets[value], value, position, element)

    def span(self, block: Index, unit: int, size: int) -> Index | Expr:
        """How many of a block's `unit` elements there are: fewer in the last block of `size`."""
        if size % unit == 0:
            return ix.constant(unit)
        left = self.b.sub(size, self.b.expr(block.scaled(unit)))
        return self.b.binary("min", left, unit)


def columns(b: Builder, size: int, lanes: int, body: Callable[[Index], None]) -> None:
    """Run `body` over [0, size) in vectors: a loop over whole ones, then a partial one."""
    whole = size // lanes
    if whole:
        with b.vectorized(lanes):
            if whole == 1:
                body(ix.lanes(ix.constant(0), lanes))
            else:
                with b.loop(0, whole * lanes, lanes, name="j") as loop:
                    body(ix.lanes(loop.index, lanes))
    for start, width, active in tail(whole * lanes, size):
        with b.vectorized(width, active):
            body(ix.lanes(ix.constant(start), active))


def tail(start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The partial vector over [start, size), if any: its start, its lanes (a power of two) and how many count."""
    if left := size - start:
        yield start, 1 << (left - 1).bit_length(), left


def chunks(size: int, lanes: int) -> list[tuple[int, int, int]]:
    """All vectors over [0, size), as in `tail`."""
    whole = size // lanes
    return [(n * lanes, lanes, lanes) for n in range(whole)] + list(tail(whole * lanes, size))


def block_unit(machine: Machine, count: int, cost: float, hint: int | None = None) -> int:
    """How many of `count` independent elements of work, `cost` instructions each, a block takes.

    Equal blocks where none of the cores gets more to do by that: one block that is smaller is code of its own.
    """
    if hint is not None:
        return hint
    unit = max(1, min(count, max(math.ceil(count / MOST_BLOCKS), math.ceil(machine.block_cost / max(cost, 1)))))
    most = -(-count // unit)
    share = -(-most // machine.cores) * unit
    for blocks in range(most, most // 2, -1):
        if count % blocks == 0 and -(-blocks // machine.cores) * (count // blocks) <= share:
            return count // blocks
    return unit


def cost_of(values: Sequence[Value]) -> int:
    """About how many instructions one element of each of `values` takes."""
    return sum(1 + getattr(value.op, "cost", 1) for value in values)


def row_hint(task: Task, shape: tuple[int, ...]) -> int | None:
    """The unit in which an earlier kernel divided the rows of a tensor of this shape that the group reads."""
    for operand, partition in _divided_operands(task):
        stride = partition.period // max(1, shape[0])
        if operand.shape[:1] == shape[:1] and partition.period == operand.type.size and partition.unit % stride == 0:
            return partition.unit // stride
    return None


def column_hint(task: Task, width: int) -> int | None:
    """The unit in which an earlier kernel divided the columns of a tensor of this width that the group reads."""
    for _, partition in _divided_operands(task):
        if partition.period == width:
            return partition.unit
    return None


def _divided_operands(task: Task) -> Iterator[tuple[Value, Partition]]:
    for member in task.group.members:
        for operand in member.inputs:
            partition = task.produced.get(storage(operand))
            if partition is not None:
                yield operand, partition


def each_block(b: Builder, block: Index, unit: int, size: int, body: Callable[[Index, int], None]) -> None:
    """Run `body(first, count)` for a block of `size` elements: the last one may hold fewer, and is code of its own."""
    whole, left = divmod(size, unit)
    if not left or not whole:
        # All blocks are alike, or there is just one.
        body(block.scaled(unit), left or unit)
        return
    last = b.compare("eq", b.expr(block), whole)
    with b.when(b.unary("not", last)):
        body(block.scaled(unit), unit)
    with b.when(last):
        body(block.scaled(unit), left)


def each_part(b: Builder, size: int, part: int, body: Callable[[Index, int], None], name: str) -> None:
    """Run `body(first, count)` for all parts of `size` elements in turn: a smaller last one is code of its own."""
    whole = size // part * part
    if whole > part:
        with b.loop(0, whole, part, name=name) as loop:
            body(loop.index, part)
    elif whole:
        body(ix.constant(0), part)
    if size - whole:
        body(ix.constant(whole), size - whole)
