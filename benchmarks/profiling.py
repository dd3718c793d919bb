"""Whether profiles tell the truth: the sum of their kernels' times beside the step's, and what the time stamps cost.

The plain program and the one with time stamps take turns. Prints a table; writes every round to
`out/bench/profiling.json`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import gradloom as gl
from aims import Aim, written
from gradloom.compiler.ir import Graph
from gradloom.compiler.options import Options
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.pipeline import lower
from gradloom.compiler.program import Barrier
from gradloom.inspection.measuring import CALL_SECONDS, MOST_STEPS, bound, copies
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.executable import Executable
from gradloom.runtime.timing import Timeline
from harness import machine, parser, table, write_json

OFF, COST = 10.0, 2.0
"""Per cent that the sum of the kernels' times may differ from the time of the plain step, and that time stamps cost."""


@dataclass(frozen=True)
class Round:
    """Seconds of a step: of the plain program, of the timed one, and the sum of the latter's kernels."""

    plain: float
    timed: float
    kernels: float


def mlp(batch: int) -> Graph:
    """Training with Adam."""
    model = gl.Sequential([gl.Input((784,)), gl.layers.Dense(128, activation="relu"), gl.layers.Dense(10)])
    model.compile("adam", gl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model.train_graph(batch)


def darknet53_train() -> Graph:
    """Training on four images with SGD and momentum."""
    model = gl.applications.Darknet53()
    model.compile(gl.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
    return model.train_graph(4)


CASES: dict[str, Callable[[], Graph]] = {
    "MLP, train step of 32": lambda: mlp(32),
    "MLP, train step of 128": lambda: mlp(128),
    "Darknet53, prediction for one image": lambda: gl.applications.Darknet53().predict_graph(1),
    "Darknet53, train step of 4": darknet53_train,
}


def measure(graph: Graph, rounds: int) -> list[Round]:
    """Let the two programs of a graph take turns, on numbers that are drawn."""
    prepare, main = split_prepare(fold_into_weights(graph) if graph.inference else graph)
    lowerings = [lower(main, Options(cores=available_cpus(), timed=timed)) for timed in (False, True)]
    executables = [Executable(lowering.program()) for lowering in lowerings]
    arrays = copies(executables[0].program, prepare, {})
    firsts = [bound(executable, arrays, 1)[0] for executable in executables]
    once = max(seconds(binding.run, 1) for binding in firsts for _ in range(2))
    steps = max(1, min(MOST_STEPS, int(CALL_SECONDS / once)))
    runs = [bound(executable, arrays, steps) for executable in executables]
    is_barrier = [isinstance(step, Barrier) for step in lowerings[1].steps]
    found = []
    for number in range(rounds + 1):
        times = {}
        for at in (0, 1) if number % 2 else (1, 0):
            with runs[at][0] as binding:
                times[at] = seconds(lambda binding=binding: binding.run(0, steps), steps)
        items = Timeline.read(runs[1][1], is_barrier, steps).critical.mean(axis=0)
        kernels = 1e-9 * sum(spent for spent, barrier in zip(items, is_barrier, strict=True) if not barrier)
        found.append(Round(times[0], times[1], float(kernels)))
    return found[1:]


def seconds(run: Callable[[], None], steps: int) -> float:
    """Seconds of each step of a call."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / steps


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all, print the table, write the file."""
    given = parser(__doc__, "profiling", rounds=31)
    given.add_argument("--only", help="part of the name of the cases to run")
    options = given.parse_args(argv)
    rounds = min(options.rounds, 5) if options.quick else options.rounds
    rows, aims, results = [], [], {}
    for name, make in CASES.items():
        if options.only and options.only not in name:
            continue
        results[name] = measured = measure(make(), rounds)
        plain, timed, kernels = (median(getattr(r, key) for r in measured) for key in ("plain", "timed", "kernels"))
        off, cost = 100 * (kernels / plain - 1), 100 * median(r.timed / r.plain - 1 for r in measured)
        rows.append([name, *(f"{1e3 * value:.4g}" for value in (plain, timed, kernels)), f"{off:+.1f}", f"{cost:+.1f}"])
        aims.append(Aim(f"kernels' times against the wall: {name}", OFF, "% off", abs(off), at_most=True))
        aims.append(Aim(f"cost of time stamps: {name}", COST, "%", cost, at_most=True))
    print(table(["ms a step", "plain", "timed", "sum of kernels", "off by %", "cost %"], rows))
    written_rounds = {name: [vars(one) for one in found] for name, found in results.items()}
    write_json(options.output, {"machine": machine(), "results": written_rounds, "aims": written(aims)})
    print(f"all rounds: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
