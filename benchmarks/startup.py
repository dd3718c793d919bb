"""How long Gradloom takes to start: its import beyond NumPy's, the first training step with a cold and a warm cache.

Each figure is taken in fresh processes, with Python's own bytecode cached as after an installation. The first step is
counted from after the import: building the model, compiling the train program (or reading it from the cache), and one
batch of 32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import ROOT, machine, spread, table, write_json

IMPORT = """
import json, sys, time
import numpy
start = time.perf_counter()
import gradloom
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "llvmlite": "llvmlite" in sys.modules}))
"""

FIRST_STEP = """
import json, sys, time
import numpy as np
import gradloom as gl
rng = np.random.default_rng(0)
x = rng.random((32, 784), dtype=np.float32)
y = rng.integers(0, 10, 32, dtype=np.int32)
start = time.perf_counter()
model = gl.Sequential(
    [gl.Input((784,)), gl.layers.Dense(128, activation="relu"), gl.layers.Dense(10, activation="softmax")]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, batch_size=32, epochs=1, verbose=0)
seconds = time.perf_counter() - start
codegen = sys.modules.get("gradloom.compiler.llvm.codegen")
print(json.dumps({"seconds": seconds, "compilations": 0 if codegen is None else codegen.compilations}))
"""

LIMITS = {"import beyond NumPy": 0.15, "first step, warm cache": 0.3}
"""Seconds that the project holds itself to, on the reference machine."""


def run(script: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Run a script in a fresh process in `folder`, where its bytecode lies too, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "GRADLOOM_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True, cwd=folder, env=environment
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Take every figure `rounds` times; cold and warm starts alternate."""
    names = ("import beyond NumPy", "first step, cold cache", "first step, warm cache")
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        run(FIRST_STEP, folder, folder / "warm-up")  # compiles the Python files and reads them from disk
        for turn in range(rounds):
            for name, script in zip(names, (IMPORT, FIRST_STEP, FIRST_STEP), strict=True):
                figures[name].append(run(script, folder, folder / f"cache-{turn}"))
    return figures


def faults(figures: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """What takes too long, or is done although it should not be."""
    found = []
    for name, limit in LIMITS.items():
        if statistics.median(answer["seconds"] for answer in figures[name]) >= limit:
            found.append(f"{name} takes longer than {limit} s")
    if any(answer["llvmlite"] for answer in figures["import beyond NumPy"]):
        found.append("the import loads llvmlite")
    if any(answer["compilations"] for answer in figures["first step, warm cache"]):
        found.append("code is generated although the cache is warm")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each figure (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "out" / "bench" / "startup.json", help="default: %(default)s"
    )
    options = parser.parse_args()
    figures = measure(options.rounds)
    rows = []
    for name, answers in figures.items():
        limit = f"< {LIMITS[name]}" if name in LIMITS else ""
        rows.append([name, spread([answer["seconds"] for answer in answers]), limit])
    print(table(["start", "seconds: median (range)", "aim"], rows))
    write_json(options.out, {"machine": machine(), "figures": figures})
    found = faults(figures)
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
