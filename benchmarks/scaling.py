"""How cost follows work: time over what the machine needs at least, as batch, width, depth and image grow.

The least time is the larger of FLOPs ÷ peak and compulsory bytes ÷ bandwidth: weights, input and result once. Bandwidth
is that of reading as many bytes again and again, so from the cache that they fit in. Compilation is held against the
number of different kernels. Prints tables; writes every round to `out/bench/scaling.json`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import gradloom as gl
from aims import Aim, report, written
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.options import Options
from gradloom.compiler.pipeline import lower
from gradloom.runtime.cpus import available_cpus
from harness import machine, parser, table, write_json
from machine import BLOCKS, CHAINS, executable, fma_kernel, sum_kernel

FLAT = 1.5
"""How many times larger the worst ratio of a series may be than the best."""

COUNTED = 1e6
"""FLOPs that each kernel has at least in a point that counts."""

SPAN = 0.02
"""Seconds that a point is measured for in a round."""

DIFFERENT = (2, 4, 8, 16)
"""Different layers of the networks whose compilation is timed."""


@dataclass
class Point:
    """One size of a series: the work in all and in its smallest kernel, and the seconds of every round."""

    size: int
    flops: float
    smallest: float
    bytes: float
    call: Callable[[], object]
    seconds: list[float]


def perceptron(size: int, batch: int, width: int, depth: int) -> Point:
    """A prediction of `depth` dense layers of one width."""
    model = gl.Sequential([gl.Input((width,)), *(gl.layers.Dense(width, activation="relu") for _ in range(depth))])
    x = np.random.default_rng(0).random((batch, width), np.float32)
    layer = 2.0 * batch * width * width
    compulsory = 4.0 * (depth * width * (width + 1) + 2 * batch * width)
    return Point(size, depth * layer, layer, compulsory, lambda: model.predict_on_batch(x), [])


def darknet53(size: int) -> Point:
    """A prediction by Darknet53 for one image of so many pixels squared."""
    model = gl.applications.Darknet53(input_shape=(size, size, 3))
    x = np.random.default_rng(0).random((1, size, size, 3), np.float32)
    work = [
        2.0 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:3])
        for layer in model.layers
        if isinstance(layer, gl.layers.Conv2D)
    ]
    compulsory = 4.0 * model.count_params() + x.nbytes
    return Point(size, float(sum(work)), float(min(work)), compulsory, lambda: model.predict_on_batch(x), [])


def doubling(first: int, last: int) -> Iterator[int]:
    """first, 2·first and so on to last."""
    while first <= last:
        yield first
        first *= 2


SERIES: dict[str, Callable[[], list[Point]]] = {
    "batch": lambda: [perceptron(n, n, 1024, 4) for n in doubling(1, 512)],
    "width": lambda: [perceptron(n, 64, n, 4) for n in doubling(64, 4096)],
    "depth": lambda: [perceptron(n, 64, 512, n) for n in doubling(2, 64)],
    "image": lambda: [darknet53(n) for n in doubling(64, 512)],
}


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes, in the mean of `SPAN` seconds."""
    start, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < SPAN or not calls:
        call()
        calls += 1
    return spent / calls


def peak_flops(target: Target) -> Callable[[], float]:
    """A function that measures FLOP/s on registers."""
    kernel = fma_kernel(target.lanes, turns := 100_000)
    run, data = executable(kernel, target), np.ones(kernel.buffers[0].type.shape, np.float32)
    return lambda: 2.0 * BLOCKS * turns * CHAINS * target.lanes / seconds(lambda: run.run({"data": data}))


def bandwidth(target: Target, size: float) -> float:
    """Bytes a second of reading `size` bytes again and again, at best of a few times."""
    vectors = BLOCKS * CHAINS * target.lanes
    kernel = sum_kernel(target.lanes, max(1, round(size / 4 / vectors)) * vectors)
    arrays = {buffer.name: np.ones(buffer.type.shape, np.float32) for buffer in kernel.buffers}
    run, steps = executable(kernel, target), max(1, round(2e7 / size))
    run.run(arrays)
    best = min(seconds(lambda: run.run(arrays, 0, steps)) for _ in range(3))
    return float(arrays["data"].nbytes) * steps / best


