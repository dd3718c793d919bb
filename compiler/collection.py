"""Garbage collection, and where it is spared: while graphs are built and compiled."""

from __future__ import annotations

import gc
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
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
