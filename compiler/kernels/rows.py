"""Kernels of row-wise groups: reductions over the trailing axes and what is computed from them, row by row.

Softmax, cross-entropy and its gradient are one such kernel. A row is worked off in phases: phase n holds what needs
the reductions of the phases before it. Short rows are unrolled, so that everything stays in registers; of long rows,
what several phases need and is dear to compute anew is kept in scratch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import (
    Lowered,
    Lowering,
    Task,
    block_unit,
    chunks,
    cost_of,
    row_hint,
    tail,
)
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Inline, Position, Reduction
from gradloom.compiler.types import TensorType

UNROLLED = 4
"""Rows of at most so many vectors are unrolled."""

DEAR = 8
"""Instructions from which on a value is kept for later phases rather than computed anew."""


@dataclass(frozen=True)
class RowDomain:
    """Rows of a tensor: its leading axes count rows, its trailing axes are reduced."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows + self.columns


def row_domain(reduction: Value) -> RowDomain:
    """The rows that a reduction over trailing axes works on."""
    assert isinstance(reduction.op, Reduction)
    shape = reduction.inputs[0].shape
    kept = len(shape) - len(reduction.op.axes)
    return RowDomain(shape[:kept], shape[kept:])


def lower_row_group(task: Task) -> Lowered:
    """Lower a group of kind "rows"."""
    return _RowKernel(task).lower()


