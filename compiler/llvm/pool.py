"""Emits what the threads of a pool run: the worker's loop, the launch of a job, the barrier.

A pool (layout: `gradloom.compiler.program`) is a job record and a slot for each thread. The caller of a program is
thread 0; each other thread entered `gradloom_worker` once and stays there. The protocol:

    state of a slot     IDLE → JOB          the caller has a job for it
                        IDLE → ASLEEP       the worker found none while it spun, and goes to wait on its semaphore
                        ASLEEP → JOB        the caller has a job for it, and posts the semaphore
                        JOB → IDLE          the worker has seen the job
                        IDLE or ASLEEP → STOPPED   as JOB, but the worker returns; only between jobs

- The caller writes the job record, then exchanges a slot's state for JOB (release); the worker reads JOB (acquire),
  then the record. So it reads what was written.
- IDLE → ASLEEP is a compare-and-exchange, JOB an exchange that returns what was there: of the two one comes first. If
  JOB does, the worker's fails and it never sleeps; else the caller reads ASLEEP and posts. No wake-up is lost.
- A signal may end a wait before the post, and a post may then outlive its job: the worker therefore waits until its
  state is no longer ASLEEP, so that a stray post costs one turn of that loop.
- A worker makes its state IDLE before it runs the job, and counts `pending` down (release) after it. The caller waits
  for 0 (acquire) before it returns: what workers wrote is visible to it, every slot is IDLE or ASLEEP, and no thread
  reads the job record any more.
- Barrier number e of a job: each thread stores e in its own slot (release), then waits until every participant's slot
  holds at least e (acquire). No thread writes another's slot, and whoever runs ahead to barrier e + 1 only raises a
  number that others wait for. `launch` sets all to 0 before it posts the job.

Who waits spins with `pause` first (another thread is at most microseconds behind), then yields the processor between
looks, for the thread waited for may have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import llvmlite.ir as ll

from gradloom.compiler.llvm.emit import I8, I32, I64, POINTER, VOID, declare
from gradloom.compiler.program import (
    EPOCH_OFFSET,
    JOB_OFFSET,
    LAUNCH,
    PENDING_OFFSET,
    POOL_BYTES,
    SEMAPHORE_OFFSET,
    SLOT_BYTES,
    STATE_OFFSET,
    STOP,
    WORKER,
)

IDLE, JOB, STOPPED, ASLEEP = 0, 1, 2, -1
"""States of a slot: a worker that spins or wakes goes on when its state is positive."""

SPINS = 2000
"""Pauses before a waiting thread yields or sleeps: 20 to 80 µs, by processor."""

RUN_PARAMETERS = (POINTER, POINTER, I64, I64, I64, I64, POINTER)
"""Of `run(arguments, arena, first, steps, thread, threads, epochs)`."""

# llvmlite calls through an address only when the pointer's type names the function's.
_JOB_FIELDS = (ll.FunctionType(VOID, RUN_PARAMETERS).as_pointer(), POINTER, POINTER, I64, I64, I64)
"""Of the job record: run, arguments, arena, first, steps, threads."""


def emit_barrier(module: ll.Module) -> ll.Function:
    """Add `void barrier(ptr epochs, i64 thread, i64 threads, i64 epoch)`: wait until all threads reach `epoch`."""
    function = _function(module, "gradloom_barrier", (POINTER, I64, I64, I64), internal=True)
    epochs, thread, threads, epoch = function.args
    b = ll.IRBuilder(function.append_basic_block("entry"))
    b.store_atomic(epoch, _cell(b, epochs, b.mul(thread, I64(SLOT_BYTES))), "release", 8)
    with _counted(b, I64(0), threads) as other:
        slot = _cell(b, epochs, b.mul(other, I64(SLOT_BYTES)))
        _wait_until(b, lambda: b.icmp_signed(">=", _load_acquire(b, slot), epoch))
    b.ret_void()
    return function


def emit_pool(module: ll.Module, run: ll.Function) -> None:
    """Add the exported functions `gradloom_launch` (a job of `run`), `gradloom_worker` and `gradloom_stop`."""
    post = _emit_post(module)
    _emit_launch(module, run, post)
    _emit_worker(module)
    _emit_stop(module, post)


def _emit_post(module: ll.Module) -> ll.Function:
    """Add `void post(ptr slot, i64 state)`: tell a worker JOB or STOPPED, and wake it if it sleeps."""
    function = _function(module, "gradloom_post", (POINTER, I64), internal=True)
    slot, state = function.args
    b = ll.IRBuilder(function.append_basic_block("entry"))
    before = b.atomic_rmw("xchg", _cell(b, slot, STATE_OFFSET), state, "acq_rel")
    with b.if_then(b.icmp_signed("==", before, I64(ASLEEP))):
        b.call(declare(module, "sem_post", I32, [POINTER]), [_at(b, slot, SEMAPHORE_OFFSET)])
    b.ret_void()
    return function


def _emit_launch(module: ll.Module, run: ll.Function, post: ll.Function) -> None:
    """Add `void gradloom_launch(ptr pool, ptr arguments, ptr arena, i64 first, i64 steps, i64 threads)`."""
    function = _function(module, LAUNCH, (POINTER, POINTER, POINTER, I64, I64, I64))
    pool, arguments, arena, first, steps, threads = function.args
    b = ll.IRBuilder(function.append_basic_block("entry"))
    epochs = _at(b, pool, POOL_BYTES + EPOCH_OFFSET)
    with b.if_then(b.icmp_signed("==", threads, I64(1))):
        # A pool may be absent here: nothing of it is touched.
        b.call(run, [arguments, arena, first, steps, I64(0), threads, epochs])
        b.ret_void()
    b.store_atomic(b.sub(threads, I64(1)), _cell(b, pool, PENDING_OFFSET), "monotonic", 8)
    for field, value in enumerate((run, arguments, arena, first, steps, threads)):
        b.store(value, _at(b, pool, JOB_OFFSET + 8 * field))
    with _counted(b, I64(0), threads) as thread:
        b.store_atomic(I64(0), _cell(b, epochs, b.mul(thread, I64(SLOT_BYTES))), "monotonic", 8)
    with _counted(b, I64(1), threads) as thread:
        b.call(post, [_slot(b, pool, thread), I64(JOB)])
    b.call(run, [arguments, arena, first, steps, I64(0), threads, epochs])
    _wait_until(b, lambda: b.icmp_signed("==", _load_acquire(b, _cell(b, pool, PENDING_OFFSET)), I64(0)))
    b.ret_void()


def _emit_worker(module: ll.Module) -> None:
    """Add `void gradloom_worker(ptr pool, i64 thread)`: run the pool's jobs until it is stopped."""
    function = _function(module, WORKER, (POINTER, I64))
    pool, thread = function.args
    names = ("entry", "look", "idle", "spin", "doze", "sleep", "told", "work", "leave")
    entry, look, idle, spin, doze, sleep, told, work, leave = map(function.append_basic_block, names)
    b = ll.IRBuilder(entry)
    slot = _slot(b, pool, thread)
    state_pointer, semaphore = _cell(b, slot, STATE_OFFSET), _at(b, slot, SEMAPHORE_OFFSET)
    epochs = _at(b, pool, POOL_BYTES + EPOCH_OFFSET)
    b.branch(look)

    b.position_at_end(look)
    spins = b.phi(I64, "spins")
    spins.add_incoming(I64(0), entry)
    spins.add_incoming(I64(0), work)
    b.cbranch(b.icmp_signed(">", _load_acquire(b, state_pointer), I64(IDLE)), told, idle)

    b.position_at_end(idle)
    b.cbranch(b.icmp_signed("<", spins, I64(SPINS)), spin, doze)

    b.position_at_end(spin)
    _pause(b)
    spins.add_incoming(b.add(spins, I64(1)), spin)
    b.branch(look)

    b.position_at_end(doze)
    exchange = b.cmpxchg(state_pointer, I64(IDLE), I64(ASLEEP), "acq_rel", "acquire")
    b.cbranch(b.extract_value(exchange, 1), sleep, told)

    b.position_at_end(sleep)
    b.call(declare(module, "sem_wait", I32, [POINTER]), [semaphore])
    b.cbranch(b.icmp_signed("==", _load_acquire(b, state_pointer), I64(ASLEEP)), sleep, told)

    b.position_at_end(told)
    b.cbranch(b.icmp_signed("==", _load_acquire(b, state_pointer), I64(STOPPED)), leave, work)

    b.position_at_end(work)
    b.store_atomic(I64(IDLE), state_pointer, "monotonic", 8)
    run, arguments, arena, first, steps, threads = (
        b.load(_at(b, pool, JOB_OFFSET + 8 * field), typ=type) for field, type in enumerate(_JOB_FIELDS)
    )
    b.call(run, [arguments, arena, first, steps, thread, threads, epochs])
    b.atomic_rmw("sub", _cell(b, pool, PENDING_OFFSET), I64(1), "release")
    b.branch(look)

    b.position_at_end(leave)
    b.ret_void()


