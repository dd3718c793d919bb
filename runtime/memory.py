"""Memory that native code works in: zeroed, aligned, owned by an array."""

from __future__ import annotations

import numpy as np


def allocate(nbytes: int, alignment: int) -> np.ndarray:
    """Zeroed bytes whose address is a multiple of `alignment`; the system hands out their pages on first touch."""
    memory = np.zeros(nbytes + alignment, np.uint8)
    start = -address(memory) % alignment
    return memory[start : start + nbytes]


def address(array: np.ndarray) -> int:
    """The address of an array's first element."""
    location: int = array.__array_interface__["data"][0]
    return location
