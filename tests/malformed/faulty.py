"""A reader with every fault that is looked for: what watches readers must find each of them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

from malformed.formats import Format
from malformed.mutators import Mutator

FAULTS = ["none", "crash", "hang", "memory", "another error", "wrong", "a process hangs", "a process is slow", "none"]
SLOW = 0.75
"""Seconds of CPU time."""


class FaultyFormat(Format):
    """Does what the file says; the mutants are one of each fault, in order."""

    corpus = (b"none",)
    mutators: tuple[Mutator, ...] = ()

    def __init__(self, folder: Path) -> None:
        pass

    def mutant(self, rng: Random) -> bytes:
        drawn = rng.random()
        return next(fault for n, fault in enumerate(FAULTS) if Random(f"faulty {n}").random() == drawn).encode()

    def read(self, path: Path, content: bytes) -> str:
        fault = path.read_bytes().decode()
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        while fault == "hang":
            pass
        if fault == "memory":
            assert bytearray(300 << 20)[-1] == 0
        if fault == "another error":
            raise LookupError(fault)
        assert fault != "wrong"
        if fault.startswith("a process") and os.fork() == 0:
            while fault == "a process hangs" or time.process_time() < SLOW:
                pass
            os._exit(0)
        if fault.startswith("a process"):
            os.wait()
        return "read"