def _emit_stop(module: ll.Module, post: ll.Function) -> None:
    """Add `void gradloom_stop(ptr pool, i64 threads)`: have every worker return when it is done."""
    function = _function(module, STOP, (POINTER, I64))
    pool, threads = function.args
    b = ll.IRBuilder(function.append_basic_block("entry"))
    with _counted(b, I64(1), threads) as thread:
        b.call(post, [_slot(b, pool, thread), I64(STOPPED)])
    b.ret_void()


def _function(module: ll.Module, name: str, parameters: Sequence[ll.Type], internal: bool = False) -> ll.Function:
    function = ll.Function(module, ll.FunctionType(VOID, parameters), name)
    function.attributes.add("nounwind")
    if internal:
        function.linkage = "internal"
    return function


def _at(b: ll.IRBuilder, base: ll.Value, offset: int | ll.Value) -> ll.Value:
    """The address `offset` bytes behind `base`."""
    return b.gep(base, [I64(offset) if isinstance(offset, int) else offset], source_etype=I8)


def _cell(b: ll.IRBuilder, base: ll.Value, offset: int | ll.Value) -> ll.Value:
    """The address of an i64; llvmlite emits an atomic store only to a pointer whose type says so."""
    pointer = _at(b, base, offset)
    pointer.type = I64.as_pointer()
    return pointer


