"""One framework's process: `call_worker.py MODULE FRAMEWORK CASE` makes the same call again each time it is asked.

`MODULE.FRAMEWORK(case)` builds a `Task`. A framework that is not installed, or cannot do the task, says so instead.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness import private_channel, serve

WARM_UP = 0.3
"""Seconds of calls before anything is timed, two at least."""


class Unavailable(Exception):
    """The framework cannot do this task; the text says why."""


@dataclass(frozen=True)
class Task:
    """What is timed, the packages whose versions count, and the calls that one answer is the mean of.

    `arithmetic` names the instructions that the framework says it computes with, where it can be asked.
    """

    run: Callable[[], np.ndarray]
    packages: Sequence[str]
    repeats: int = 1
    arithmetic: str = ""


def peak_mb() -> float:
    """The most memory that this process ever held, in MB of 2²⁰ bytes; what its parent held does not count."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024


def deviation(result: np.ndarray, case: Mapping[str, Any]) -> dict[str, Any]:
    """How far the first row lies from the one in `case["reference"]`: the largest error over the root mean square.

    Probabilities (`case["probabilities"]`) are compared as logits, which are their logarithms around the mean; then
    `top` tells whether the five largest agree.
    """
    if "reference" not in case:
        return {}
    with np.load(case["reference"]) as file:
        wanted = np.atleast_2d(file[case["task"]])[0]
    got = np.atleast_2d(np.asarray(result, np.float64))[0]
    if not case.get("probabilities"):
        return {"deviation": distance(got, wanted)}
    top = bool((np.argsort(got)[-5:] == np.argsort(wanted)[-5:]).all())
    got, wanted = (np.log(p) - np.log(p).mean() for p in (got, wanted))
    return {"deviation": distance(got, wanted), "top": top}


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error over the root mean square of what is wanted."""
    return float(np.abs(got - wanted).max() / np.sqrt(np.square(wanted).mean()))


def main() -> None:
    channel = private_channel()
    start = time.perf_counter()
    module, framework, case_text = sys.argv[1:]
    case = json.loads(case_text)
    # `Task` and `Unavailable` are those of this module under its own name, not of the script "__main__".
    own = importlib.import_module("call_worker")
    try:
        task = getattr(importlib.import_module(module), framework.replace("-", "_"))(case)
        result = task.run()
    except (ModuleNotFoundError, own.Unavailable) as error:
        with os.fdopen(channel, "w") as out:
            print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return
    ready = {
        "versions": {package: version(package) for package in task.packages},
        "first": time.perf_counter() - start,
        "arithmetic": task.arithmetic,
        **deviation(result, case),
    }

    def answer(request: str) -> Mapping[str, Any]:
        start = time.perf_counter()
        for _ in range(task.repeats):
            task.run()
        return {"seconds": (time.perf_counter() - start) / task.repeats, "peak_mb": peak_mb()}

    start = time.perf_counter()
    task.run()
    while time.perf_counter() - start < WARM_UP:
        task.run()
    serve(ready, answer, channel)


if __name__ == "__main__":
    main()
