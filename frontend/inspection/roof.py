"""What this machine can do at most: multiply-adds a second, and bytes a second out of memory and caches.

All is measured by kernels that Gradloom's own compiler makes from its loop IR, so that it is the roof under which its
other kernels work: fma on registers alone, and a sum over tensors of several sizes.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr, Kernel
from gradloom.compiler.types import F32, TensorType
from gradloom.runtime import cache

if TYPE_CHECKING:
    from gradloom.compiler.llvm.target import Target
    from gradloom.runtime.executable import Executable

BLOCKS = 16
"""Parts that the threads share."""

CHAINS = 12
"""Independent sums: two fma units with a latency of four cycles need eight, and there are sixteen registers."""

TURNS = 20_000
"""Length of the fma chains: some hundred microseconds."""

MEMORY_BYTES = 200_000_000
"""A tensor that no cache holds."""

SHARE_SECONDS = 0.1
"""How long each of the four measurements of the roof takes, at least a few tries."""


@dataclass(frozen=True)
class Roof:
    """What the machine gives `threads` threads: FLOP/s at peak, and bytes a second by where the bytes lie.

    `cache` is what threads read out of L2 caches of their own, together `cache_bytes` large, `shared` out of the last
    cache, of `shared_bytes`, which all cores share, `memory` out of memory.
    """

    threads: int
    peak: float
    cache: float
    shared: float
    memory: float
    cache_bytes: int
    shared_bytes: int

    def bandwidth(self, footprint: float) -> float:
        """Bytes a second for work that passes over so many bytes again and again."""
        if footprint <= self.cache_bytes:
            return self.cache
        return self.shared if footprint <= self.shared_bytes else self.memory

    def seconds(self, flops: float, far: float, near: float, footprint: float) -> float:
        """The least time for so many FLOPs and bytes.

        `far` bytes are come back to after all of a footprint, `near` ones were written just now: they may lie in the
        nearest cache that holds them.
        """
        return max(flops / self.peak, far / self.bandwidth(footprint) + near / self.bandwidth(near))

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        peak, cache, shared, memory = (1e-9 * rate for rate in (self.peak, self.cache, self.shared, self.memory))
        return (
            f"{peak:.0f} GFLOP/s on {threads}; {memory:.0f} GB/s out of memory, "
            f"{shared:.0f} GB/s out of the shared cache, {cache:.0f} GB/s out of the cores' own"
        )


def fma_kernel(lanes: int, turns: int) -> Kernel:
    """Each block does `turns · CHAINS` vector fmas on values in registers, from and to its part of a buffer."""
    b = Builder("fma")
    size = CHAINS * lanes
    data = b.param(Buffer("data", TensorType(F32, (BLOCKS * size,))))
    with b.parallel(BLOCKS) as block, b.vectorized(lanes):
        places = [ix.lanes(block.index.scaled(size) + chain * lanes, lanes) for chain in range(CHAINS)]
        start = [b.load(data, place) for place in places]
        shrink, shift = b.const(0.5, F32, lanes), b.const(1.0, F32, lanes)
        with b.loop(0, turns, initial=start) as loop:
            loop.next(*(b.fma(total, shrink, shift) for total in loop.carried))
        for place, total in zip(places, loop.results, strict=True):
            b.store(data, place, total)
    return b.kernel(BLOCKS)


def sum_kernel(lanes: int, elements: int) -> Kernel:
    """Each block adds up its part of `elements` numbers, `CHAINS` vectors at a time."""
    b = Builder("sum")
    stride = CHAINS * lanes
    turns = elements // (BLOCKS * stride)
    data = b.param(Buffer("data", TensorType(F32, (BLOCKS * turns * stride,))))
    result = b.param(Buffer("result", TensorType(F32, (BLOCKS,))))
    with b.parallel(BLOCKS) as block, b.vectorized(lanes):
        zeros = [b.zero(F32, lanes)] * CHAINS
        with b.loop(0, turns, initial=zeros) as loop:
            first = block.index.scaled(turns * stride) + loop.index.scaled(stride)
            parts = [b.load(data, ix.lanes(first + chain * lanes, lanes)) for chain in range(CHAINS)]
            loop.next(*(b.add(total, part) for total, part in zip(loop.carried, parts, strict=True)))
        total: Expr = loop.results[0]
        for other in loop.results[1:]:
            total = b.add(total, other)
        b.store(result, block.index, b.reduce("add", total))
    return b.kernel(BLOCKS)


def executable(kernel: Kernel, target: Target, threads: int = BLOCKS) -> Executable:
    """A program that runs one kernel on arrays named like its buffers, on at most so many threads."""
    from gradloom.compiler.llvm import codegen
    from gradloom.compiler.llvm.driver import emit_driver
    from gradloom.compiler.llvm.emit import emit_kernel, new_module
    from gradloom.compiler.program import Argument, Call, Pointer, Program
    from gradloom.runtime.executable import Executable

    arguments = tuple(Argument(buffer.name, buffer.type, written=True) for buffer in kernel.buffers)
    call = Call(kernel.name, tuple(Pointer("argument", number) for number in range(len(arguments))), kernel.blocks)
    module = new_module(kernel.name, target)
    emit_kernel(module, kernel, target)
    emit_driver(module, [call], arguments, 0, 0)
    code = codegen.compile_module(module, target)
    return Executable(Program(kernel.name, (code,), arguments, 0, max_threads=threads))


def roof(threads: int, seen: float = 0.0) -> Roof:
    """The roof for so many threads, measured once and kept with compiled code.

    seen: FLOP/s that a kernel has reached. A roof below was measured while others used the machine, and is raised.
    """
    from gradloom.compiler.llvm.target import Target
    from gradloom.compiler.options import code_version

    target = Target.host()
    key = f"roof\n{code_version()}\n{target}\n{threads}"
    if key not in _known and (text := cache.load_text(key)) is not None:
        _known[key] = Roof(**json.loads(text))
    known = _known.get(key)
    if known is None or known.peak < seen:
        anew = measured(target, threads)
        _known[key] = anew if known is None else _higher(known, anew)
        cache.store_text(key, json.dumps(asdict(_known[key])))
    return _known[key]


_known: dict[str, Roof] = {}


def _higher(first: Roof, second: Roof) -> Roof:
    rates = {name: max(getattr(first, name), getattr(second, name)) for name in ("peak", "cache", "shared", "memory")}
    return replace(first, **rates)


def measured(target: Target, threads: int) -> Roof:
    """Measure the roof on so many threads in less than a second."""
    vectors = BLOCKS * CHAINS * target.lanes
    own, all_own = threads * target.l2 // 2, threads * target.l2
    # Half of a cache is surely in it; of a shared one it is less, since others use it, too.
    common = max(2 * all_own, min(target.l3 // 4, 16 * all_own))
    return Roof(
        threads,
        2.0 * vectors * TURNS / _fastest(fma_kernel(target.lanes, TURNS), target, threads),
        _stream(target, own, threads),
        _stream(target, common, threads),
        _stream(target, MEMORY_BYTES, threads),
        all_own,
        max(target.l3, all_own),
    )


def _stream(target: Target, nbytes: int, threads: int) -> float:
    """Bytes a second of a sum over so many bytes."""
    kernel = sum_kernel(target.lanes, nbytes // 4)
    return kernel.buffers[0].type.nbytes / _fastest(kernel, target, threads)


def _fastest(kernel: Kernel, target: Target, threads: int) -> float:
    """The best seconds of a kernel on numbers that are all 1."""
    from gradloom.runtime import memory

    # As programs' own memory it is made of huge pages, where there are such.
    arrays = {buffer.name: memory.array(buffer.type) for buffer in kernel.buffers}
    for array in arrays.values():
        array.fill(1)
    run = executable(kernel, target, threads).bind(arrays)
    best, begun, repeats = np.inf, time.perf_counter(), 1
    while (now := time.perf_counter()) - begun < SHARE_SECONDS or repeats == 1:
        run.run(0, repeats)
        seconds = (time.perf_counter() - now) / repeats
        best = min(best, seconds)
        # Many passes in one call, for what takes less time than threads take to wake.
        repeats = max(2, int(0.005 / max(seconds, 1e-9)))
    return float(best)
