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
    if not gc.isenabled() and not _sparing:  # Somebody else has switched it off.
        yield
        return
    compilation = object()
    try:
        _sparing.add(compilation)
        gc.disable()
        yield
    finally:
        _sparing.discard(compilation)
        if not _sparing:
            gc.enable()


_sparing: set[object] = set()
"""The compilations that go on in threads of this process; with the last of them the collector comes back."""


def _resume() -> None:
    """Switch the collector on in a forked child, where the thread that would have done it is not."""
    if _sparing:
        _sparing.clear()
        gc.enable()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_resume)
