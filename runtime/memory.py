"""Memory that native code works in: zeroed, aligned, owned by an array; how much of it the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gradloom.runtime.control_groups import group_folders


def allocate(nbytes: int, alignment: int) -> np.ndarray:
    """Zeroed bytes whose address is a multiple of `alignment`; the system hands out their pages on first touch."""
    memory = np.zeros(nbytes + alignment, np.uint8)
    start = -address(memory) % alignment
    return memory[start : start + nbytes]


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