def measure(points: Sequence[Point], rounds: int) -> list[dict[str, Any]]:
    """Time all points by turns, and the peak along with them."""
    target = Target.host()
    peak = peak_flops(target)
    for point in points:
        point.call()
    peaks = []
    for _ in range(rounds):
        peaks.append(peak())
        for point in points:
            point.seconds.append(seconds(point.call))
    roof = statistics.median(peaks)
    found = []
    for point in points:
        speed = bandwidth(target, point.bytes)
        least = max(point.flops / roof, point.bytes / speed)
        found.append(
            {
                "size": point.size,
                "flops": point.flops,
                "smallest kernel": point.smallest,
                "bytes": point.bytes,
                "peak": roof,
                "bandwidth": speed,
                "bound": "FLOPs" if point.flops / roof > point.bytes / speed else "bytes",
                "seconds": point.seconds,
                "ratio": statistics.median(point.seconds) / least,
            }
        )
    return found


def flatness(results: Sequence[dict[str, Any]]) -> float | None:
    """The largest over the smallest ratio of the points that count; None where fewer than two do."""
    ratios = [result["ratio"] for result in results if result["smallest kernel"] >= COUNTED]
    return max(ratios) / min(ratios) if len(ratios) > 1 else None


def compilations(rounds: int) -> list[dict[str, Any]]:
    """Seconds from the graph to machine code, for networks of more and more different layers."""
    found: list[dict[str, Any]] = []
    for layers in DIFFERENT:
        widths = range(64, 64 * (layers + 1), 64)
        model = gl.Sequential([gl.Input((64,)), *(gl.layers.Dense(width, activation="relu") for width in widths)])
        graph = model.predict_graph(64)
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            lowering = lower(graph, Options(cores=available_cpus()))
            lowering.program()
            times.append(time.perf_counter() - start)
        found.append({"layers": layers, "kernels": len(lowering.kernels), "seconds": times[1:]})
    return found


def evenness(found: Sequence[dict[str, Any]]) -> float:
    """The dearest over the cheapest further kernel, from each network to the next."""
    points = [(result["kernels"], statistics.median(result["seconds"])) for result in found]
    costs = [(t1 - t0) / (n1 - n0) for (n0, t0), (n1, t1) in pairwise(points)]
    return max(costs) / min(costs)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all series, print the tables, write the file."""
    options = parser(__doc__, "scaling").parse_args(argv)
    rounds = 1 if options.quick else options.rounds
    results: dict[str, Any] = {}
    aims = []
    for name, make in SERIES.items():
        if options.quick and name == "image":
            continue
        results[name] = measured = measure(make(), rounds)
        rows = [
            [
                str(result["size"]),
                f"{1e-6 * result['smallest kernel']:.3g}",
                f"{1e3 * statistics.median(result['seconds']):.3g}",
                result["bound"],
                f"{result['ratio']:.2f}",
            ]
            for result in measured
        ]
        print(table([name, "MFLOP in the smallest kernel", "ms", "bound by", "÷ least time"], rows), flush=True)
        aims.append(Aim(f"growing {name}: worst ÷ best ratio", FLAT, "", flatness(measured), at_most=True))
    results["compile"] = compiled = compilations(rounds)
    rows = [[str(result["kernels"]), f"{1e3 * statistics.median(result['seconds']):.0f}"] for result in compiled]
    print(table(["different kernels", "ms to compile"], rows))
    aims.append(Aim("compile time per further kernel: worst ÷ best", FLAT, "", evenness(compiled), at_most=True))
    reached = written(aims)
    print(report(reached))
    write_json(options.output, {"machine": machine(), "results": results, "aims": reached})
    print(f"all rounds: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
