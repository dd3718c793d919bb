"""Executes loop IR in Python, block by block, and notes each byte that a block reads or writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradloom.compiler import pipeline
from gradloom.compiler.loops.grammar import Block, Buffer, Expr, For, Kernel, Store
from gradloom.compiler.program import Call, Pointer
from gradloom.compiler.types import DType


@dataclass
class Memory:
    """All memory of a run, as bytes by name: "arena", or an argument's number."""

    spaces: dict[str | int, np.ndarray]

    def mask(self, space: str | int) -> np.ndarray:
        return np.zeros(len(self.spaces[space]), bool)


@dataclass
class Touched:
    """The bytes that one block of a call reads and writes, as masks by memory."""

    memory: Memory
    reads: dict[str | int, np.ndarray] = field(default_factory=dict)
    writes: dict[str | int, np.ndarray] = field(default_factory=dict)

    def note(self, space: str | int, positions: np.ndarray, itemsize: int, write: bool) -> None:
        masks = self.writes if write else self.reads
        mask = masks.setdefault(space, self.memory.mask(space))
        for byte in range(itemsize):
            mask[positions + byte] = True


Trace = list[tuple[Call, list[Touched]]]
"""The calls of a step, each with what its blocks touch."""


def arguments_memory(low: pipeline.Lowering, arrays: Mapping[str, np.ndarray]) -> Memory:
    """Memory for a run: copies of the arrays in the layouts that the program wants, zeros for results."""
    spaces: dict[str | int, np.ndarray] = {"arena": np.zeros(low.memory.arena_bytes, np.uint8)}
    for number, argument in enumerate(low.arguments):
        array = arrays.get(argument.name)
        if array is None:
            array = np.zeros(argument.host_shape, argument.type.dtype.numpy)
        if argument.permutation:
            array = array.transpose(argument.permutation)
        if argument.panel:
            array = array.reshape(-1, array.shape[-1] // argument.panel, argument.panel).transpose(1, 0, 2)
        spaces[number] = np.frombuffer(np.array(array, order="C").tobytes(), np.uint8).copy()
    return Memory(spaces)


def trace_step(low: pipeline.Lowering, memory: Memory, step: int) -> Trace:
    """Run one step on `memory`, block after block, and return what each block touched."""
    kernels = {kernel.name: kernel for kernel in low.kernels}
    trace: Trace = []
    for item in low.steps:
        if isinstance(item, Call):
            kernel = kernels[item.kernel]
            blocks = []
            for block in range(item.blocks):
                run = _Run(low, kernel, item.arguments, memory, step)
                run.execute(block)
                blocks.append(run.touched)
            trace.append((item, blocks))
    return trace


class _Run:
    """One block of a kernel."""

    def __init__(
        self, low: pipeline.Lowering, kernel: Kernel, pointers: tuple[Pointer, ...], memory: Memory, step: int
    ) -> None:
        self.kernel = kernel
        self.touched = Touched(memory)
        self.env: dict[Expr, np.ndarray] = {}
        self.own: dict[Buffer, np.ndarray] = {
            buffer: np.zeros(buffer.type.size, buffer.type.dtype.numpy) for buffer in kernel.scratch
        }
        self.shared: dict[Buffer, tuple[str | int, int]] = {}
        for buffer, pointer in zip(kernel.buffers, pointers, strict=True):
            if isinstance(pointer.at, bytes):
                self.own[buffer] = np.frombuffer(pointer.at, buffer.type.dtype.numpy)
            elif pointer.space == "arena":
                self.shared[buffer] = ("arena", pointer.at)
            else:
                argument = low.arguments[pointer.at]
                self.shared[buffer] = (pointer.at, step * argument.type.nbytes if argument.role == "indices" else 0)

    def execute(self, block: int) -> None:
        self.env[self.kernel.begin] = np.array([block])
        self.env[self.kernel.end] = np.array([block + 1])
        with np.errstate(all="ignore"):
            self.block(self.kernel.body)

    def block(self, block: Block) -> None:
        for statement in block.statements:
            if isinstance(statement, Expr):
                if statement.op != "var":
                    self.env[statement] = self.value(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, For):
                self.loop(statement)
            elif self.env[statement.condition][0]:
                self.block(statement.body)

    def loop(self, loop: For) -> None:
        values = [self.env[value] for value in loop.initial]
        for turn in range(int(self.env[loop.start][0]), int(self.env[loop.stop][0]), loop.step):
            self.env[loop.var] = np.array([turn])
            self.env.update(zip(loop.carried, values, strict=True))
            self.block(loop.body)
            values = [self.env[value] for value in loop.next]
        self.env.update(zip(loop.results, values, strict=True))

    def places(self, offset: Expr, lanes: int, active: int | None) -> np.ndarray:
        at = self.env[offset]
        if offset.lanes == 1 and lanes > 1:
            at = at[0] + np.arange(lanes)
        return at[:active]

    def view(self, buffer: Buffer, places: np.ndarray, write: bool) -> tuple[np.ndarray, np.ndarray]:
        """The array that holds a buffer, and where in it the places lie; notes the access of shared memory."""
        if buffer in self.own:
            return self.own[buffer], places
        space, base = self.shared[buffer]
        itemsize = buffer.type.dtype.itemsize
        positions = base + places * itemsize
        assert (positions >= 0).all() and (positions < len(self.touched.memory.spaces[space])).all(), buffer
        self.touched.note(space, positions, itemsize, write)
        return self.touched.memory.spaces[space][base % itemsize :].view(buffer.type.dtype.numpy), positions // itemsize

    def store(self, store: Store) -> None:
        places = self.places(store.offset, store.value.lanes, store.active)
        array, at = self.view(store.buffer, places, write=True)
        array[at] = self.env[store.value][: store.active]

    def value(self, expr: Expr) -> np.ndarray:
        if expr.op == "const":
            return np.full(expr.lanes, expr.attr, expr.dtype.numpy)
        if expr.op == "iota":
            return np.arange(expr.lanes)
        if expr.op == "load":
            buffer, active = expr.attr
            array, at = self.view(buffer, self.places(expr.args[0], expr.lanes, active), write=False)
            result = np.zeros(expr.lanes, expr.dtype.numpy)
            result[:active] = array[at]
            return result
        args = [self.env[arg] for arg in expr.args]
        if expr.op == "broadcast":
            return np.repeat(args[0], expr.lanes)
        if expr.op == "extract":
            return args[0][expr.attr : expr.attr + 1]
        if expr.op == "reduce":
            return np.array([_REDUCE[expr.attr].reduce(args[0])], expr.dtype.numpy)
        if expr.op == "convert":
            return _convert(args[0], expr.dtype)
        if expr.op == "bitcast":
            return args[0].view(expr.dtype.numpy)
        if expr.op == "fma":
            x, y, z = (arg.astype(np.float64) for arg in args)
            return (x * y + z).astype(expr.dtype.numpy)
        return np.asarray(_OPS[expr.op](*args)).astype(expr.dtype.numpy)


_REDUCE: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip


def _convert(x: np.ndarray, dtype: DType) -> np.ndarray:
    if x.dtype.kind == "f" and dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        x = np.clip(np.nan_to_num(np.trunc(x)), float(limits.min), float(limits.max))
    return x.astype(dtype.numpy)


def _quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return x / y
    safe = np.where(y == 0, 1, y)
    return np.where(y == 0, 0, np.abs(x) // np.abs(safe) * np.sign(x) * np.sign(safe))


def _shift_right(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    unsigned = x.view(f"u{x.itemsize}")
    return (unsigned >> y.astype(unsigned.dtype)).view(x.dtype)


_OPS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _quotient,
    "rem": lambda x, y: x - _quotient(x, y) * y,
    "min": np.minimum, "max": np.maximum, "neg": np.negative, "abs": np.abs, "sqrt": np.sqrt,
    "floor": np.floor, "ceil": np.ceil, "round": np.rint,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.logical_not,
    "shl": np.left_shift, "shr": _shift_right,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "select": np.where,
}  # fmt: skip


def merged(parts: list[dict[str | int, np.ndarray]]) -> dict[str | int, np.ndarray]:
    """The union of masks."""
    result: dict[str | int, np.ndarray] = {}
    grouped = defaultdict(list)
    for part in parts:
        for space, mask in part.items():
            grouped[space].append(mask)
    for space, masks in grouped.items():
        result[space] = np.logical_or.reduce(masks)
    return result
