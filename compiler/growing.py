"""A sequence that is made while it is read, so that later stages of the compiler begin before earlier ones end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload
from weakref import WeakSet

T = TypeVar("T")


class Growing(Sequence[T]):
    """The items of `source`, each made when a reader first comes to it, and then kept.

    Its length is known, and an item is found by its number, once all are made. Several threads may read it: one makes
    the next item while the others wait for it. If `source` raises, or is interrupted, the sequence stays without an
    end: `broken` is called, which may forget it, and every reader that comes so far gets a `RuntimeError`. So it is in
    a forked child if another thread was making an item, which is not there to go on.
    """

    def __init__(self, source: Iterator[T], broken: Callable[[], None] = lambda: None) -> None:
        self._source = source
        self._broken = broken
        self._made: list[T] = []
        self._error: BaseException | None = None
        self._lock = threading.RLock()
        _all.add(self)

    def __iter__(self) -> Iterator[T]:
        place = 0
        while place < len(self._made) or self._grow(place):
            yield self._made[place]
            place += 1

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        return self._all()[place]

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> list[T]:
        while self._grow(len(self._made)):
            pass
        return self._made

    def _grow(self, place: int) -> bool:
        """Make the item at `place`, which is the next one; return whether there is one."""
        with self._lock:
            if place < len(self._made):  # another thread was faster
                return True
            if self._error is not None:
                raise RuntimeError(f"Expected a sequence made to its end. Received: {self._error!r} in between")
            try:
                self._made.append(next(self._source))
            except StopIteration:
                return False
            except BaseException as error:
                self._break(error)
                raise
            return True

    def _break(self, error: BaseException) -> None:
        self._error = error.with_traceback(None)
        self._broken()

    def _after_fork(self) -> None:
        """In a forked child: give up what another thread was making."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()
            self._break(RuntimeError("a fork"))


_all = WeakSet[Growing[Any]]()


def _after_fork() -> None:
    for growing in list(_all):
        growing._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