def _slot(b: ll.IRBuilder, pool: ll.Value, thread: ll.Value) -> ll.Value:
    return _at(b, _at(b, pool, POOL_BYTES), b.mul(thread, I64(SLOT_BYTES)))


def _load_acquire(b: ll.IRBuilder, pointer: ll.Value) -> ll.Value:
    return b.load_atomic(pointer, "acquire", 8, typ=I64)


@contextmanager
def _counted(b: ll.IRBuilder, start: ll.Value, stop: ll.Value) -> Iterator[ll.Value]:
    """Emit a loop over [start, stop) around what is emitted inside; gives its counter."""
    before, test = b.block, b.append_basic_block("test")
    body, after = b.append_basic_block("body"), b.append_basic_block("after")
    b.branch(test)
    b.position_at_end(test)
    counter = b.phi(I64)
    counter.add_incoming(start, before)
    b.cbranch(b.icmp_signed("<", counter, stop), body, after)
    b.position_at_end(body)
    yield counter
    counter.add_incoming(b.add(counter, I64(1)), b.block)
    b.branch(test)
    b.position_at_end(after)


def _wait_until(b: ll.IRBuilder, condition: Callable[[], ll.Value]) -> None:
    """Emit a loop that looks at `condition` until it holds: pausing at first, then yielding the processor."""
    before = b.block
    look, wait, after = (b.append_basic_block(name) for name in ("look", "wait", "seen"))
    b.branch(look)
    b.position_at_end(look)
    spins = b.phi(I64, "spins")
    spins.add_incoming(I64(0), before)
    b.cbranch(condition(), after, wait)
    b.position_at_end(wait)
    with b.if_else(b.icmp_signed("<", spins, I64(SPINS))) as (brief, long):
        with brief:
            _pause(b)
        with long:
            b.call(declare(b.module, "sched_yield", I32, []), [])
    spins.add_incoming(b.add(spins, I64(1)), b.block)
    b.branch(look)
    b.position_at_end(after)


def _pause(b: ll.IRBuilder) -> None:
    """Emit the instruction that tells the processor that this is a waiting loop."""
    if "aarch64" in b.module.triple or "arm64" in b.module.triple:
        b.call(declare(b.module, "llvm.aarch64.hint", VOID, [I32]), [I32(1)])
    else:
        b.call(declare(b.module, "llvm.x86.sse2.pause", VOID, []), [])
