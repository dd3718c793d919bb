"""Measures programs against each other: each in a process of its own, one at a time, in alternating rounds.

A worker process prepares itself, says that it is ready and then waits for "go" on its standard input; each "go" is
answered by one JSON line. While one runs, the others are stopped (SIGSTOP), so that no idle thread pool spins.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out" / "bench"
CAN_STOP = hasattr(signal, "SIGSTOP")


class WorkerError(RuntimeError):
    """A worker ended before it answered."""


class Worker:
    """A process that runs the script `command` and answers each line it is sent by a line of JSON."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        try:
            self.ready: dict[str, Any] = self._answer()
            self._pause()
        except BaseException:
            self.close()
            raise

    def ask(self, request: str) -> dict[str, Any]:
        """Send `request` and wait for the answer; the process runs only in between."""
        assert self.process.stdin is not None
        if CAN_STOP:
            self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"worker {self.name} has ended with code {self.process.wait()}") from None
        answer = self._answer()
        self._pause()
        return answer

    def close(self) -> None:
        """End the process and wait for it."""
        if CAN_STOP and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what a dead worker has not read is lost
                    stream.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"worker {self.name} ended with code {self.process.wait()} before it answered")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _pause(self) -> None:
        if CAN_STOP:
            self.process.send_signal(signal.SIGSTOP)


def serve(ready: Mapping[str, Any], answer: Callable[[str], Mapping[str, Any]], channel: int) -> None:
    """The worker's side: say `ready` on the file descriptor `channel`, then answer the lines of standard input."""
    end_with_parent()
    with os.fdopen(channel, "w") as out:
        print(json.dumps(ready), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(line.strip())), file=out, flush=True)


def end_with_parent() -> None:
    """Have this process killed when its parent ends, on Linux: a stopped one would never see its input end."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def private_channel() -> int:
    """Keep standard output for the answers: whatever a library prints from now on goes to standard error."""
    channel = os.dup(1)
    os.dup2(2, 1)
    return channel


def alternate(workers: Sequence[Worker], rounds: int, request: str = "go") -> dict[str, list[dict[str, Any]]]:
    """Let every worker answer once a round, forwards and backwards by turns, and return all answers by name.

    Each gets an entry "foreign_cores": how many processors were busy with something else meanwhile (None if unknown).
    """
    answers: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for turn in range(rounds):
        for worker in workers if turn % 2 == 0 else reversed(workers):
            start, before = time.perf_counter(), foreign_seconds(worker.process.pid)
            answer = worker.ask(request)
            elapsed, after = time.perf_counter() - start, foreign_seconds(worker.process.pid)
            foreign = None if before is None or after is None else max(0.0, after - before) / elapsed
            answers[worker.name].append({**answer, "foreign_cores": foreign})
    return answers


def foreign_seconds(pid: int) -> float | None:
    """Seconds that all processors together have worked for others than process `pid`; None without /proc."""
    try:
        machine_ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        own_ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, machine_ticks)
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return (busy - sum(map(int, own_ticks))) / os.sysconf("SC_CLK_TCK")


def affinity() -> list[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def thread_environment(threads: int | None = None) -> dict[str, str]:
    """The environment in which every framework uses `threads` threads: by default one on each processor there is."""
    count = str(threads or len(affinity()))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GRADLOOM_NUM_THREADS")
    return dict.fromkeys(names, count)


def parser(description: str | None, name: str, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that all benchmarks have; results go to `out/bench/NAME.json` unless told otherwise."""
    given = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--rounds", type=int, default=rounds, help="timed rounds of each (default: %(default)s)")
    given.add_argument("--quick", action="store_true", help="less work, and rougher figures")
    given.add_argument("--output", type=Path, default=OUT / f"{name}.json", help="default: %(default)s")
    return given


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code: processor, number of cores, system, Python."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": model,
        "cores": len(affinity()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def spread(samples: Sequence[float]) -> str:
    """The median with the range: `1.85 (1.80–1.97)`."""
    return f"{statistics.median(samples):.3g} ({min(samples):.3g}–{max(samples):.3g})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([text(lines[0]), rule, *map(text, lines[1:])])


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result; a reader never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".partial")
    scratch.write_text(json.dumps(result, indent=1) + "\n")
    scratch.replace(path)
