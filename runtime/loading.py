"""Loads object code into the process: links it and gives its functions' addresses, without generating any code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradloom.compiler.forks import wait_for_llvm_at_forks
from gradloom.compiler.program import LAUNCH, STOP, WORKER, ProgramError


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
        try:
            self._tracker = builder.link(_linker(), "gradloom")
        except RuntimeError as error:
            size = sum(map(len, code))
            raise ProgramError(f"Expected object code that links. Received: {size} bytes, {error}") from None
        self.launch: int = self._tracker[LAUNCH]
        self.worker: int = self._tracker[WORKER]
        self.stop: int = self._tracker[STOP]


def _linker() -> Any:
    """An in-process linker of LLVM's for one library, which keeps it: it would never forget the names of libraries."""
    import llvmlite.binding as llvm

    wait_for_llvm_at_forks()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.create_lljit_compiler()
