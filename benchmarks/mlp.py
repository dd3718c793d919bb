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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aims import Aim, written
from contest import AVX2, Entry, disturbance, ready
from harness import alternate, machine, parser, spread, table, write_json
from mlp_case import Case, save_data
from mlp_worker import FRAMEWORKS

EXACTNESS = 1e-3
"""The largest accepted deviation from float64 training: measured are 1e-6 (batch 128) to 1e-4 (batch 1)."""

LEADS = {1: 2.0, 32: 2.2, 128: 1.8}
"""How many times faster than JAX's `lax.scan` the project wants to be, by batch size."""

AGREEMENT = 0.05
"""How far the frameworks' losses after shuffled training may lie from their median, relatively."""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    given = parser(__doc__, "mlp")
    given.add_argument("--peers", default=",".join(FRAMEWORKS), help="comma-separated, from: %(default)s")
    given.add_argument("--batch", default="1,32,128", help="comma-separated batch sizes (default: %(default)s)")
    given.add_argument("--samples", type=int, default=60_000, help="samples in an epoch (default: %(default)s)")
    given.add_argument("--avx2", action="store_true", help="hold all to AVX2; results get a name of their own")
    options = given.parse_args(argv)
    if options.avx2:
        options.output = options.output.with_stem(f"{options.output.stem}-avx2")
    options.peers = options.peers.split(",")
    unknown = [peer for peer in options.peers if peer not in FRAMEWORKS]
    if unknown:
        given.error(f"unknown peers {', '.join(unknown)}; known are {', '.join(FRAMEWORKS)}")
    options.batch = [int(size) for size in options.batch.split(",")]
    if options.quick:
        options.samples = min(options.samples, 8192)
    return options


def measure(
    peers: Sequence[str], case: Case, rounds: int, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Time `rounds` fits of every framework: `{"microseconds": {name: […]}, "losses": …, "absent": …, …}`."""
    script = str(Path(__file__).with_name("mlp_worker.py"))
    with tempfile.TemporaryDirectory() as folder:
        save_data(case, Path(folder))
        given = json.dumps(asdict(case))
        entries = [Entry(peer, [script, peer, given, folder], environment or {}) for peer in peers]
        with ready(entries, EXACTNESS) as started:
            answers = alternate(started.workers, rounds)
    per_sample = 1e6 / (case.samples * case.epochs)
    return {
        "case": asdict(case),
        "microseconds": {name: [a["seconds"] * per_sample for a in given] for name, given in answers.items()},
        "answers": answers,
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


def aims(result: dict[str, Any], held: bool) -> list[Aim]:
    """How far ahead Gradloom must be at this batch size: of JAX, or, held to AVX2, of NumPy and PyTorch."""
    batch = result["case"]["batch"]
    middle = {name: statistics.median(given) for name, given in result["microseconds"].items()}
    rivals = ("numpy", "torch") if held else ("jax-scan",)
    others = [middle[name] for name in rivals if name in middle]
    lead = min(others) / middle["gradloom"] if others and "gradloom" in middle else None
    if held:
        return [Aim(f"MLP training on AVX2, batch {batch}", 1.0, "× the faster of NumPy and PyTorch", lead)]
    return [Aim(f"MLP training, batch {batch}", LEADS[batch], "× JAX `lax.scan`", lead)] if batch in LEADS else []


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
    results, faults, reached = [], [], []
    for batch in options.batch:
        case = Case(samples=options.samples, batch=batch)
        result = measure(options.peers, case, options.rounds, AVX2 if options.avx2 else None)
        results.append(result)
        reached += aims(result, options.avx2)
        print(report(result), flush=True)
        if noise := disturbance(result["answers"]):
            print(f"warning: {noise}", flush=True)
        print()
        if fault := disagreement(result):
            faults.append(f"batch {batch}: {fault}")
        faults += [f"batch {batch}: {name} failed: {why}" for name, why in result["failed"].items()]
    write_json(options.output, {"machine": machine(), "results": results, "aims": written(reached)})
    print(f"all rounds: {options.output}")
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
