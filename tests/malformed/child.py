"""A process that damages files and reads them, one after the other, and tells its parent what came of each.

`python -m malformed.child FORMAT FOLDER FIRST END` reads the valid files, then the mutants FIRST … END − 1. It writes a
line of JSON before each one, and one after it.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from random import Random

from malformed import formats

ADDRESSES = 6 << 30
"""Bytes of addresses beyond those at the start: what asks for more has not looked at the file's size."""

MOST_VALID = 8
"""Valid files that are read first, to know what memory they take."""


def main(name: str, folder: Path, first: int, end: int) -> None:
    faulthandler.enable()
    # The protocol keeps a descriptor to itself: readers may print.
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def report(**fields: object) -> None:
        print(json.dumps(fields), file=reports, flush=True)

    format_ = formats.load(name, folder)
    path = folder / f"mutant{format_.suffix}"
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + ADDRESSES,) * 2)
    mutants = ((seed, format_.mutant(Random(f"{name} {seed}"))) for seed in range(first, end))
    for seed, content in itertools.chain(((-1, content) for content in format_.corpus[:MOST_VALID]), mutants):
        path.write_bytes(content)
        report(seed=seed)
        report(seed=seed, **measured(format_, path, content))
    report(done=True)


def measured(format_: formats.Format, path: Path, content: bytes) -> dict[str, object]:
    """Outcome (what `read` returned, or the exception's name) and trace, seconds of CPU time, bytes of memory.

    Time and memory are those of processes that `read` starts as well.
    """
    trace = ""
    Path("/proc/self/clear_refs").write_text("5")
    resident, begun = status("VmRSS"), time.process_time()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        outcome = format_.read(path, content)
    except Exception as error:
        outcome, trace = type(error).__name__, "".join(traceback.format_exception(error, limit=-6))[-3000:]
    seconds, grown = time.process_time() - begun, status("VmHWM") - resident
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "outcome": outcome,
        "trace": trace,
        "seconds": seconds + after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "nbytes": max(grown, 1024 * after.ru_maxrss if after.ru_maxrss > before.ru_maxrss else 0),
    }


def status(name: str) -> int:
    """Bytes of memory, by their name in /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(name)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
