"""Garbage collection, and where it is spared: while graphs are built and compiled."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Spare Python's cyclic garbage collector looks at objects that all live until the end of a compilation.

    There are hundreds of thousands of them, and it would look at each a dozen times: a sixth of the time of a large
    program, and a third where it comes from the cache. Nothing of the result depends on it.
    """
    if not gc.isenabled():
        yield
        return
    _sparing.append(True)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        _sparing.pop()


_sparing: list[bool] = []
"""Whether the collector is off for a thread of this process."""


def _resume() -> None:
    """Switch the collector on in a forked child, where the thread that would have done it is not."""
    if _sparing:
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_resume)
