"""LLVM on several processors: modules are worked off by this process and by others beside it.

llvmlite holds one lock for all of a process while LLVM works, so that its threads would only wait for one another. A
process beside this one runs this file: it reads the work's name and the target, then modules, and answers each with its
results; every message is its length in 8 bytes and that many bytes.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import IO

from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.target import Target

Work = Callable[[str, Target], tuple[bytes, ...]]

_log = logging.getLogger(__name__)


def object_code(module: str, target: Target) -> tuple[bytes, ...]:
    """The object code of a module."""
    return (codegen.compile_module(module, target),)


def texts(module: str, target: Target) -> tuple[bytes, ...]:
    """A module's optimized LLVM IR and its assembly."""
    optimized, assembly = codegen.texts(module, target)
    return optimized.encode(), assembly.encode()


WORK: dict[str, Work] = {"object_code": object_code, "texts": texts}


def each(work: Work, modules: Iterable[str], target: Target, processes: int) -> list[tuple[bytes, ...]]:
    """What `work`, one of `WORK`, makes of each module, in order, on so many processes at most.

    A process beside this one begins as soon as there is a second module, while `modules` goes on making more. One that
    cannot be started, or ends, leaves its module to this process, which also says what is wrong with a module.
    """
    waiting: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
    left: list[tuple[int, str]] = []
    results: dict[int, tuple[bytes, ...]] = {}
    helpers: list[threading.Thread] = []

    def help() -> None:
        task: tuple[int, str] | None = None
        try:
            with _Process(work, target) as process:
                while task := waiting.get():
                    results[task[0]] = process.ask(task[1])
                    codegen.compilations += 1
        except (OSError, EOFError) as error:
            _log.debug("LLVM goes on in this process alone: %s", error)
            left.extend([task] if task else [])

    try:
        for number, module in enumerate(modules):
            waiting.put((number, module))
            if number and len(helpers) < processes - 1:
                helpers.append(threading.Thread(target=help, name="gradloom-llvm"))
                helpers[-1].start()
        # As many ends as there are readers: each takes one.
        for _ in range(len(helpers) + 1):
            waiting.put(None)
        while task := waiting.get():
            results[task[0]] = work(task[1], target)
    finally:
        _drain(waiting, len(helpers))
        for helper in helpers:
            helper.join()
    # What a process that ended has left, or never took from the queue.
    for number, module in left:
        results[number] = work(module, target)
    return [results[number] for number in sorted(results)]


def _drain(waiting: queue.SimpleQueue[tuple[int, str] | None], readers: int) -> None:
    """Leave nothing but ends in the queue, so that its readers stop after what they are at."""
    while not waiting.empty():
        waiting.get()
    for _ in range(readers):
        waiting.put(None)


class _Process:
    """Another interpreter that runs this module."""

    def __init__(self, work: Work, target: Target) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise OSError("there is no interpreter to run beside this one")
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin, self._process.stdout
        self._begin = json.dumps({"work": work.__name__, "target": asdict(target)}).encode()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, module: str) -> tuple[bytes, ...]:
        """What the other process makes of a module."""
        if self._begin:
            _send(self._to, self._begin)
            self._begin = b""
        _send(self._to, module.encode())
        return tuple(_receive(self._from) for _ in range(int.from_bytes(_receive(self._from), "little")))


def _send(file: IO[bytes], message: bytes) -> None:
    file.write(len(message).to_bytes(8, "little") + message)
    file.flush()


def _receive(file: IO[bytes]) -> bytes:
    """The next message; raises `EOFError` where there is none, or not all of it."""
    size = file.read(8)
    message = file.read(int.from_bytes(size, "little"))
    if len(size) < 8 or len(message) < int.from_bytes(size, "little"):
        raise EOFError("the process beside this one ended")
    return message


def main() -> None:
    """Answer modules until there are no more."""
    # Ctrl-C reaches all processes of a terminal: the one that asked for the work decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin = json.loads(_receive(sys.stdin.buffer))
    work, target = WORK[begin["work"]], Target(**begin["target"])
    while True:
        try:
            module = _receive(sys.stdin.buffer).decode()
        except EOFError:
            return
        answer = work(module, target)
        _send(sys.stdout.buffer, len(answer).to_bytes(8, "little"))
        for part in answer:
            _send(sys.stdout.buffer, part)


if __name__ == "__main__":
    main()
