"""LLVM on several processors: modules are worked off by this process and by others beside it.

llvmlite holds one lock for all of a process while LLVM works, so that its threads would only wait for one another. A
process beside this one runs this file: from its standard input it reads the work's name and the target, then modules,
and answers each with its results through a pipe; every message is its length in 8 bytes and that many bytes.
"""

from __future__ import annotations

import heapq
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

Task = tuple[int, int, str]
"""A module with its number, and before them what puts the longest first: its length, negated."""

END: Task = (1, 0, "")
"""Comes after all modules: there are no more."""

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

    A process beside this one begins as soon as there is a second module, while `modules` goes on making more; of those
    that wait, the longest is next. A process that cannot be started, or ends, leaves its module to this one, which also
    says what is wrong with a module.
    """
    waiting = _Waiting()
    left: list[Task] = []
    results: dict[int, tuple[bytes, ...]] = {}
    others: list[threading.Thread] = []

    def serve() -> None:
        task = END
        try:
            with _Process(work, target) as process:
                while (task := waiting.get()) != END:
                    results[task[1]] = process.ask(task[2])
                    codegen.compilations += 1
        except Exception as error:  # whatever it is, the work is done without another process
            _log.debug("LLVM goes on in this process alone: %s", error)
            left.extend([task] if task != END else [])

    count = 0
    try:
        for module in modules:
            waiting.put((-len(module), count, module))
            count += 1
            if count > 1 and len(others) < processes - 1:
                other = threading.Thread(target=serve, name="gradloom-llvm")
                try:
                    other.start()
                except RuntimeError as error:  # there may be no more threads
                    _log.debug("LLVM works in %d processes: %s", len(others) + 1, error)
                    processes = 1
                else:
                    others.append(other)
        # As many ends as there are readers: each takes one.
        for _ in range(len(others) + 1):
            waiting.put(END)
        while (task := waiting.get()) != END:
            results[task[1]] = work(task[2], target)
    finally:
        waiting.end(len(others))
        for other in others:
            other.join()
    # What a process was at that ended.
    for _, number, module in left:
        results[number] = work(module, target)
    return [results[number] for number in range(count)]


class _Waiting:
    """Modules that wait, the longest first. An interrupt leaves no lock behind, unlike in `queue.PriorityQueue`."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self._count: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put(self, task: Task) -> None:
        heapq.heappush(self._tasks, task)
        self._count.put(None)

    def get(self) -> Task:
        """Take the next one, when there is one."""
        self._count.get()
        return heapq.heappop(self._tasks)

    def end(self, readers: int) -> None:
        """Leave nothing but ends, so that readers stop after what they are at."""
        # At no moment there are fewer than a reader has counted that is about to take one.
        self._tasks[:] = [END] * (len(self._tasks) + readers)
        for _ in range(readers):
            self._count.put(None)


class _Process:
    """Another interpreter that runs this module."""

    def __init__(self, work: Work, target: Target) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise OSError("there is no interpreter to run beside this one")
        paths = os.pathsep.join(path for path in sys.path if path)
        # A pipe of its own for the answers: whatever a start of Python prints is not in them.
        answers, end = os.pipe()
        self._from = os.fdopen(answers, "rb")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
                pass_fds=[end],
            )
        except BaseException:
            self._from.close()
            raise
        finally:
            os.close(end)
        assert self._process.stdin
        self._to = self._process.stdin
        self._begin = json.dumps({"work": work.__name__, "target": asdict(target)}).encode()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._from.close()

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
    answers = os.fdopen(int(sys.argv[1]), "wb")
    begin = json.loads(_receive(sys.stdin.buffer))
    work, target = WORK[begin["work"]], Target(**begin["target"])
    while True:
        try:
            module = _receive(sys.stdin.buffer).decode()
        except EOFError:
            return
        answer = work(module, target)
        _send(answers, len(answer).to_bytes(8, "little"))
        for part in answer:
            _send(answers, part)


if __name__ == "__main__":
    main()
