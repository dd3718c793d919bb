"""What this machine can do at most: multiply-adds a second, and bytes a second out of memory.

Both are measured by kernels that Gradloom's own compiler makes from its loop IR, so that they are the roof under which
its other kernels work: fma on registers alone, and a sum over a tensor much larger than the caches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.driver import emit_driver
from gradloom.compiler.llvm.emit import emit_kernel, new_module
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr, Kernel
from gradloom.compiler.program import Argument, Call, Pointer, Program
from gradloom.compiler.types import F32, TensorType
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import get_num_threads, set_num_threads
from harness import machine, parser, spread, table, write_json

BLOCKS = 16
"""Parts that the threads share."""

CHAINS = 12
"""Independent sums: two fma units with a latency of four cycles need eight, and there are sixteen registers."""


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


def executable(kernel: Kernel, target: Target) -> Executable:
    """A program that runs one kernel on arrays named like its buffers."""
    arguments = tuple(Argument(buffer.name, buffer.type, written=True) for buffer in kernel.buffers)
    call = Call(kernel.name, tuple(Pointer("argument", number) for number in range(len(arguments))), kernel.blocks)
    module = new_module(kernel.name, target)
    emit_kernel(module, kernel, target)
    emit_driver(module, [call], arguments, 0, 0)
    code = codegen.compile_module(module, target)
    return Executable(Program(kernel.name, code, arguments, 0, max_threads=BLOCKS))


def seconds(run: Executable, arrays: dict[str, np.ndarray], rounds: int) -> list[float]:
    """How long each of `rounds` calls takes, after one to warm up."""
    run.run(arrays)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run.run(arrays)
        times.append(time.perf_counter() - start)
    return times


def measure(rounds: int, turns: int, megabytes: int) -> dict[str, list[float]]:
    """GFLOP/s and GB/s of every round, on one thread and on all."""
    target = Target.host()
    peak = fma_kernel(target.lanes, turns)
    work = 2e-9 * BLOCKS * turns * CHAINS * target.lanes
    stream = sum_kernel(target.lanes, megabytes * 250_000)
    numbers = {buffer.name: np.zeros(buffer.type.shape, np.float32) for buffer in stream.buffers}
    numbers["data"].fill(1)  # pages that were never written share one of zeros
    figures: dict[str, list[float]] = {}
    all_threads = get_num_threads()
    for threads in sorted({1, all_threads}):
        set_num_threads(threads)
        times = seconds(executable(peak, target), {"data": np.ones(peak.buffers[0].type.shape, np.float32)}, rounds)
        share = f"{threads} thread{'s' if threads > 1 else ''}"
        figures[f"fma, {share}: GFLOP/s"] = [work / t for t in times]
        times = seconds(executable(stream, target), numbers, rounds)
        figures[f"memory, {share}: GB/s"] = [1e-9 * numbers["data"].nbytes / t for t in times]
    set_num_threads(all_threads)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write every round to `out/bench/machine.json`."""
    given = parser(__doc__, "machine", rounds=15)
    given.add_argument("--turns", type=int, default=2_000_000, help="length of an fma chain (default: %(default)s)")
    given.add_argument("--megabytes", type=int, default=512, help="size of the tensor read (default: %(default)s)")
    options = given.parse_args(argv)
    if options.quick:
        options.rounds, options.turns = min(options.rounds, 5), min(options.turns, 200_000)
    figures = measure(options.rounds, options.turns, options.megabytes)
    print(table(["roof", "median (range)"], [[name, spread(values)] for name, values in figures.items()]))
    write_json(options.out, {"machine": machine(), "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
