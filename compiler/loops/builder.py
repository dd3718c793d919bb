"""Builds loop IR: keeps the place where statements go, broadcasts scalars to vectors, and shares equal expressions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.grammar import Block, Buffer, Expr, For, If, Kernel, Store, VType
from gradloom.compiler.loops.index import Index, LoopRange, Terms
from gradloom.compiler.types import BOOL, F32, I32, I64, DType

Operand = Expr | int | float | bool
Offset = Index | int


@dataclass
class Loop:
    """A loop under construction: its variable, the values it carries, and after it their results."""

    statement: For
    index: Index

    @property
    def carried(self) -> tuple[Expr, ...]:
        return self.statement.carried

    @property
    def results(self) -> tuple[Expr, ...]:
        return self.statement.results

    def next(self, *values: Expr) -> None:
        """Say what the carried values become at the end of a turn."""
        self.statement.next = values


class Builder:
    """Emits the statements of one kernel.

    `lanes` is the vector width in which the enclosing loop nest evaluates tensors, `active` the number of lanes that
    memory accesses touch (None: all); both concern what is read through lane-varying indices.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes = 1
        self.active: int | None = None
        self.body = Block()
        self.buffers: list[Buffer] = []
        self.scratch: list[Buffer] = []
        self.begin = Expr("var", VType(I64), (), "begin")
        self.end = Expr("var", VType(I64), (), "end")
        self._blocks = [self.body]
        self._shared: dict[tuple[Any, ...], Expr] = {}
        self._made_in: list[list[tuple[Any, ...]]] = [[]]
        self._variables = 0
        self._divided: dict[tuple[Index, Index], tuple[Index, int]] = {}

    def kernel(self, blocks: int) -> Kernel:
        """Finish: the kernel of what was emitted."""
        return Kernel(self.name, tuple(self.buffers), tuple(self.scratch), blocks, self.begin, self.end, self.body)

    @contextmanager
    def vectorized(self, lanes: int, active: int | None = None) -> Iterator[None]:
        """Evaluate tensors `lanes` at a time inside, `active` of which touch memory."""
        before = self.lanes, self.active
        self.lanes, self.active = lanes, None if active == lanes else active
        try:
            yield
        finally:
            self.lanes, self.active = before

    # Statements.

    @contextmanager
    def loop(
        self,
        start: Offset | Expr,
        stop: Offset | Expr,
        step: int = 1,
        initial: Sequence[Expr] = (),
        name: str = "i",
        high: int | None = None,
    ) -> Iterator[Loop]:
        """Open a loop over [start, stop) in steps; end its body with `loop.next(…)` if it carries values.

        `high` bounds the loop variable where `stop` is no constant.
        """
        with self._loop(self.expr(start), self.expr(stop), step, initial, name, high, parallel=False) as loop:
            yield loop

    @contextmanager
    def parallel(self, blocks: int, name: str = "block") -> Iterator[Loop]:
        """Open the loop over the thread's share of `blocks` independent blocks."""
        with self._loop(self.begin, self.end, 1, (), name, blocks - 1, parallel=True) as loop:
            # Where there is one block, nothing is computed from its number.
            yield Loop(loop.statement, ix.constant(0)) if blocks == 1 else loop

    @contextmanager
    def _loop(
        self, start: Expr, stop: Expr, step: int, initial: Sequence[Expr], name: str, high: int | None, parallel: bool
    ) -> Iterator[Loop]:
        self._variables += 1
        low = start.attr if start.op == "const" else 0
        if high is None and stop.op == "const":
            turns = max(0, -(-(stop.attr - low) // step))
            high = low + max(0, turns - 1) * step
        attr = f"{name}{self._variables}" if high is None else LoopRange(f"{name}{self._variables}", low, high, step)
        var = Expr("var", VType(I64), (), attr)
        carried = tuple(Expr("var", value.type, (), f"{name}{self._variables}_{n}") for n, value in enumerate(initial))
        results = tuple(Expr("var", value.type, (), f"{name}{self._variables}_{n}") for n, value in enumerate(initial))
        statement = For(var, start, stop, step, Block(), carried, tuple(initial), (), results, parallel)
        with self._inside(statement.body):
            yield Loop(statement, ix.of(var))
        assert len(statement.next) == len(carried), "a loop must say what its carried values become"
        self._emit(statement)

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """Open a block that runs when the scalar bool `condition` holds."""
        statement = If(condition, Block())
        with self._inside(statement.body):
            yield
        self._emit(statement)

    @contextmanager
    def _inside(self, block: Block) -> Iterator[None]:
        self._blocks.append(block)
        self._made_in.append([])
        try:
            yield
        finally:
            self._blocks.pop()
            for key in self._made_in.pop():
                del self._shared[key]

    @property
    def depth(self) -> int:
        """How many blocks are open: a value emitted at one depth is not visible after that block ends."""
        return len(self._blocks)

    def _emit(self, statement: Expr | Store | For | If) -> None:
        self._blocks[-1].statements.append(statement)

    def _expr(self, op: str, type: VType, args: tuple[Expr, ...] = (), attr: Any = None) -> Expr:
        # Floats are told apart by their bits: 0.0 is not -0.0, and a NaN equals itself.
        literal = struct.pack("d", attr) if isinstance(attr, float) else attr
        # Names and numbers instead of types: hashing is most of the work here.
        key = (op, type.dtype.name, type.lanes, args, literal)
        return self.shared(key, lambda: self._new(op, type, args, attr))

    def _new(self, op: str, type: VType, args: tuple[Expr, ...], attr: Any) -> Expr:
        expr = Expr(op, type, args, attr)
        self._emit(expr)
        return expr

    def shared(self, key: tuple[Any, ...], make: Callable[[], Expr]) -> Expr:
        """The expression known by `key` in this block or one around it; made here if there is none."""
        known = self._shared.get(key)
        if known is None:
            known = self._shared[key] = make()
            self._made_in[-1].append(key)
        return known

    # Values.

    def const(self, value: float | bool, dtype: DType, lanes: int = 1) -> Expr:
        """A literal."""
        return self._expr("const", VType(dtype, lanes), (), dtype.numpy.type(value).item())

    def unary(self, op: str, x: Expr) -> Expr:
        return self._expr(op, x.type, (x,))

    def binary(self, op: str, x: Operand, y: Operand) -> Expr:
        """`op` on operands of one dtype; Python numbers take the other's dtype, scalars are broadcast."""
        first, second = self._match(x, y)
        return self._expr(op, first.type, (first, second))

    def compare(self, op: str, x: Operand, y: Operand) -> Expr:
        first, second = self._match(x, y)
        return self._expr(op, first.type.truth, (first, second))

    def _match(self, *operands: Operand) -> tuple[Expr, ...]:
        types = [operand.type for operand in operands if isinstance(operand, Expr)]
        dtype, lanes = types[0].dtype, max([type.lanes for type in types])
        assert all(type.dtype == dtype for type in types), f"operands of one dtype, got {types}"
        return tuple(
            [
                self.broadcast(operand, lanes) if isinstance(operand, Expr) else self.const(operand, dtype, lanes)
                for operand in operands
            ]
        )

    def add(self, x: Operand, y: Operand) -> Expr:
        return self.binary("add", x, y)

    def sub(self, x: Operand, y: Operand) -> Expr:
        return self.binary("sub", x, y)

    def mul(self, x: Operand, y: Operand) -> Expr:
        return self.binary("mul", x, y)

    def div(self, x: Operand, y: Operand) -> Expr:
        return self.binary("div", x, y)

    def fma(self, x: Operand, y: Operand, z: Operand) -> Expr:
        args = self._match(x, y, z)
        return self._expr("fma", args[0].type, args)

    def dot2(self, x: Expr, y: Expr, z: Expr) -> Expr:
        """z plus the products of the two bf16 that the words x and y hold; a scalar is broadcast."""
        first, second = self._match(x, y)
        return self._expr("dot2", z.type, (self.broadcast(first, z.lanes), self.broadcast(second, z.lanes), z))

    def select(self, condition: Expr, x: Operand, y: Operand) -> Expr:
        first, second = self._match(x, y)
        lanes = max(condition.lanes, first.lanes)
        args = (self.broadcast(condition, lanes), self.broadcast(first, lanes), self.broadcast(second, lanes))
        return self._expr("select", args[1].type, args)

    def convert(self, x: Expr, dtype: DType) -> Expr:
        return x if x.dtype == dtype else self._expr("convert", x.type.with_dtype(dtype), (x,))

    def bitcast(self, x: Expr, dtype: DType) -> Expr:
        return self._expr("bitcast", x.type.with_dtype(dtype), (x,))

    def word(self, pair: Expr) -> Expr:
        """Two lanes of bf16 as one word, the first in the lower half."""
        return self._expr("bitcast", VType(I32), (pair,))

    def broadcast(self, x: Expr, lanes: int) -> Expr:
        if x.type.lanes == lanes:
            return x
        assert x.lanes == 1, f"a vector of {x.lanes} lanes cannot be broadcast to {lanes}"
        if x.op == "const":
            return self.const(x.attr, x.dtype, lanes)
        return self._expr("broadcast", VType(x.dtype, lanes), (x,))

    def iota(self, lanes: int) -> Expr:
        """The number of each lane."""
        return self._expr("iota", VType(I64, lanes))

    def reduce(self, op: str, x: Expr) -> Expr:
        """Combine the lanes into a scalar."""
        return x if x.lanes == 1 else self._expr("reduce", VType(x.dtype), (x,), op)

    def extract(self, x: Expr, lane: int) -> Expr:
        return x if x.lanes == 1 else self._expr("extract", VType(x.dtype), (x,), lane)

    # Memory.

    def param(self, buffer: Buffer) -> Buffer:
        """Add a parameter to the kernel."""
        if buffer not in self.buffers:
            self.buffers.append(buffer)
        return buffer

    def allocate(self, buffer: Buffer) -> Buffer:
        """Add scratch or stack memory to the kernel."""
        assert buffer.space in ("scratch", "stack")
        self.scratch.append(buffer)
        return buffer

    def load(self, buffer: Buffer, offset: Offset) -> Expr:
        """Read at `offset`: a scalar where it is the same for all lanes, adjacent lanes for stride 1, else a gather."""
        offset = ix.constant(offset) if isinstance(offset, int) else offset
        lanes = 1 if offset.is_uniform else self.lanes
        active = None if offset.is_uniform else self.active
        address = self._address(offset)
        expr = Expr("load", VType(buffer.type.dtype, lanes), (address,), (buffer, active))
        self._emit(expr)
        return expr

    def store(self, buffer: Buffer, offset: Offset, value: Expr) -> None:
        """Write at `offset`; where that varies from lane to lane, a scalar is broadcast."""
        offset = ix.constant(offset) if isinstance(offset, int) else offset
        assert value.dtype == buffer.type.dtype, f"cannot store {value.dtype} in {buffer.name} of {buffer.type}"
        if offset.is_uniform:
            assert value.lanes == 1, "a vector needs an offset that varies from lane to lane"
            self._emit(Store(buffer, self.expr(offset), value))
        else:
            self._emit(Store(buffer, self._address(offset), self.broadcast(value, self.lanes), self.active))

    def _address(self, offset: Index) -> Expr:
        """The scalar offset of adjacent lanes, or the vector of offsets of scattered ones."""
        if offset.vector is None and offset.stride in (0, 1):
            return self.expr(Index(offset.terms, offset.constant))
        return self.expr(offset)

    # Indices.

    def expr(self, index: Offset | Expr) -> Expr:
        """The index as an i64 expression: a scalar if it is uniform, else a vector."""
        if isinstance(index, Expr):
            return index
        if isinstance(index, int):
            return self.const(index, I64)
        if not index.terms:
            total = self.const(index.constant, I64)
        else:
            # Unrolled code reads at offsets that differ in their constants only.
            total = self.shared(("sum", index.terms), lambda: self._sum(index.terms))
            if index.constant:
                total = self.add(total, index.constant)
        if index.stride:
            iota = self.iota(self.lanes)
            total = self.add(total, iota if index.stride == 1 else self.mul(iota, index.stride))
        return total if index.vector is None else self.add(total, index.vector)

    def _sum(self, terms: Terms) -> Expr:
        products = (v if coefficient == 1 else self.mul(v, coefficient) for v, coefficient in terms)
        return reduce(self.add, products)

    def index(self, value: Expr, low: int | None = None, high: int | None = None) -> Index:
        """An integer value (a scalar or a vector) as an index, with its bounds if they are known."""
        value = self.convert(value, I64)
        if value.lanes == 1:
            return Index(((value, 1),), 0, 0, None, low, high)
        return Index((), 0, 0, value, low, high)

    def index_scale(self, index: Index, factor: int) -> Index:
        if index.vector is None:
            return index.scaled(factor)
        return self.index(self.mul(self.expr(index), factor))

    def index_add(self, x: Index, y: Index) -> Index:
        if x.vector is None or y.vector is None:
            return x + y
        return self.index(self.add(self.expr(x), self.expr(y)))

    def divmod(self, index: Index, divisor: int) -> tuple[Index, Index]:
        """Quotient and remainder of a non-negative index: symbolic where that works, else computed."""
        if divisor <= 1:
            # Along an axis of size 0 there is no index: this is code of a loop that never turns.
            return index, ix.constant(0)
        if (parts := index.split(divisor)) is not None:
            return parts
        if (start := self._common_start(index, divisor)) is not None:
            quotient, remainder = self.divmod(start, divisor)
            return quotient, ix.lanes(remainder, self.active or self.lanes, index.stride)
        value = self.expr(index)
        high = None if index.high is None else index.high // divisor
        quotient = self.index(self.div(value, divisor), 0, high)
        remainder = self.index(self.binary("rem", value, divisor), 0, divisor - 1)
        self._divided[quotient, remainder] = index, divisor
        return quotient, remainder

    def _common_start(self, index: Index, divisor: int) -> Index | None:
        """The index of lane 0, when all lanes lie between the same two multiples of `divisor`; else None.

        They do when everything but the lanes comes in steps that divide `divisor`, and the lanes stay within a step.
        """
        span = index.stride * ((self.active or self.lanes) - 1)
        if index.vector is not None or index.stride <= 0 or index.low is None or index.high is None:
            return None
        grid = math.gcd(divisor, index.constant)
        for variable, coefficient in index.terms:
            known = variable.attr if isinstance(variable.attr, LoopRange) else LoopRange("", 0, 0)
            grid = math.gcd(grid, coefficient * known.step, coefficient * known.low)
        if span >= grid:
            return None
        return Index(index.terms, index.constant, 0, None, index.low, max(index.low, index.high - span))

    def ravel(self, index: Sequence[Index], shape: Sequence[int]) -> Index:
        """The row-major offset of an index into a tensor of this shape."""
        offset, stride = ix.constant(0), 1
        for part, size in reversed(self._undivided(index, shape)):
            offset = self.index_add(offset, self.index_scale(part, stride))
            stride *= size
        return offset

    def _undivided(self, index: Sequence[Index], shape: Sequence[int]) -> list[tuple[Index, int]]:
        """The index without axes of size 1, and with divisions undone: with their sizes, axes that came from one.

        A reshape divides where its reader multiplies again; so adjacent lanes stay adjacent.
        """
        axes: list[tuple[Index, int]] = []
        for part, size in zip(index, shape, strict=True):
            if size == 1:
                continue
            axes.append((part, size))
            while len(axes) > 1:
                (quotient, rows), (remainder, columns) = axes[-2:]
                whole, divisor = self._divided.get((quotient, remainder), (quotient, 0))
                if divisor != columns:
                    break
                axes[-2:] = [(whole, rows * columns)]
        return axes

    def unravel(self, offset: Index, shape: Sequence[int]) -> tuple[Index, ...]:
        """The index whose row-major offset in a tensor of this shape is `offset`."""
        index: list[Index] = []
        for size in reversed(shape[1:]):
            offset, rest = self.divmod(offset, size)
            index.append(rest)
        if shape:
            index.append(ix.constant(0) if shape[0] == 1 else offset)
        return tuple(reversed(index))

    # Shorthands for literals.

    def zero(self, dtype: DType = F32, lanes: int = 1) -> Expr:
        return self.const(0, dtype, lanes)

    def true(self) -> Expr:
        return self.const(True, BOOL)
