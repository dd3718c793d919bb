"""The thread pool: how many threads programs run on, and the Python threads that wait in native code for work."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.program import POOL_BYTES, SEMAPHORE_OFFSET, SLOT_BYTES, pool_bytes
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.loading import Library
from gradloom.runtime.memory import address, allocate

MAX_THREADS = 1024

_LaunchFunction = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)
_PoolFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


class ThreadCountError(GradloomError, ValueError):
    """A number of threads that cannot be."""


class Launcher:
    """Calls a library's `launch`: natively, without Python's global lock, until all steps are done."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._launch = _LaunchFunction(library.launch)

    def __call__(self, arguments: int, arena: int, first: int, steps: int, threads: int) -> None:
        """Run on `threads` threads if there are so many; a run on several threads waits until no other one is on."""
        if threads == 1:
            self._launch(None, arguments, arena, first, steps, 1)
            return
        with _state.turn:
            pool = _state.pool_of(threads, self._library)
            self._launch(pool.address, arguments, arena, first, steps, min(threads, pool.threads))


class _Pool:
    """Worker threads, and the memory through which the caller hands them jobs.

    Its workers run the code of one library, which stays loaded as long; they run jobs of every library.
    """

    def __init__(self, threads: int, library: Library) -> None:
        self.memory = allocate(pool_bytes(threads), SLOT_BYTES)
        self.address = address(self.memory)
        self.wanted = threads
        self._library = library
        self._workers: list[threading.Thread] = []
        try:
            for thread in range(1, threads):
                self._start(thread)
        except (RuntimeError, OSError):
            pass  # The system has no more threads, or no semaphores: programs run on those that there are.
        except BaseException:
            self.stop()
            raise

    def _start(self, thread: int) -> None:
        semaphore = self.address + POOL_BYTES + thread * SLOT_BYTES + SEMAPHORE_OFFSET
        if ctypes.CDLL(None).sem_init(ctypes.c_void_p(semaphore), 0, 0) != 0:
            raise OSError("sem_init failed")
        worker = threading.Thread(
            target=_work, args=(self._library, self.memory, thread), name=f"gradloom-{thread}", daemon=True
        )
        # It is listed first: whatever interrupts the start, `stop` reaches a worker that did start.
        self._workers.append(worker)
        try:
            worker.start()
        except RuntimeError:
            self._workers.pop()
            raise

    @property
    def threads(self) -> int:
        """How many threads there are, with the caller."""
        return 1 + len(self._workers)

    def stop(self) -> None:
        """Have the workers return, and wait for them."""
        _PoolFunction(self._library.stop)(self.address, self.threads)
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()


def _work(library: Library, memory: np.ndarray, thread: int) -> None:
    """A worker's life. It refers to code and memory by itself, so that neither goes while it is in there."""
    _PoolFunction(library.worker)(address(memory), thread)


class _State:
    """The process's pool, its turn (held during a run on several threads), and the number of threads."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.closed = False
        self.forget()

    def forget(self) -> None:
        """Start anew: in a forked child neither the workers nor the holder of the lock exist."""
        self.turn = threading.Lock()
        self.pool: _Pool | None = None

    def pool_of(self, threads: int, library: Library) -> _Pool:
        """A pool of at least so many threads, or of as many as the system gives; the caller holds the turn."""
        if self.pool is None or self.pool.wanted < threads:
            self.drop()
            self.pool = _Pool(1 if self.closed else threads, library)
        return self.pool

    def drop(self) -> None:
        """Stop the workers; the caller holds the turn."""
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.stop()

    def close(self) -> None:
        """Stop the workers at the end of the process; what runs afterwards runs on its caller's thread."""
        # A daemon thread may still be training: it is given a moment, then left to the end of the process.
        if self.turn.acquire(timeout=5):
            self.closed = True
            self.drop()
            self.turn.release()


_state = _State()
atexit.register(_state.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_state.forget)


def get_num_threads() -> int:
    """The number of threads that programs run on.

    Unless `set_num_threads` said otherwise: the processors that affinity and control groups leave to the process, or
    `GRADLOOM_NUM_THREADS` if that is less. Raises `ThreadCountError` where that is no positive number.
    """
    if _state.count is None:
        _state.count = _default_count()
    return _state.count


def set_num_threads(threads: int) -> None:
    """Run programs on so many threads from now on; results do not depend on it.

    Waits for a run that is on. Raises `ThreadCountError` for less than 1 or more than 1024.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ThreadCountError(f"Expected a number of threads from 1 to {MAX_THREADS}. Received: {threads!r}")
    _state.count = threads
    with _state.turn:
        if _state.pool is not None and _state.pool.threads > threads:
            _state.drop()


def _default_count() -> int:
    cpus = min(available_cpus(), MAX_THREADS)
    text = os.environ.get("GRADLOOM_NUM_THREADS", "").strip()
    if not text:
        return cpus
    if not text.isdecimal() or int(text) < 1:
        raise ThreadCountError(f"Expected a positive number in GRADLOOM_NUM_THREADS. Received: {text!r}")
    return min(cpus, int(text))
