"""Runs every benchmark and gathers what the project aims at in one table and one file: `make bench`.

Each is a script of its own that can be run alone, too. Writes `out/bench/results.md` and `out/bench/results.json`, with
the processor, the versions of all frameworks, and every round of every benchmark under the benchmark's name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aims import report
from harness import OUT, machine, write_json

RUNS: dict[str, list[str]] = {
    "machine": ["machine.py"],
    "mlp": ["mlp.py"],
    "mlp_calls": ["mlp_calls.py"],
    "matmul": ["matmul.py"],
    "darknet53": ["darknet53.py"],
    "threads": ["threads.py"],
    "startup": ["startup.py"],
    "scaling": ["scaling.py"],
    "profiling": ["profiling.py"],
    "mlp-avx2": ["mlp.py", "--avx2", "--peers", "gradloom,numpy,torch"],
    "darknet53-avx2": ["darknet53.py", "--avx2"],
}
"""The scripts with their arguments, by the name of the file that each writes."""

PACKAGES = ("gradloom", "numpy", "llvmlite", "jax", "jaxlib", "keras", "torch", "onnx", "onnxruntime", "openvino")


def versions() -> dict[str, str]:
    """The versions of all packages that take part and are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def run(names: Sequence[str], quick: bool) -> dict[str, int]:
    """Run the benchmarks one after the other; return the exit codes that are not 0."""
    codes = {}
    for name in names:
        script, *arguments = RUNS[name]
        print(f"\n## {name}\n", flush=True)
        (OUT / f"{name}.json").unlink(missing_ok=True)  # of a benchmark that fails, no old figures
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments, *(["--quick"] if quick else [])]
        if code := subprocess.run(command, check=False).returncode:
            codes[name] = code
    return codes


def gather(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """What the benchmarks wrote into `folder`, by name."""
    files = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def summary(benchmarks: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The aims of all benchmarks in one table, under the machine and the versions."""
    told = [*about["machine"].items(), *about["versions"].items()]
    aims = [aim for result in benchmarks.values() for aim in result.get("aims", ())]
    return "\n".join(["; ".join(f"{name} {value}" for name, value in told), "", report(aims), ""])


def main(argv: Sequence[str] | None = None) -> int:
    """Run, gather, and print the table; 1 if a benchmark failed, whatever the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which, by default all of: {', '.join(RUNS)}")
    parser.add_argument("--quick", action="store_true", help="less work, and rougher figures")
    options = parser.parse_args(argv)
    names = options.names or list(RUNS)
    if unknown := [name for name in names if name not in RUNS]:
        parser.error(f"unknown benchmarks {', '.join(unknown)}; known are {', '.join(RUNS)}")
    codes = run(names, options.quick)
    benchmarks = gather(names, OUT)
    about = {"machine": machine(), "versions": versions()}
    text = summary(benchmarks, about)
    print(f"\n## results\n\n{text}")
    write_json(OUT / "results.json", {**about, "benchmarks": benchmarks})
    (OUT / "results.md").write_text(text)
    print(f"written: {OUT / 'results.md'}, {OUT / 'results.json'}")
    for name, code in codes.items():
        print(f"error: {name} ended with code {code}", file=sys.stderr)
    return 1 if codes else 0


if __name__ == "__main__":
    sys.exit(main())