class _RowKernel:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.lowering = Lowering(task)
        self.b = self.lowering.b
        members = task.group.members
        self.reductions = [value for value in members if isinstance(value.op, Reduction)]
        self.domain = row_domain(self.reductions[0])
        self.width = math.prod(self.domain.columns)
        self.phases = self._phases()
        # A group without whole-row results of its own still runs as many phases as its reductions need.
        self.wide = [value for value in task.group.results if self._is_wide(value)]
        self.narrow = [value for value in task.group.results if not self._is_wide(value)]
        self.last = max(
            [self.phases[r.inputs[0]] for r in self.reductions] + [self.phases[value] for value in self.wide]
        )

    def _is_wide(self, value: Value) -> bool:
        return value.shape == self.domain.shape and value not in self.reductions and self.domain.columns != ()

    def _phases(self) -> dict[Value, int]:
        """For each member and its operands, the first phase in which it can be computed."""
        phases: dict[Value, int] = {}
        for value in self.task.group.members:
            for operand in value.inputs:
                phases.setdefault(operand, 0)
            before = max((phases[operand] for operand in value.inputs), default=0)
            phases[value] = before + isinstance(value.op, Reduction)
        return phases

    def lower(self) -> Lowered:
        rows = math.prod(self.domain.rows)
        if not rows:
            return self.lowering.finish(0)
        cost = cost_of(self.task.group.members) * max(1, self.width / self.task.lanes)
        hint = row_hint(self.task, self.domain.shape) if len(self.domain.rows) == 1 else None
        unit = block_unit(self.task.machine, rows, cost, hint)
        blocks = -(-rows // unit)
        with self.lowering.blocks(blocks) as block:
            if self.width > UNROLLED * self.task.lanes:
                self._allocate_scratch()
            with self.b.loop(0, self.lowering.span(block, unit, rows), high=unit - 1, name="row") as loop:
                row = self.b.unravel(block.scaled(unit) + loop.index, self.domain.rows)
                if self.width <= UNROLLED * self.task.lanes:
                    self._unrolled_row(row)
                else:
                    self._long_row(row)
                self._store_narrow(row)
        return self.lowering.finish(blocks)

    def _at(self, row: Position, column: Index) -> Position:
        return (*row, *self.b.unravel(column, self.domain.columns))

    def _store_narrow(self, row: Position) -> None:
        """Write the results that have one element a row; trailing axes of size one count for nothing."""
        evaluator = self.lowering.evaluator
        position = {value: (*row, *[ix.constant(0)] * (len(value.shape) - len(row))) for value in self.narrow}
        computed = [evaluator.read(value, position[value]) for value in self.narrow]
        for value, element in zip(self.narrow, computed, strict=True):
            evaluator.store(self.task.targets[value], value, position[value], element)

    def _give(self, reduction: Value, result: Expr) -> None:
        self.lowering.evaluator.given[reduction] = lambda position: result

    # Short rows.

    def _unrolled_row(self, row: Position) -> None:
        """Everything at once: equal reads are shared, so a value that several phases need is computed once."""
        for phase in range(self.last + 1):
            for reduction in self._reductions(phase):
                self._give(reduction, self._reduce_chunks(reduction, row))
        # All is read before anything is written: a result may share memory with an operand.
        pending = []
        for start, width, active in chunks(self.width, self.task.lanes):
            with self.b.vectorized(width, active):
                position = self._at(row, ix.lanes(ix.constant(start), active))
                elements = [self.lowering.evaluator.read(value, position) for value in self.wide]
                pending.append((width, active, position, elements))
        for width, active, position, elements in pending:
            with self.b.vectorized(width, active):
                for value, element in zip(self.wide, elements, strict=True):
                    self.lowering.evaluator.store(self.task.targets[value], value, position, element)

    def _reductions(self, phase: int) -> list[Value]:
        return [value for value in self.reductions if self.phases[value.inputs[0]] == phase]

    def _reduce_chunks(self, reduction: Value, row: Position) -> Expr:
        op = reduction.op
        assert isinstance(op, Reduction)
        whole: Expr | None = None
        total: Expr | None = None
        for start, width, active in chunks(self.width, self.task.lanes):
            with self.b.vectorized(width, active):
                position = self._at(row, ix.lanes(ix.constant(start), active))
                element = self._masked(reduction, position, width, active)
                if active == self.task.lanes:
                    whole = element if whole is None else self.b.binary(op.opcode, whole, element)
                else:
                    total = self.b.reduce(op.opcode, element)
        if whole is not None:
            sum_ = self.b.reduce(op.opcode, whole)
            total = sum_ if total is None else self.b.binary(op.opcode, sum_, total)
        return (
            self.b.const(op.identity(reduction.inputs[0].dtype), reduction.inputs[0].dtype) if total is None else total
        )

    def _masked(self, reduction: Value, position: Position, width: int, active: int) -> Expr:
        """The operand of a reduction, with the identity in the lanes that do not count."""
        op, operand = reduction.op, reduction.inputs[0]
        assert isinstance(op, Reduction)
        element = self.b.broadcast(self.lowering.evaluator.read(operand, position), width)
        if active == width:
            return element
        counts = self.b.compare("lt", self.b.iota(width), active)
        return self.b.select(counts, element, op.identity(operand.dtype))

    # Long rows.

    def _allocate_scratch(self) -> None:
        """Decide which values are kept for later phases, and give each a row of scratch."""
        self.kept: dict[Value, Buffer] = {}
        if self.last == 0:
            return
        for value in self.task.group.members:
            if isinstance(value.op, Inline) and self._is_wide(value) and self._recomputing(value) >= DEAR:
                readers = [m for m in self.task.group.members if value in m.inputs]
                later = [m for m in readers if self._run_phase(m) > self.phases[value]]
                if later:
                    type_ = TensorType(value.dtype, (self.width,))
                    self.kept[value] = self.b.allocate(Buffer(f"kept{len(self.kept)}", type_, "scratch"))

    def _run_phase(self, member: Value) -> int:
        """The phase in which a member's value is last asked for."""
        if isinstance(member.op, Reduction):
            return self.phases[member.inputs[0]]
        readers = [m for m in self.task.group.members if member in m.inputs]
        asked = [self._run_phase(m) for m in readers]
        return max([*asked, self.last if member in self.wide else self.phases[member]])

    def _recomputing(self, value: Value) -> int:
        """Instructions to compute a value anew from what lies in memory, or is kept, or was reduced."""
        if value not in self.task.group.members or isinstance(value.op, Reduction) or value in self.kept:
            return 0
        return int(getattr(value.op, "cost", 1)) + sum(self._recomputing(operand) for operand in value.inputs)

    def _long_row(self, row: Position) -> None:
        for phase in range(self.last + 1):
            reductions = self._reductions(phase)
            kept = [value for value in self.kept if self.phases[value] == phase]
            wide = self.wide if phase == self.last else []
            if reductions or kept or wide:
                self._long_phase(row, reductions, kept, wide)

    def _long_phase(
        self, row: Position, reductions: Sequence[Value], kept: Sequence[Value], wide: Sequence[Value]
    ) -> None:
        lanes = self.task.lanes
        whole = self.width // lanes * lanes
        initial = [self._identity(reduction, lanes) for reduction in reductions]
        with self.b.vectorized(lanes), self.b.loop(0, whole, lanes, initial, name="j") as loop:
            position = self._at(row, ix.lanes(loop.index, lanes))
            totals = []
            for reduction, carried in zip(reductions, loop.carried, strict=True):
                element = self._masked(reduction, position, lanes, lanes)
                totals.append(self.b.binary(reduction.op.opcode, carried, element))  # type: ignore[attr-defined]
            self._long_stores(ix.lanes(loop.index, lanes), position, kept, wide)
            loop.next(*totals)
        results = [
            self.b.reduce(reduction.op.opcode, total)  # type: ignore[attr-defined]
            for reduction, total in zip(reductions, loop.results, strict=True)
        ]
        for start, width, active in tail(whole, self.width):
            with self.b.vectorized(width, active):
                column = ix.lanes(ix.constant(start), active)
                position = self._at(row, column)
                for n, reduction in enumerate(reductions):
                    part = self.b.reduce(reduction.op.opcode, self._masked(reduction, position, width, active))  # type: ignore[attr-defined]
                    results[n] = self.b.binary(reduction.op.opcode, results[n], part)  # type: ignore[attr-defined]
                self._long_stores(column, position, kept, wide)
        for reduction, result in zip(reductions, results, strict=True):
            self._give(reduction, result)
        for value in kept:
            self.lowering.evaluator.given[value] = partial(self._read_kept, self.kept[value])

    def _read_kept(self, buffer: Buffer, position: Position) -> Expr:
        column = self.b.ravel(position[len(self.domain.rows) :], self.domain.columns)
        return self.b.load(buffer, column)

    def _long_stores(self, column: Index, position: Position, kept: Sequence[Value], wide: Sequence[Value]) -> None:
        for value in kept:
            element = self.lowering.evaluator.read(value, position)
            self.b.store(self.kept[value], column, element)
        self.lowering.store(wide, position)

    def _identity(self, reduction: Value, lanes: int) -> Expr:
        op = reduction.op
        assert isinstance(op, Reduction)
        dtype = reduction.inputs[0].dtype
        return self.b.const(op.identity(dtype), dtype, lanes)
