"""Microseconds a sample of training the 784-128-10 network takes: Gradloom's `fit` beside other frameworks.

Timed is the whole call of two epochs: shuffling, gathering, training, the loss. Every framework has its own process,
all have the same processors, and while one runs the others are stopped. Before anything is timed, each must train to
the same weights as a float64 computation. Prints a table; writes every round to `out/bench/mlp.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT, Worker, WorkerError, alternate, machine, spread, table, write_json
from mlp_case import Case, save_data
from mlp_worker import FRAMEWORKS, thread_environment

EXACTNESS = 1e-3
"""The largest accepted deviation from float64 training: measured are 1e-6 (batch 128) to 1e-4 (batch 1)."""

QUIET = 0.2
"""Processors that others may keep busy: with more, thread pools that spin lose many times their fair share."""

AGREEMENT = 0.05
"""How far the frameworks' losses after shuffled training may lie from their median, relatively."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(FRAMEWORKS), help="comma-separated, from: %(default)s")
    parser.add_argument("--batch", default="1,32,128", help="comma-separated batch sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed fits of each framework (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=60_000, help="samples in an epoch (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="8,192 samples")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "mlp.json", help="default: %(default)s")
    options = parser.parse_args(argv)
    options.peers = options.peers.split(",")
    unknown = [peer for peer in options.peers if peer not in FRAMEWORKS]
    if unknown:
        parser.error(f"unknown peers {', '.join(unknown)}; known are {', '.join(FRAMEWORKS)}")
    options.batch = [int(size) for size in options.batch.split(",")]
    if options.quick:
        options.samples = min(options.samples, 8192)
    return options


@dataclass
class Field:
    """Who takes part: the workers that are ready, and why others are not installed or failed."""

    workers: list[Worker] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def start_workers(started: Field, peers: Sequence[str], case: Case, folder: Path) -> None:
    """Start a process for each framework; it takes part when it trains to the right weights."""
    script = str(Path(__file__).with_name("mlp_worker.py"))
    for peer in peers:
        command = [script, peer, json.dumps(asdict(case)), str(folder)]
        try:
            worker = Worker(peer, command, thread_environment())
        except WorkerError as error:
            started.failed[peer] = str(error)
            continue
        if "missing" in worker.ready:
            worker.close()
            started.absent[peer] = worker.ready["missing"]
        elif not worker.ready["deviation"] < EXACTNESS:  # also when it is NaN
            worker.close()
            started.failed[peer] = f"deviates by {worker.ready['deviation']:.2g} from float64 training"
        else:
            started.workers.append(worker)


def measure(peers: Sequence[str], case: Case, rounds: int) -> dict[str, Any]:
    """Time `rounds` fits of every framework: `{"microseconds": {name: […]}, "losses": …, "absent": …, …}`."""
    with tempfile.TemporaryDirectory() as folder:
        save_data(case, Path(folder))
        started = Field()
        try:
            start_workers(started, peers, case, Path(folder))
            answers = alternate(started.workers, rounds)
        finally:
            for worker in started.workers:
                worker.close()
    per_sample = 1e6 / (case.samples * case.epochs)
    return {
        "case": asdict(case),
        "microseconds": {name: [a["seconds"] * per_sample for a in given] for name, given in answers.items()},
        "foreign_cores": {name: [a["foreign_cores"] for a in given] for name, given in answers.items()},
        "losses": {name: [a["loss"] for a in given] for name, given in answers.items()},
        "deviations": {worker.name: worker.ready["deviation"] for worker in started.workers},
        "versions": {key: value for worker in started.workers for key, value in worker.ready["versions"].items()},
        "absent": started.absent,
        "failed": started.failed,
    }


def disagreement(result: dict[str, Any]) -> str:
    """Name the frameworks whose loss lies apart from the others', or return ""."""
    losses = {name: statistics.median(given) for name, given in result["losses"].items()}
    if not losses:
        return ""
    middle = statistics.median(losses.values())
    apart = [f"{name} {loss:.4f}" for name, loss in losses.items() if not abs(loss / middle - 1) < AGREEMENT]
    return f"losses differ from the median {middle:.4f}: {', '.join(apart)}" if apart else ""


def disturbance(result: dict[str, Any]) -> str:
    """Say so if other processes kept the machine busy during half of the rounds or more, else ""."""
    known = [cores for given in result["foreign_cores"].values() for cores in given if cores is not None]
    taken = statistics.median(known) if known else 0.0
    return f"other processes kept {taken:.1f} processors busy: repeat this on a quiet machine" if taken > QUIET else ""


def report(result: dict[str, Any]) -> str:
    """The table of one batch size: medians, ranges, and how many times longer than Gradloom each took."""
    times, losses = result["microseconds"], result["losses"]
    own = statistics.median(times["gradloom"]) if "gradloom" in times else None
    rows = []
    for name, samples in times.items():
        ratio = "" if own is None else f"{statistics.median(samples) / own:.2f}×"
        rows.append([name, spread(samples), ratio, f"{statistics.median(losses[name]):.4f}"])
    reasons = {**result["absent"], **result["failed"]}
    rows += [[name, "absent" if name in result["absent"] else "failed", "", ""] for name in reasons]
    title = f"batch {result['case']['batch']}, {result['case']['samples']} samples"
    lines = [table([title, "µs a sample: median (range)", "÷ Gradloom", "loss"], rows)]
    lines += [f"{name}: {reason}" for name, reason in reasons.items()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    results, faults = [], []
    for batch in options.batch:
        result = measure(options.peers, Case(samples=options.samples, batch=batch), options.rounds)
        results.append(result)
        print(report(result), flush=True)
        noise = disturbance(result)
        if noise:
            print(f"warning: {noise}", flush=True)
        print()
        fault = disagreement(result)
        if fault:
            faults.append(f"batch {batch}: {fault}")
        faults += [f"batch {batch}: {name} failed: {why}" for name, why in result["failed"].items()]
    write_json(options.out, {"machine": machine(), "rounds": options.rounds, "results": results})
    print(f"all rounds: {options.out}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
