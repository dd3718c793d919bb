"""Emits the program around the kernels: the loop over steps, each thread's share of every kernel, the barriers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import llvmlite.ir as ll

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.llvm.emit import I8, I32, I64, POINTER, VOID, declare
from gradloom.compiler.llvm.pool import RUN_PARAMETERS, emit_barrier, emit_pool
from gradloom.compiler.program import ALIGNMENT, STAMP_BYTES, TIME_STAMPS, Argument, Barrier, Call, Pointer, Step


def emit_driver(
    module: ll.Module, schedule: Sequence[Step], arguments: Sequence[Argument], arena_bytes: int, scratch_bytes: int
) -> None:
    """Add the exported functions of a program to the module that holds (or declares) its kernels.

    `schedule` is one step; the steps of a run follow each other without anything between, so that what the last calls
    of a step and the first of the next share needs a barrier as well. Each thread's scratch begins at
    `arena + arena_bytes + thread * scratch_bytes`; both sizes are multiples of `ALIGNMENT`. With an argument for time
    stamps each thread notes the time around all that it does; without one nothing is emitted for it.
    """
    run = ll.Function(module, ll.FunctionType(VOID, RUN_PARAMETERS), "gradloom_run")
    run.linkage = "internal"
    # It is called from two places and by address: one copy of it is enough.
    for attribute in ("noinline", "nounwind"):
        run.attributes.add(attribute)
    _Run(module, run, arguments, arena_bytes, scratch_bytes).emit(schedule)
    emit_pool(module, run)


class _Run:
    """Emits `void run(ptr arguments, ptr arena, i64 first, i64 steps, i64 thread, i64 threads, ptr epochs)`."""

    def __init__(
        self,
        module: ll.Module,
        function: ll.Function,
        arguments: Sequence[Argument],
        arena_bytes: int,
        scratch_bytes: int,
    ) -> None:
        self.module = module
        self.arguments = arguments
        self.table, self.arena, self.first, self.steps, self.thread, self.threads, self.epochs = function.args
        names = ("arguments", "arena", "first", "steps", "thread", "threads", "epochs")
        for value, name in zip(function.args, names, strict=True):
            value.name = name
        self.entry = ll.IRBuilder(function.append_basic_block("entry"))
        self.loop = function.append_basic_block("step")
        self.end = function.append_basic_block("end")
        self.b = ll.IRBuilder(self.loop)
        self.scratch = self._offset(
            self.entry, self.arena, self.entry.add(I64(arena_bytes), self.entry.mul(self.thread, I64(scratch_bytes)))
        )
        # What is the same in every step is computed once, before the loop.
        self.fixed: dict[Pointer, ll.Value] = {}
        self.shares: dict[int, tuple[ll.Value, ll.Value]] = {}
        # What changes from step to step is computed once a step, at its begin.
        self.moving: dict[Pointer, ll.Value] = {}

    def emit(self, schedule: Sequence[Step]) -> None:
        barriers = sum(isinstance(step, Barrier) for step in schedule)
        barrier = emit_barrier(self.module) if barriers else None
        step, epoch = self.b.phi(I64, "s"), self.b.phi(I64, "epoch")
        self.step = self.b.add(self.first, step)
        for pointer in dict.fromkeys(p for call in schedule if isinstance(call, Call) for p in call.arguments):
            self._place(pointer)
        stamps = self._stamps(step)
        passed = 0
        for number, item in enumerate(schedule):
            self._stamp(stamps, number)
            if isinstance(item, Call):
                self._call(item)
                continue
            passed += 1
            with self.b.if_then(self.b.icmp_signed(">", self.threads, I64(1))):
                self.b.call(barrier, [self.epochs, self.thread, self.threads, self.b.add(epoch, I64(passed))])
        self._stamp(stamps, len(schedule))
        following = self.b.add(step, I64(1))
        step.add_incoming(I64(0), self.entry.block)
        step.add_incoming(following, self.b.block)
        epoch.add_incoming(I64(0), self.entry.block)
        epoch.add_incoming(self.b.add(epoch, I64(barriers)), self.b.block)
        self.b.cbranch(self.b.icmp_signed("<", following, self.steps), self.loop, self.end)
        self.entry.cbranch(self.entry.icmp_signed("<", I64(0), self.steps), self.loop, self.end)
        self.b.position_at_end(self.end)
        self.b.ret_void()

    def _call(self, call: Call) -> None:
        """Emit a kernel's call for the thread's share of the blocks, unless that is empty."""
        begin, end = self._share(call.blocks)
        pointers = [self.fixed[p] if p in self.fixed else self.moving[p] for p in call.arguments]
        kernel = declare(self.module, call.kernel, VOID, [POINTER] * (len(pointers) + 1) + [I64, I64])
        if len(kernel.args) != len(pointers) + 3:
            expected, received = len(kernel.args) - 3, len(pointers)
            raise VerificationError(f"{call.kernel}: Expected {expected} buffers. Received: {received} in {call}")
        with self.b.if_then(self.b.icmp_signed("<", begin, end)):
            self.b.call(kernel, [*pointers, self.scratch, begin, end])

    def _stamps(self, step: ll.Value) -> ll.Value | None:
        """The address of the thread's time stamps of this step, None for a program that is not timed."""
        number = next((n for n, argument in enumerate(self.arguments) if argument.role == TIME_STAMPS), None)
        if number is None:
            return None
        points = self.arguments[number].type.shape[1]
        base = self.entry.load(self._offset(self.entry, self.table, I64(8 * number)), typ=POINTER)
        row = self.b.add(self.b.mul(step, self.threads), self.thread)
        return self._offset(self.b, base, self.b.mul(row, I64(points * STAMP_BYTES)))

    def _stamp(self, stamps: ll.Value | None, place: int) -> None:
        """Emit a look at the clock, if the program is timed: it ends one call or barrier and begins the next.

        Cycle counters would be a little cheaper, but on aarch64 user code may not read the one that LLVM means, and
        they would need calibrating. The C library's monotonic clock counts nanoseconds, is the same on all cores,
        reads the processor's counter without a system call on both architectures, and is Python's `perf_counter`.
        """
        if stamps is not None:
            clock = declare(self.module, "clock_gettime", I32, [I32, POINTER])
            at = self._offset(self.b, stamps, I64(STAMP_BYTES * place))
            self.b.call(clock, [I32(time.CLOCK_MONOTONIC), at])

    def _share(self, blocks: int) -> tuple[ll.Value, ll.Value]:
        if blocks not in self.shares:
            b, total = self.entry, I64(blocks)
            begin = b.udiv(b.mul(total, self.thread), self.threads)
            end = b.udiv(b.mul(total, b.add(self.thread, I64(1))), self.threads)
            self.shares[blocks] = begin, end
        return self.shares[blocks]

    def _place(self, pointer: Pointer) -> None:
        """Emit the address of a kernel's parameter."""
        if pointer.space == "constant":
            assert isinstance(pointer.at, bytes)
            self.fixed[pointer] = self._constant(pointer.at)
            return
        assert isinstance(pointer.at, int)
        if pointer.space == "arena":
            self.fixed[pointer] = self._offset(self.entry, self.arena, I64(pointer.at))
            return
        assert pointer.space == "argument", f"memory of an unknown kind: {pointer}"
        argument = self.arguments[pointer.at]
        base = self.entry.load(self._offset(self.entry, self.table, I64(8 * pointer.at)), typ=POINTER)
        if argument.role == "indices":
            self.moving[pointer] = self._offset(self.b, base, self.b.mul(self.step, I64(argument.type.nbytes)))
        else:
            self.fixed[pointer] = base

    def _constant(self, data: bytes) -> ll.Value:
        type = ll.ArrayType(I8, len(data))
        literal = ll.GlobalVariable(self.module, type, self.module.get_unique_name("constant"))
        literal.linkage = "private"
        literal.global_constant = literal.unnamed_addr = True
        literal.align = ALIGNMENT
        literal.initializer = ll.Constant(type, bytearray(data))
        return literal

    @staticmethod
    def _offset(b: ll.IRBuilder, base: ll.Value, offset: ll.Value) -> ll.Value:
        return b.gep(base, [offset], source_etype=I8)
