"""How long Gradloom takes to start: its import beyond NumPy's, and first results with a cold and a warm cache.

Each figure is taken in fresh processes, with Python's own bytecode cached as after an installation. The MLP makes a
training step on 32 samples; Darknet53 reads its weights from a file and predicts an image. Besides, Darknet53's train
step is built as a graph and compiled, and its prediction inspected. Prints a table; writes every round to
`out/bench/startup.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aims import Aim, report, written
from harness import machine, parser, spread, table, write_json

IMPORT = """
import json, sys, time
import numpy
start = time.perf_counter()
import gradloom
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "llvmlite": "llvmlite" in sys.modules}))
"""

FIRST_RESULT = """
import json, os, sys, time
import numpy as np
import gradloom as gl
imported = time.perf_counter()
rng = np.random.default_rng(0)
BUILD
start = time.perf_counter()
CALL
now = time.perf_counter()
times = {"call": now - start, "seconds": now - imported}
process = time.monotonic() - float(os.environ["STARTED"])
codegen = sys.modules.get("gradloom.compiler.llvm.codegen")
compilations = 0 if codegen is None else codegen.compilations
print(json.dumps({**times, "process": process, "compilations": compilations}))
"""

MLP = FIRST_RESULT.replace(
    "BUILD",
    """
x, y = rng.random((32, 784), dtype=np.float32), rng.integers(0, 10, 32, dtype=np.int32)
model = gl.Sequential(
    [gl.Input((784,)), gl.layers.Dense(128, activation="relu"), gl.layers.Dense(10, activation="softmax")]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
""",
).replace("CALL", "model.fit(x, y, batch_size=32, epochs=1, verbose=0)")

DARKNET53 = FIRST_RESULT.replace(
    "BUILD",
    """
model = gl.applications.Darknet53(weights="darknet53.weights")
x = rng.random((1, 256, 256, 3), dtype=np.float32)
""",
).replace("CALL", "model.predict_on_batch(x)")

GRAPHS = """
import json, sys, time
import gradloom as gl
from gradloom.execution import compiled_program
from gradloom.inspection import GRAPH_STAGES

def seconds(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start

model = gl.applications.Darknet53()
model.compile(gl.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
start = time.perf_counter()
step = model.train_graph(batch_size=4)
told = {"train_step": time.perf_counter() - start}
told["program"] = seconds(compiled_program, step)
codegen = sys.modules.get("gradloom.compiler.llvm.codegen")
told["compilations"] = 0 if codegen is None else codegen.compilations
inspection = model.inspect(batch_size=1, mode="predict")
parts = [part for part in (inspection, inspection.prepare) if part is not None]
stages = [part.stages[name] for part in parts for name in GRAPH_STAGES if name in part.stages]
for form in ("text", "dot", "svg"):
    told[form] = max(seconds(getattr(stage, form)) for stage in stages)
print(json.dumps(told))
"""
"""A stage is made when it is first asked for: as text, whose time includes that."""

WRITE_WEIGHTS = """
import gradloom as gl
gl.formats.darknet.save_weights(gl.applications.Darknet53(), "darknet53.weights")
print("null")
"""

NETWORKS = {"MLP": MLP, "Darknet53": DARKNET53, "Darknet53's graphs": GRAPHS}


@dataclass(frozen=True)
class Figure:
    """What a run's answer tells under `key`, and the seconds that the project holds itself to."""

    name: str
    run: str
    key: str
    limit: float


FIGURES = (
    Figure("import beyond NumPy", "import", "seconds", 0.15),
    Figure("MLP: first `fit`, cold cache", "MLP, cold", "call", 0.7),
    Figure("MLP: model and first `fit` after the import, warm cache", "MLP, warm", "seconds", 0.3),
    Figure("MLP: new process to first result, warm cache", "MLP, warm", "process", 0.35),
    Figure("Darknet53: first prediction, cold cache", "Darknet53, cold", "call", 6.0),
    Figure("Darknet53: new process to first result, cold cache", "Darknet53, cold", "process", 15.0),
    Figure("Darknet53: new process to first result, warm cache", "Darknet53, warm", "process", 1.0),
    Figure("Darknet53: graph of the train step", "Darknet53's graphs, warm", "train_step", 2.0),
    Figure("Darknet53: train step compiled, cold cache", "Darknet53's graphs, cold", "program", 15.0),
    Figure("Darknet53: train step read, warm cache", "Darknet53's graphs, warm", "program", 1.0),
    Figure("Darknet53: slowest graph stage of a prediction, as text", "Darknet53's graphs, warm", "text", 5.0),
    Figure("Darknet53: slowest graph stage of a prediction, as DOT", "Darknet53's graphs, warm", "dot", 5.0),
    Figure("Darknet53: slowest graph stage of a prediction, as SVG", "Darknet53's graphs, warm", "svg", 5.0),
)

Answers = dict[str, list[dict[str, Any]]]


def run(script: str, folder: Path, cache: Path) -> Any:
    """Run a script in a fresh process in `folder`, where its bytecode lies too, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "GRADLOOM_CACHE_DIR": str(cache)}
    environment["STARTED"] = str(time.monotonic())
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment
    )
    return json.loads(done.stdout)


def measure(rounds: int, networks: Sequence[str] = tuple(NETWORKS)) -> Answers:
    """Run everything `rounds` times, cold and warm starts by turns."""
    answers: Answers = {"import": []}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        if "Darknet53" in networks:
            run(WRITE_WEIGHTS, folder, folder / "warm-up")
        for network in networks:  # compiles the Python files and reads them from disk
            run(NETWORKS[network], folder, folder / "warm-up")
        for turn in range(rounds):
            answers["import"].append(run(IMPORT, folder, folder / "warm-up"))
            for network in networks:
                for state in ("cold", "warm"):
                    answer = run(NETWORKS[network], folder, folder / f"cache-{turn}")
                    answers.setdefault(f"{network}, {state}", []).append(answer)
    return answers


def aims(answers: Answers) -> list[Aim]:
    """The limits beside the medians."""
    found = []
    for figure in FIGURES:
        times = [answer[figure.key] for answer in answers.get(figure.run, ())]
        median = statistics.median(times) if times else None
        found.append(Aim(figure.name, figure.limit, "s", median, at_most=True))
    return found


def faults(answers: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """What is done although it should not be, however fast."""
    found = []
    if any(answer["llvmlite"] for answer in answers["import"]):
        found.append("the import loads llvmlite")
    for network in NETWORKS:
        if any(answer["compilations"] for answer in answers.get(f"{network}, warm", ())):
            found.append(f"{network}: code is generated although the cache is warm")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the file."""
    options = parser(__doc__, "startup").parse_args(argv)
    answers = measure(1 if options.quick else options.rounds)
    rows = [[f.name, spread([answer[f.key] for answer in answers[f.run]])] for f in FIGURES]
    print(table(["start", "seconds: median (range)"], rows))
    reached = written(aims(answers))
    print(report(reached))
    write_json(options.output, {"machine": machine(), "results": answers, "aims": reached})
    found = faults(answers)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
