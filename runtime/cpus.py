"""How many processors this process may use: what the affinity and the control groups leave it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gradloom.runtime.control_groups import group_folders


def available_cpus(root: Path = Path("/")) -> int:
    """The processors of the affinity mask, or as many as the CPU quota amounts to (rounded up) if that is less.

    `root` is where the file systems `proc` and `sys` are looked for.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """The limit of each control group around this process, in processors rounded up."""
    for folder in group_folders("cpu", root):
        yield from _quota(folder)


def _quota(folder: Path) -> Iterator[int]:
    for read in (_read_v2, _read_v1):
        try:
            quota, period = read(folder)
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            yield -(-quota // period)


def _read_v2(folder: Path) -> tuple[int, int]:
    quota, period = (folder / "cpu.max").read_text().split()
    return (0 if quota == "max" else int(quota)), int(period)


def _read_v1(folder: Path) -> tuple[int, int]:
    return int((folder / "cpu.cfs_quota_us").read_text()), int((folder / "cpu.cfs_period_us").read_text())
