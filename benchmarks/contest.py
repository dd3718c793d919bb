"""The same piece of work in several frameworks: who takes part, rounds by turns, and what comes of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Worker, WorkerError, alternate, spread, table, thread_environment

QUIET = 0.2
"""Processors that others may keep busy: with more, thread pools that spin lose many times their fair share."""

AVX2 = {
    "GRADLOOM_TARGET": "x86-64-v3",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
"""Holds each framework to AVX2 by its own variable; ONNX Runtime has none, and uses what the processor has."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A worker that is to take part: the script with its arguments, and what its environment has besides."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Field:
    """Who takes part: the workers that are ready, and why others are not installed or failed."""

    workers: list[Worker] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def admit(self, entry: Entry, exactness: float) -> None:
        """Start a worker; it takes part when its result deviates by less than `exactness` from the exact one."""
        try:
            worker = Worker(entry.name, entry.command, {**thread_environment(), **entry.environment})
        except WorkerError as error:
            self.failed[entry.name] = str(error)
            return
        if "missing" in worker.ready:
            worker.close()
            self.absent[entry.name] = worker.ready["missing"]
        elif not worker.ready.get("deviation", 0.0) < exactness:  # also when it is NaN
            worker.close()
            self.failed[entry.name] = f"deviates by {worker.ready['deviation']:.2g} from float64"
        elif not worker.ready.get("top", True):
            worker.close()
            self.failed[entry.name] = "puts other classes on top than float64"
        else:
            self.workers.append(worker)


@contextmanager
def ready(entries: Iterable[Entry], exactness: float) -> Iterator[Field]:
    """The workers of all entries, one after the other; ended afterwards."""
    started = Field()
    try:
        for entry in entries:
            started.admit(entry, exactness)
        yield started
    finally:
        for worker in started.workers:
            worker.close()


def calls(
    module: str, frameworks: Iterable[str], case: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> list[Entry]:
    """Entries of frameworks that `call_worker.py` finds in `module`."""
    script = str(Path(__file__).with_name("call_worker.py"))
    text = json.dumps(case)
    return [Entry(name, [script, module, name, text], environment or {}) for name in frameworks]


def compete(title: str, entries: Iterable[Entry], rounds: int, exactness: float) -> Result:
    """Time `rounds` answers of every worker, by turns; the result goes into a JSON file as it is."""
    with ready(entries, exactness) as started:
        answers = alternate(started.workers, rounds)
    return {
        "title": title,
        "answers": answers,
        "ready": {worker.name: worker.ready for worker in started.workers},
        "absent": started.absent,
        "failed": started.failed,
    }


def seconds(result: Result, name: str) -> float | None:
    """The median of a worker's rounds; None if it did not take part."""
    given = result["answers"].get(name, ())
    return statistics.median(answer["seconds"] for answer in given) if given else None


def lead(result: Result, own: str, peers: Iterable[str]) -> float | None:
    """How many times longer than `own` the fastest of the peers took; None where there is nothing to compare."""
    mine = seconds(result, own)
    others = [time for peer in peers if (time := seconds(result, peer)) is not None]
    return None if mine is None or not others else min(others) / mine


def report(result: Result, unit: str = "ms", scale: float = 1e3) -> str:
    """The table of a result: medians and ranges, the ratio to the first row, time to the first result, memory."""
    names = list(result["answers"])
    first = seconds(result, names[0]) if names else None
    rows = []
    for name in names:
        times = [answer["seconds"] for answer in result["answers"][name]]
        ratio = f"{statistics.median(times) / first:.2f}×" if first else ""
        told = result["ready"][name]
        peaks = [answer["peak_mb"] for answer in result["answers"][name] if "peak_mb" in answer]
        peak = f"{max(peaks):.0f}" if peaks else ""
        rows.append(
            [
                name,
                spread([time * scale for time in times]),
                ratio,
                f"{told['first']:.1f}" if "first" in told else "",
                peak,
            ]
        )
        if told.get("arithmetic"):
            rows[-1][0] += f" ({told['arithmetic']})"
    reasons = {**result["absent"], **result["failed"]}
    rows += [[name, "not available" if name in result["absent"] else "failed", "", "", ""] for name in reasons]
    header = [result["title"], f"{unit}: median (range)", "÷ the first", "s to first result", "peak MB"]
    lines = [table(header, rows), *(f"{name}: {reason}" for name, reason in reasons.items())]
    if noise := disturbance(result["answers"]):
        lines.append(f"warning: {noise}")
    return "\n".join(lines) + "\n"


def disturbance(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Say so if other processes kept the machine busy during half of the rounds or more, else ""."""
    foreign = [answer["foreign_cores"] for given in answers.values() for answer in given]
    known = [cores for cores in foreign if cores is not None]
    taken = statistics.median(known) if known else 0.0
    return f"other processes kept {taken:.1f} processors busy: repeat this on a quiet machine" if taken > QUIET else ""
