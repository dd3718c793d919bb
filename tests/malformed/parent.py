"""Watches processes that read damaged files: attributes every signal, hang and excess of memory to one mutant."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0
"""Of CPU time that a file may take: other programs on the machine must not decide."""
WALL_SECONDS = 300.0
"""Of time that a process may say nothing: one that waits for ever uses no CPU."""
MORE_BYTES = 256 << 20
"""That a damaged file may take beyond twice what the valid ones do."""
VALID = -1
"""The seed in the reports of valid files."""


@dataclass(frozen=True)
class Report:
    """What came of reading a mutant: "read", an exception's name, "hang", or a signal's name."""

    seed: int
    outcome: str
    trace: str = ""
    seconds: float = 0.0
    nbytes: int = 0

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.outcome}, {self.seconds:.2f} s, {self.nbytes >> 20} MB\n{self.trace}"


def read_mutants(name: str, folder: Path, first: int, end: int) -> Iterator[Report]:
    """Read the valid files of a format, then the mutants `first` … `end` − 1, in a process that is replaced if it dies.

    The bytes of a mutant that ends the process stay in the folder.
    """
    while first < end:
        stopped = yield from _reports_of_a_process(name, folder, first, end)
        if stopped is None:
            return
        if stopped == VALID:
            raise AssertionError(f"{name}: no mutant was read: {(folder / 'stderr').read_text()}")
        first = stopped + 1


def wrong(reports: list[Report], documented: set[str]) -> list[Report]:
    """Those that ended otherwise than documented, or took more time or memory than they may."""
    most = 2 * max(report.nbytes for report in reports if report.seed == VALID) + MORE_BYTES
    return [
        report
        for report in reports
        if report.outcome not in ({"read"} if report.seed == VALID else {"read", *documented})
        or report.seconds > SECONDS
        or report.nbytes > most
    ]


def _reports_of_a_process(name: str, folder: Path, first: int, end: int) -> Generator[Report, None, int | None]:
    """Yield its reports; return the seed of the mutant that ended the process, None if none did."""
    command = [sys.executable, "-W", "error", "-m", "malformed.child", name, str(folder), str(first), str(end)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    seed = VALID
    with (
        (folder / "stderr").open("w") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,
        ) as process,
    ):
        try:
            for line in _lines(process):
                fields = json.loads(line)
                if "done" in fields:
                    return None
                seed = fields["seed"]
                if "outcome" in fields:
                    yield Report(**fields)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # What it started must not go on without it.
    code = process.returncode
    outcome = "hang" if code == -signal.SIGKILL else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    kept = folder / f"{name}-{seed}"
    for mutant in folder.glob("mutant*"):
        shutil.copyfile(mutant, kept)
    yield Report(seed, outcome, f"its bytes: {kept}\n{(folder / 'stderr').read_text()[-3000:]}")
    return seed


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The lines that a process writes, until it ends, or spends too much time before the next one."""
    assert process.stdout is not None
    descriptor, buffer = process.stdout.fileno(), b""
    while True:
        begun, spent = time.monotonic(), _cpu_seconds(process.pid)
        while b"\n" not in buffer:
            if select.select([descriptor], [], [], 1.0)[0]:
                more = os.read(descriptor, 1 << 16)
                if not more:
                    # What ends by itself has its own exit code.
                    process.wait(WALL_SECONDS)
                    return
                buffer += more
            elif time.monotonic() - begun > WALL_SECONDS or _cpu_seconds(process.pid) - spent > 2 * SECONDS:
                return
        line, _, buffer = buffer.partition(b"\n")
        yield line


def _cpu_seconds(pid: int) -> float:
    """Seconds of CPU time so far of a process and of all that it started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # It has ended, and its time is its parent's.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") + sum(_cpu_seconds(int(child)) for child in children)
