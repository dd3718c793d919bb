"""Milliseconds that Darknet53 takes at 256×256, and its peak memory: Gradloom beside PyTorch eager.

Predicted is one image, trained on four with SGD and momentum. Each framework has a process of its own for each task;
while one runs the other is stopped. Prints a table; writes every round to `out/bench/darknet53.json`.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from harness import ROOT, Worker, alternate, machine, spread, table, write_json
from mlp_worker import thread_environment

FRAMEWORKS = ("gradloom", "torch")
TASKS = {"predict": "predict, batch 1", "train": "train step, batch 4"}


def measure(task: str, rounds: int) -> tuple[list[list[str]], dict[str, object]]:
    """The rows of the table and all rounds for one task."""
    script = str(Path(__file__).with_name("darknet53_worker.py"))
    workers = []
    try:
        for framework in FRAMEWORKS:
            worker = Worker(framework, [script, framework, task], thread_environment())
            if "missing" in worker.ready:
                print(f"{framework} is left out: {worker.ready['missing']}")
                worker.close()
            else:
                workers.append(worker)
        answers = alternate(workers, rounds)
    finally:
        for worker in workers:
            worker.close()
    own = statistics.median(answer["seconds"] for answer in answers["gradloom"])
    rows = []
    for name, given in answers.items():
        seconds = [answer["seconds"] for answer in given]
        ratio = statistics.median(seconds) / own
        peak = max(answer["peak_mb"] for answer in given)
        milliseconds = spread([second * 1e3 for second in seconds])
        rows.append([f"{TASKS[task]}: {name}", milliseconds, f"{ratio:.2f}×", f"{peak:.0f}"])
    ready = {worker.name: worker.ready for worker in workers}
    return rows, {"ready": ready, "rounds": answers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "darknet53.json")
    options = parser.parse_args()
    rows, results = [], {}
    for task in TASKS:
        more, results[task] = measure(task, options.rounds)
        rows += more
    print(table(["Darknet53, 256×256", "ms: median (range)", "÷ Gradloom", "peak MB"], rows))
    write_json(options.out, {"machine": machine(), "results": results})
    print(f"\nall rounds: {options.out}")


if __name__ == "__main__":
    main()
