"""How much faster two threads are than one: training the MLP with batches of 128, and predicting with Darknet53.

Prints tables; writes every round to `out/bench/threads.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from aims import Aim, written
from contest import Entry, Result, calls, compete, lead, report
from harness import machine, parser, thread_environment, write_json
from mlp_case import Case, save_data

TRAINING = Case(samples=60_000, batch=128)
NEEDED = 1.6
COUNTS = {"2 threads": 2, "1 thread": 1}


def with_threads(entry: Entry) -> list[Entry]:
    """The same work once for each number of threads."""
    return [replace(entry, name=name, environment=thread_environment(count)) for name, count in COUNTS.items()]


def training(samples: int, rounds: int) -> Result:
    """Two epochs of `fit`."""
    case = replace(TRAINING, samples=samples)
    script = str(Path(__file__).with_name("mlp_worker.py"))
    with tempfile.TemporaryDirectory() as folder:
        save_data(case, Path(folder))
        entry = Entry("gradloom", [script, "gradloom", json.dumps(asdict(case)), folder])
        return compete("MLP training, batch 128", with_threads(entry), rounds, 1e-3)


def prediction(rounds: int) -> Result:
    """One image, with weights as they are drawn."""
    import gradloom as gl

    with tempfile.TemporaryDirectory() as folder:
        weights = gl.applications.Darknet53().get_weights()
        np.savez(Path(folder) / "weights.npz", *weights)
        (entry,) = calls("darknet53_frameworks", ["gradloom"], {"task": "predict", "batch": 1, "folder": folder})
        return compete("Darknet53 inference, batch 1", with_threads(entry), rounds, 1e-3)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both, print the tables, write the file."""
    options = parser(__doc__, "threads").parse_args(argv)
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    results = [training(8192 if options.quick else TRAINING.samples, rounds), prediction(rounds)]
    aims = []
    for result in results:
        print(report(result))
        gain = lead(result, "2 threads", ["1 thread"])
        aims.append(Aim(f"2 threads over 1: {result['title']}", NEEDED, "× one thread", gain))
    write_json(options.output, {"machine": machine(), "results": results, "aims": written(aims)})
    print(f"all rounds: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
