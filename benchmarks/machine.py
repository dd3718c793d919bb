"""What this machine can do at most: multiply-adds a second, and bytes a second out of memory.

Both are measured by kernels that Gradloom's own compiler makes from its loop IR, so that they are the roof under which
its other kernels work: fma on registers alone, and a sum over a tensor much larger than the caches.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np

from gradloom.compiler.llvm.target import Target
from gradloom.inspection.roof import BLOCKS, CHAINS, executable, fma_kernel, sum_kernel
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import get_num_threads, set_num_threads
from harness import machine, parser, spread, table, write_json


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
    write_json(options.output, {"machine": machine(), "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
