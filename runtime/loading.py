"""Loads object code into the process: links it and gives its functions' addresses, without generating any code."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from gradloom.compiler.program import LAUNCH, STOP, WORKER, ProgramError

_numbers = itertools.count(1)
_linking = threading.RLock()
"""Held while LLVM links: a fork in between would leave the child with LLVM's own locks taken, by nobody."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_linking.acquire, after_in_parent=_linking.release, after_in_child=_linking.release)


class Library:
    """Object files linked in memory, ready to be called; unloaded when nothing refers to it any more.

    `launch`, `worker` and `stop` are the addresses of the functions that `gradloom.compiler.program` describes.
    """

    def __init__(self, code: Sequence[bytes]) -> None:
        import llvmlite.binding as llvm

        builder = llvm.JITLibraryBuilder().add_current_process()
        for file in code:
            builder.add_object_img(file)
        for name in (LAUNCH, WORKER, STOP):
            builder.export_symbol(name)
        with _linking:
            try:
                self._tracker = builder.link(_linker(), f"gradloom-{next(_numbers)}")
            except RuntimeError as error:
                raise ProgramError(
                    f"Expected object code that links. Received: {sum(map(len, code))} bytes, {error}"
                ) from None
        self.launch: int = self._tracker[LAUNCH]
        self.worker: int = self._tracker[WORKER]
        self.stop: int = self._tracker[STOP]


@cache
def _linker() -> Any:
    """LLVM's in-process linker, one for all libraries."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()
