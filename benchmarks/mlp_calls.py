"""Microseconds of one call on one image, NumPy in and NumPy out: predictions beside ONNX Runtime, and what `fit` costs.

A `fit` of one step shows the fixed cost of the call, which training on a data set pays once. Prints tables; writes
every round to `out/bench/mlp_calls.json`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aims import Aim, written
from contest import Result, calls, compete, lead, report, seconds
from harness import machine, parser, write_json
from mlp_calls_frameworks import reference

EXACTNESS = 1e-5
"""Largest accepted error of the logits, over their root mean square, or of the loss."""

CONTESTS = {"predict": ("gradloom", "onnxruntime", "numpy"), "fit": ("gradloom",)}


def measure(rounds: int) -> dict[str, Result]:
    """The results of both kinds of call."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "reference.npz"
        np.savez(file, **reference())  # type: ignore[arg-type]
        results = {}
        for task, frameworks in CONTESTS.items():
            case = {"task": task, "reference": str(file), "probabilities": task == "predict"}
            entries = calls("mlp_calls_frameworks", frameworks, case)
            results[task] = compete(f"MLP, one image: {task}", entries, rounds, EXACTNESS)
    return results


def aims(results: dict[str, Result]) -> list[Aim]:
    """Predictions no slower than ONNX Runtime's; at most half a millisecond for `fit`."""
    fixed = seconds(results["fit"], "gradloom")
    return [
        Aim(
            "MLP, one image per call",
            1.0,
            "× ONNX Runtime",
            lead(results["predict"], "gradloom", ["onnxruntime"]),
        ),
        Aim("MLP, `fit` of one step", 0.5, "ms", None if fixed is None else fixed * 1e3, at_most=True),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, write the file."""
    options = parser(__doc__, "mlp_calls").parse_args(argv)
    results = measure(min(options.rounds, 2) if options.quick else options.rounds)
    for result in results.values():
        print(report(result, "µs", 1e6))
    write_json(
        options.output, {"machine": machine(), "results": list(results.values()), "aims": written(aims(results))}
    )
    print(f"all rounds: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
