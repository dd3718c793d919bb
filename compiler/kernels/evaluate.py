"""Evaluates graph nodes inside a kernel: loads what lies in buffers, and computes everything else in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gradloom.compiler.ir import Constant, Value
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Elementwise, Inline, Position, Reader
from gradloom.compiler.passes.reading import reads, storage


@dataclass(frozen=True)
class Partition:
    """How the blocks of a kernel divide a buffer: block i touches only elements e with e mod period in [i, i+1)·unit.

    Columns of a matrix are divided with its width as the period, rows with its whole size.
    """

    blocks: int
    unit: int
    period: int


@dataclass
class Footprint:
    """What a kernel does to a buffer: whether it writes, and how its blocks divide it (None: not at all)."""

    writes: bool = False
    partitions: set[Partition | None] = field(default_factory=set)

    @property
    def partition(self) -> Partition | None:
        """The one division that all accesses agree on."""
        return next(iter(self.partitions)) if len(self.partitions) == 1 else None


class Evaluator:
    """Emits reads of graph values at positions, for one kernel.

    `stored` maps the values that lie in memory to their buffers. `given` maps values to functions that supply them
    (the accumulator of a contraction). With `flat`, the kernel runs over one axis that stands for all: every tensor
    has the kernel's full shape, in row-major order, or one element. In an `outline`, what is read is zero.
    """

    def __init__(self, b: Builder, stored: Mapping[Value, Buffer], flat: bool = False, outline: bool = False) -> None:
        self.b = b
        self.stored = stored
        self.given: dict[Value, Callable[[Position], Expr]] = {}
        self.flat = flat
        self.outline = outline
        self.block: Expr | None = None
        self.blocks = 1
        self.footprints: dict[Buffer, Footprint] = {}

    def read(self, value: Value, position: Position) -> Expr:
        """The element of `value` at `position`; the same one in one scope is computed once."""
        if self.outline:
            return self.b.zero(value.dtype)
        key = ("element", value, position, self.b.lanes, self.b.active)
        return self.b.shared(key, lambda: self._read(value, position))

    def _read(self, value: Value, position: Position) -> Expr:
        if value in self.given:
            return self.given[value](position)
        if isinstance(value.op, Constant) and value.type.size == 1:
            return self.b.const(value.op.array.reshape(-1)[0].item(), value.dtype)
        holder = value if value in self.stored else storage(value)
        if holder in self.stored:
            return self._load(self.stored[holder], value, position)
        assert isinstance(value.op, Inline), f"{value!r} has neither a buffer nor a computation"
        if self.flat:
            assert isinstance(value.op, Elementwise)
            return value.op.scalar(self.b, *(self.read(operand, position) for operand in value.inputs))
        operands = [Reader(operand.type, self._reader(operand)) for operand in reads(value)]
        return value.op.read(self.b, position, operands)

    def _reader(self, value: Value) -> Callable[[Position], Expr]:
        return lambda position: self.read(value, position)

    def _load(self, buffer: Buffer, value: Value, position: Position) -> Expr:
        self.record(buffer, value, position, writes=False)
        return self.b.load(buffer, self.offset(buffer, value, position))

    def store(self, buffer: Buffer, value: Value, position: Position, result: Expr) -> None:
        """Write the element of `value` at `position`."""
        self.record(buffer, value, position, writes=True)
        if not self.outline:
            self.b.store(buffer, self.offset(buffer, value, position), result)

    def offset(self, buffer: Buffer, value: Value, position: Position) -> Index:
        """Where the element lies in the value's buffer."""
        linear = self.flat or value.shape != buffer.type.shape
        if any(buffer.border):
            if linear:
                position = self.b.unravel(self._linear(value, position), buffer.type.shape)
            image, line, column, channel = position
            top, _, left, _ = buffer.border
            return self.b.ravel((image, line + top, column + left, channel), buffer.shape)
        if not buffer.panel:
            return self._linear(value, position) if linear else self.b.ravel(position, value.shape)
        if linear:
            position = self.b.unravel(self._linear(value, position), buffer.type.shape)
        *leading, columns = buffer.type.shape
        panel, column = self.b.divmod(position[-1], buffer.panel)
        places = (math.prod(leading), buffer.panel)
        return self.b.ravel((panel, self.b.ravel(position[:-1], leading), column), (columns // buffer.panel, *places))

    def _linear(self, value: Value, position: Position) -> Index:
        """The row-major offset of an element."""
        if not self.flat:
            return self.b.ravel(position, value.shape)
        return position[0] if value.type.size != 1 else ix.constant(0)

    def record(self, buffer: Buffer, value: Value, position: Position | None, writes: bool) -> None:
        """Note an access for the placement of barriers; without a position it is to the whole buffer."""
        self.b.param(buffer)
        footprint = self.footprints.setdefault(buffer, Footprint())
        footprint.writes |= writes
        if position is None or (self.flat and value.type.size == 1):
            footprint.partitions.add(None)
        else:
            shape = (value.type.size,) if self.flat else value.shape
            footprint.partitions.add(self._partition(position, shape))

    def _partition(self, position: Position, shape: tuple[int, ...]) -> Partition | None:
        """The division that follows from the axis along which the block number alone decides what is touched."""
        for axis, index in enumerate(position):
            unit = next((factor for variable, factor in index.terms if variable is self.block), 0)
            if unit <= 0 or self.block is None or index.low is None or index.high is None:
                continue
            rest_high = index.high - unit * (self.blocks - 1)
            if index.low >= 0 and rest_high < unit:
                stride = math.prod(shape[axis + 1 :])
                return Partition(self.blocks, unit * stride, shape[axis] * stride)
        return None
