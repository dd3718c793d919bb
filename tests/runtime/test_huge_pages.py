"""Memory for native code: aligned, zeroed, writable, and large pieces in huge pages."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest

from gradloom.runtime import memory
from gradloom.runtime.memory import HUGE_PAGE, address, allocate

MAPPINGS = Path("/proc/self/smaps")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
"""Where a kernel has them."""


def flags_of(place: int) -> list[str] | None:
    """The kernel's flags of the mapping that holds an address, None where there is none."""
    inside = False
    for line in MAPPINGS.read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, stop = (int(part, 16) for part in first.split("-"))
            inside = start <= place < stop
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    return None


@pytest.mark.parametrize("nbytes", [1, 100, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 7])
@pytest.mark.parametrize("alignment", [64, 256])
def test_memory_is_aligned_zeroed_and_writable(nbytes: int, alignment: int) -> None:
    piece = allocate(nbytes, alignment)
    assert piece.nbytes == nbytes
    assert address(piece) % alignment == 0
    assert not piece.any()
    piece[:] = 255
    assert piece.all()


@pytest.mark.skipif(
    not MAPPINGS.exists() or not HUGE_PAGES.exists() or not hasattr(mmap, "MADV_HUGEPAGE"),
    reason="needs Linux's list of mappings and huge pages",
)
def test_large_memory_asks_for_huge_pages_and_goes_back_when_unused() -> None:
    large = allocate(2 * HUGE_PAGE, 64)
    place = address(large)
    assert place % HUGE_PAGE == 0
    assert "hg" in (flags_of(place) or [])
    del large
    gc.collect()
    assert "hg" not in (flags_of(place) or [])


def test_small_memory_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its pages may be huge all the same: NumPy asks for them when it enlarges the heap.
    monkeypatch.setattr(memory, "_huge_pages", lambda nbytes: pytest.fail(f"{nbytes} bytes in huge pages"))
    allocate(HUGE_PAGE - 1, 64)


def test_more_memory_than_any_machine_has_is_refused() -> None:
    with pytest.raises(MemoryError):
        allocate(1 << 60, 64)
