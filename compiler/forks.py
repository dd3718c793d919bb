"""LLVM over forks: a child finds its locks free, whatever other threads of the parent did."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache


@cache
def wait_for_llvm_at_forks() -> None:
    """Have forks wait until no thread is inside of LLVM: in the child its locks would be taken for ever, by nobody.

    llvmlite holds one lock during each call of LLVM, also where objects are disposed of at any time.
    """
    from llvmlite.binding import ffi

    # It has no public name; tests/frontend/test_forks.py sees to it that it is there.
    lock = getattr(ffi.lib, "_lock", nullcontext())

    def release() -> None:
        lock.__exit__(None, None, None)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.__enter__, after_in_parent=release, after_in_child=release)
