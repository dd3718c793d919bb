"""Emits the program around the kernels: the loop over steps, each thread's share of every kernel, the barriers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import llvmlite.ir as ll

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
    """Emits what a thread does: `run`, the loop over steps, and `step`, which it calls.

        void run(ptr arguments, ptr arena, i64 first, i64 steps, i64 thread, i64 threads, ptr epochs)
        void step(… of run, ptr shares, i64 s, i64 epoch)

    A step is a function of its own so that each call's addresses are computed at the call: LLVM would keep them all
    through a loop, a thousand in a large program, in memory, and be long at it. `shares` are the thread's blocks of
    each kernel, which take divisions and are computed once, before the loop.
    """

    def __init__(
        self,
        module: ll.Module,
        function: ll.Function,
        arguments: Sequence[Argument],
        arena_bytes: int,
        scratch_bytes: int,
    ) -> None:
        self.module, self.function = module, function
        self.arguments = arguments
        self.arena_bytes, self.scratch_bytes = arena_bytes, scratch_bytes
        body = ll.Function(module, ll.FunctionType(VOID, [*RUN_PARAMETERS, POINTER, I64, I64]), "gradloom_step")
        body.linkage = "internal"
        for attribute in ("noinline", "nounwind"):
            body.attributes.add(attribute)
        names = ("arguments", "arena", "first", "steps", "thread", "threads", "epochs", "shares", "s", "epoch")
        for each in (function, body):
            for value, name in zip(each.args, names, strict=False):
                value.name = name
        self.body = body
        self.table, self.arena, first, _, self.thread, self.threads, self.epochs, self.shares, s, self.epoch = body.args
        self.b = ll.IRBuilder(body.append_basic_block("entry"))
        self.row, self.step = s, self.b.add(first, s)
        thread_scratch = self.b.add(I64(arena_bytes), self.b.mul(self.thread, I64(scratch_bytes)))
        self.scratch = self._offset(self.b, self.arena, thread_scratch)
        self.constants: dict[bytes, ll.Value] = {}

    def emit(self, schedule: Sequence[Step]) -> None:
        blocks = list(dict.fromkeys(step.blocks for step in schedule if isinstance(step, Call)))
        barriers = sum(isinstance(step, Barrier) for step in schedule)
        self._emit_step(schedule, {count: number for number, count in enumerate(blocks)}, barriers)
        self._emit_loop(blocks, barriers)

    def _emit_loop(self, blocks: Sequence[int], barriers: int) -> None:
        """Emit `run`: the thread's share of each number of blocks, then the steps."""
        entry, loop, end = (ll.IRBuilder(self.function.append_basic_block(name)) for name in ("entry", "step", "end"))
        _, _, _, steps, thread, threads, _ = self.function.args
        shares = entry.alloca(ll.ArrayType(I64, 2 * len(blocks)))
        shares.type = POINTER
        for number, count in enumerate(blocks):
            total = I64(count)
            for place, part in enumerate((thread, entry.add(thread, I64(1)))):
                border = entry.udiv(entry.mul(total, part), threads)
                entry.store(border, self._offset(entry, shares, I64(16 * number + 8 * place)))
        s, epoch = loop.phi(I64, "s"), loop.phi(I64, "epoch")
        loop.call(self.body, [*self.function.args, shares, s, epoch])
        following = loop.add(s, I64(1))
        for phi, next in ((s, following), (epoch, loop.add(epoch, I64(barriers)))):
            phi.add_incoming(I64(0), entry.block)
            phi.add_incoming(next, loop.block)
        loop.cbranch(loop.icmp_signed("<", following, steps), loop.block, end.block)
        entry.cbranch(entry.icmp_signed("<", I64(0), steps), loop.block, end.block)
        end.ret_void()

    def _emit_step(self, schedule: Sequence[Step], numbers: Mapping[int, int], barriers: int) -> None:
        """Emit `step`: the calls and barriers in order."""
        barrier = emit_barrier(self.module) if barriers else None
        stamps = self._stamps()
        passed = 0
        for number, item in enumerate(schedule):
            self._stamp(stamps, number)
            if isinstance(item, Call):
                self._call(item, numbers[item.blocks])
                continue
            passed += 1
            with self.b.if_then(self.b.icmp_signed(">", self.threads, I64(1))):
                self.b.call(barrier, [self.epochs, self.thread, self.threads, self.b.add(self.epoch, I64(passed))])
        self._stamp(stamps, len(schedule))
        self.b.ret_void()

    def _call(self, call: Call, number: int) -> None:
        """Emit a kernel's call for the thread's share of the blocks, unless that is empty."""
        begin, end = (self.b.load(self._offset(self.b, self.shares, I64(16 * number + at)), typ=I64) for at in (0, 8))
        kernel = declare(self.module, call.kernel, VOID, [POINTER] * (len(call.arguments) + 1) + [I64, I64])
        with self.b.if_then(self.b.icmp_signed("<", begin, end)):
            self.b.call(kernel, [*map(self._place, call.arguments), self.scratch, begin, end])

    def _stamps(self) -> ll.Value | None:
        """The address of the thread's time stamps of this step, None for a program that is not timed."""
        number = next((n for n, argument in enumerate(self.arguments) if argument.role == TIME_STAMPS), None)
        if number is None:
            return None
        points = self.arguments[number].type.shape[1]
        row = self.b.add(self.b.mul(self.row, self.threads), self.thread)
        return self._offset(self.b, self._argument(number), self.b.mul(row, I64(points * STAMP_BYTES)))

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

    def _place(self, pointer: Pointer) -> ll.Value:
        """Emit the address of a kernel's parameter."""
        if pointer.space == "constant":
            assert isinstance(pointer.at, bytes)
            if pointer.at not in self.constants:
                self.constants[pointer.at] = self._constant(pointer.at)
            return self.constants[pointer.at]
        assert isinstance(pointer.at, int)
        if pointer.space == "arena":
            return self._offset(self.b, self.arena, I64(pointer.at))
        assert pointer.space == "argument", f"memory of an unknown kind: {pointer}"
        base = self._argument(pointer.at)
        argument = self.arguments[pointer.at]
        if argument.role == "indices":
            return self._offset(self.b, base, self.b.mul(self.step, I64(argument.type.nbytes)))
        return base

    def _argument(self, number: int) -> ll.Value:
        return self.b.load(self._offset(self.b, self.table, I64(8 * number)), typ=POINTER)

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
