"""Memory that native code works in: aligned, owned by an array; how much of it the machine has."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gradloom.compiler.errors import MemoryLimitError, ShapeError
from gradloom.compiler.program import ALIGNMENT
from gradloom.compiler.types import TensorType
from gradloom.runtime.control_groups import group_folders

LARGE = 1 << 28
"""Bytes from which on an array is compared with the memory that there is."""

HUGE_PAGE = 2 << 20
"""Bytes of a huge page of Linux on x86-64, and on aarch64 with pages of 4 KiB."""


def allocate(nbytes: int, alignment: int, zeroed: bool = True) -> np.ndarray:
    """Bytes whose address is a multiple of `alignment`; the system hands out their pages on first touch.

    What fills a huge page is asked for in such, where the system has them: pages of 4 KiB make rows of a matrix
    compete for entries of the TLB, and lie by chance on few sets of the L2 cache. Raises `MemoryError` where the
    system refuses.
    """
    if nbytes < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        memory = (np.zeros if zeroed else np.empty)(nbytes + alignment, np.uint8)
    else:
        alignment = max(alignment, HUGE_PAGE)
        memory = _huge_pages(nbytes + alignment)
    start = -address(memory) % alignment
    return memory[start : start + nbytes]


def _huge_pages(nbytes: int) -> np.ndarray:
    """Zeroed bytes for which the system is asked to use huge pages; it gives others where it has none left."""
    try:
        pages = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"Expected {nbytes} bytes of memory. Received from the system: {error}") from None
    with suppress(OSError):  # a kernel that was built without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def array(type: TensorType) -> np.ndarray:
    """A C-contiguous array, not yet filled, that begins at a cache line: vectors cross none, as in many of NumPy's."""
    return arrays([type])[0]


def arrays(types: Sequence[TensorType]) -> list[np.ndarray]:
    """An array for each type, as `array` makes them, all in one piece of memory: small ones share huge pages."""
    sizes = [-(-type.nbytes // ALIGNMENT) * ALIGNMENT for type in types]
    memory = allocate(sum(sizes), ALIGNMENT, zeroed=False)
    starts = itertools.accumulate(sizes, initial=0)
    return [
        memory[start : start + type.nbytes].view(type.dtype.numpy).reshape(type.shape)
        for start, type in zip(starts, types, strict=False)
    ]


def check_fits(type: TensorType, what: str) -> None:
    """Refuse an array before it is allocated: raises `ShapeError` or `MemoryLimitError`, with `what` it is.

    A system that promises more memory than there is would end the process when the array is filled.
    """
    try:
        type.checked()
    except ShapeError as error:
        raise ShapeError(f"{what}: {error}") from None
    if type.nbytes >= LARGE and type.nbytes > (most := physical_memory()):
        raise MemoryLimitError(
            f"{what}: Expected at most {most} bytes, what there is. Received: {type}, of {type.nbytes} bytes"
        )


def address(array: np.ndarray) -> int:
    """The address of an array's first element."""
    location: int = array.__array_interface__["data"][0]
    return location


def physical_memory(root: Path = Path("/")) -> int:
    """Bytes of the machine's memory, or what control groups leave this process if that is less.

    `root` is where the file systems `proc` and `sys` are looked for.
    """
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_memory_limits(root)])


def _memory_limits(root: Path) -> Iterator[int]:
    """The limit of each control group around this process, in bytes."""
    for folder in group_folders("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                text = (folder / name).read_text().strip()
            except (OSError, ValueError):
                continue
            if text.isdecimal():
                yield int(text)
