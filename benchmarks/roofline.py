"""The kernels of whole programs, the MLP's and Darknet53's among them, each timed by itself, under the roof of a core.

Kernels run in the order of a step on the step's own memory: each finds in the caches what it finds in the program.
Counted are the FLOPs that a kernel executes, those of a convolution's definition (more, where an algorithm spares
some), and its compulsory bytes: every operand read once, every result written once. Times are those of the calling
thread, which does all the work, and the best of all rounds, as are peak and bandwidths; how cores share work, shows
`threads.py`. Prints tables; writes `out/bench/roofline.json`, which `roofline_picture.py` draws.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

import gradloom as gl
from gradloom.compiler.ir import Graph
from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.driver import emit_driver
from gradloom.compiler.llvm.emit import emit_kernel, new_module
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.loops.grammar import Kernel
from gradloom.compiler.options import Options
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.pipeline import lower
from gradloom.compiler.program import ALIGNMENT, Argument, Call, Pointer, Program
from gradloom.compiler.types import OPEN, U8, TensorType
from gradloom.inspection.roof import BLOCKS, CHAINS, executable, fma_kernel, sum_kernel
from gradloom.inspection.work import compulsory_bytes, work_of
from gradloom.runtime.binding import Binding
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.executable import Executable
from gradloom.runtime.memory import allocate
from gradloom.runtime.threads import set_num_threads
from harness import machine, parser, table, write_json

SHOWN = 22
"""Lines of a table."""

TRIES = 200
"""Short measurements of the roof, of which the best counts."""


def values(argument: Argument, samples: int, rows: int) -> np.ndarray:
    """Drawn numbers of a harmless size for an argument, as its caller would hand it in."""
    rng, dtype = np.random.default_rng(0), argument.type.dtype.numpy
    shape = tuple(samples if size == OPEN else size for size in argument.host_shape)
    if argument.role == "indices":
        return rng.permutation(samples)[:rows].astype(dtype)
    if dtype.kind != "f":
        return rng.integers(0, 10 if argument.role == "data" else 1, shape).astype(dtype)
    if len(shape) < 2:
        return np.full(shape, 1e-3 if argument.role == "hyperparameter" else 1.0, dtype)
    return rng.standard_normal(shape, np.float32) / math.sqrt(1 if argument.role == "data" else math.prod(shape[:-1]))


def stored(argument: Argument, array: np.ndarray) -> np.ndarray:
    """The array as a program works on it: the array itself, or a copy in another order."""
    if not argument.is_converted:
        return array
    array = array.transpose(argument.permutation) if argument.permutation else array
    if argument.panel:
        array = np.moveaxis(array.reshape(*array.shape[:-1], -1, argument.panel), -2, 0)
    return np.ascontiguousarray(array)


class Step:
    """A compiled step, and each of its kernels as a program of its own on memory that they share."""

    def __init__(self, graph: Graph, batch: int, samples: int, steps: int = 1) -> None:
        self.lowering = lowering = lower(split_prepare(fold_into_weights(graph))[1], Options(cores=available_cpus()))
        self.batch, self.steps, self.epoch = batch, steps, samples // (batch * steps)
        rows = self.epoch * steps * batch
        self.arrays = {argument.name: values(argument, samples, rows) for argument in lowering.arguments}
        self.stored = {argument.name: stored(argument, self.arrays[argument.name]) for argument in lowering.arguments}
        self.arena = allocate(lowering.memory.arena_bytes, ALIGNMENT)
        self.whole = Executable(lowering.program()).bind(self.arrays)
        calls = [step for step in lowering.steps if isinstance(step, Call)]
        kernels = {kernel.name: kernel for kernel in lowering.kernels}
        programs: dict[tuple[object, ...], Executable] = {}
        self.bindings: list[Binding] = []
        for launch, call in zip(lowering.scheduled.launches, calls, strict=True):
            places = [
                (p, self._memory(p, buffer.nbytes)) for p, buffer in zip(call.arguments, launch.buffers, strict=True)
            ]
            given = [self._argument(number, *place) for number, place in enumerate(places)]
            # A kernel may serve buffers of several sizes, in as many blocks.
            key = (call.kernel, call.blocks, *given)
            if key not in programs:
                programs[key] = self._program(kernels[call.kernel], call.blocks, given)
            arrays = {argument.name: array for argument, (_, array) in zip(given, places, strict=True)}
            self.bindings.append(programs[key].bind(arrays))

    def _memory(self, pointer: Pointer, size: int) -> np.ndarray:
        """The bytes, or for a step's indices the numbers, that a kernel's parameter points to."""
        if isinstance(pointer.at, bytes):
            return np.frombuffer(bytearray(pointer.at), np.uint8)
        if pointer.space == "arena":
            return self.arena[pointer.at : pointer.at + size]
        argument = self.lowering.arguments[pointer.at]
        array = self.stored[argument.name]
        return array if argument.role == "indices" else array.reshape(-1).view(np.uint8)

    def _argument(self, number: int, pointer: Pointer, array: np.ndarray) -> Argument:
        if pointer.space == "argument" and isinstance(pointer.at, int):
            argument = self.lowering.arguments[pointer.at]
            if argument.role == "indices":
                return argument
        return Argument(f"buffer{number}", TensorType(U8, array.shape), written=True)

    def _program(self, kernel: Kernel, blocks: int, arguments: Sequence[Argument]) -> Executable:
        target, scratch = self.lowering.options.target, self.lowering.memory.scratch_bytes
        module = new_module(kernel.name, target)
        emit_kernel(module, kernel, target)
        call = Call(kernel.name, tuple(Pointer("argument", n) for n in range(len(arguments))), blocks)
        emit_driver(module, [call], arguments, 0, scratch)
        code = codegen.compile_module(module, target)
        most = self.whole.executable.program.max_threads
        return Executable(Program(kernel.name, (code,), tuple(arguments), 0, scratch, most))

    def measure(self, rounds: int) -> tuple[float, list[float]]:
        """The best seconds of a step, and of each kernel, less those of a call that does nothing."""
        runs = [self.whole, *self.bindings]
        best = [math.inf] * len(runs)
        empty = min(seconds(run, 0, 0) for run in runs for _ in range(9))
        for turn in range(rounds):
            first = turn % self.epoch * self.steps
            for n, run in enumerate(runs):
                best[n] = min(best[n], (seconds(run, first, self.steps) - empty) / self.steps)
        return best[0], best[1:]

    def parts(self, times: Sequence[float]) -> list[dict[str, Any]]:
        """The kernels by the work that they do, the dearest first; those of one group are one."""
        found: dict[str, dict[str, Any]] = {}
        pairs = zip(self.lowering.scheduled.launches, times, strict=True)
        for group, some in groupby(pairs, lambda pair: pair[0].group):
            same = list(some)
            kind, name, executed, defined = work_of(group)
            work = {"kind": kind, "name": name, "count": 0, "flops": 0.0, "defined": 0.0, "bytes": 0.0, "seconds": 0.0}
            part = found.setdefault(name, work)
            size = compulsory_bytes([launch for launch, _ in same], self.lowering, self.batch)
            more = {"count": 1, "flops": executed, "defined": defined, "bytes": size}
            for key, value in {**more, "seconds": sum(spent for _, spent in same)}.items():
                part[key] += value
        return sorted(found.values(), key=lambda part: -part["seconds"])


def seconds(run: Binding, first: int, steps: int) -> float:
    """Processor time of one call, and at least a nanosecond: what others are given in between does not count."""
    start = time.thread_time()
    run.run(first, steps)
    return max(time.thread_time() - start, 1e-9)


def fastest(kernel: Kernel, target: Target, tries: int, steps: int = 1) -> float:
    """The best seconds of a kernel on numbers that are all 1."""
    arrays = {buffer.name: np.ones(buffer.type.shape, np.float32) for buffer in kernel.buffers}
    run = executable(kernel, target).bind(arrays)
    return min(seconds(run, 0, steps) for _ in range(tries)) / steps


def roof(target: Target) -> dict[str, float]:
    """FLOP/s on registers, and bytes a second out of memory and out of the core's own cache."""
    turns, vectors = 20_000, BLOCKS * CHAINS * target.lanes
    far, near = (size // 4 // vectors * vectors for size in (200_000_000, target.l2 // 2))
    return {
        "peak": 2.0 * vectors * turns / fastest(fma_kernel(target.lanes, turns), target, TRIES),
        "memory": 4.0 * far / fastest(sum_kernel(target.lanes, far), target, TRIES // 10),
        "cache": 4.0 * near / fastest(sum_kernel(target.lanes, near), target, TRIES, 100),
    }


def mlp() -> Step:
    """Training on batches of 128 with SGD."""
    model = gl.Sequential([gl.Input((784,)), gl.layers.Dense(128, activation="relu"), gl.layers.Dense(10)])
    model.compile(gl.optimizers.SGD(0.003), gl.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Step(model.train_graph(128), 128, 60_000, 8)


def matmul() -> Step:
    """Square matrices of several sizes, one after the other."""
    arrays = [np.empty((size, size), np.float32) for size in (128, 256, 512, 1024, 2048)]
    return Step(gl.trace(lambda *given: [gl.ops.matmul(array, array) for array in given], *arrays), 1, 1)


def darknet53() -> Step:
    """A prediction for one image."""
    return Step(gl.applications.Darknet53().predict_graph(1), 1, 1)


def darknet53_train() -> Step:
    """Training on four images with SGD and momentum."""
    model = gl.applications.Darknet53()
    model.compile(gl.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
    return Step(model.train_graph(4), 4, 4)


PROGRAMS: dict[str, tuple[str, Callable[[], Step]]] = {
    "matmul": ("Squares of matrices", matmul),
    "mlp": ("MLP, train step of 128", mlp),
    "darknet53": ("Darknet53, prediction for one image", darknet53),
    "darknet53-train": ("Darknet53, train step of 4", darknet53_train),
}


def report(title: str, step: Step, rounds: int) -> dict[str, Any]:
    """Measure a step with the roof over it, and print the table of its parts."""
    over = roof(step.lowering.options.target)
    whole, times = step.measure(rounds)
    parts = step.parts(times)
    rows = []
    for part in parts[:SHOWN]:
        rate, defined, stream = (1e-9 * part[key] / part["seconds"] for key in ("flops", "defined", "bytes"))
        share = 1e11 * rate / over["peak"]
        figures = (f"{1e3 * part['seconds']:.3f}", f"{defined:.0f}", f"{rate:.0f}", f"{share:.0f}", f"{stream:.0f}")
        rows.append([part["name"], str(part["count"]), *figures])
    print(table([title, "kernels", "ms", "GFLOP/s by definition", "executed", "% of peak", "GB/s"], rows))
    told = ", ".join(f"{name} {1e-9 * value:.0f} G" for name, value in over.items())
    print(f"all kernels {1e3 * sum(times):.3f} ms; a whole step {1e3 * whole:.3f} ms; {told}\n", flush=True)
    return {"title": title, "seconds": whole, "kernels": sum(times), "roof": over, "parts": parts}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all programs, print their tables, write the file."""
    given = parser(__doc__, "roofline", rounds=30)
    given.add_argument("--only", choices=PROGRAMS, help="measure one program")
    options = given.parse_args(argv)
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    set_num_threads(1)
    results = {}
    for key, (title, make) in PROGRAMS.items():
        if key == (options.only or key):
            results[key] = report(title, make(), rounds)
    write_json(options.output, {"machine": machine(), "results": results})
    print(f"all figures: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
