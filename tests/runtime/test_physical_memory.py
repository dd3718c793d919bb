"""How much memory there is: the machine's, or what control groups leave of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradloom.runtime.memory import physical_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "4096000\n"}, 4096000),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1024000\n",
                "sys/fs/cgroup/a/b/memory.max": "4096000\n",
            },
            1024000,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "nonsense\n"}, MACHINE),
        (
            {
                "proc/self/cgroup": "5:cpu:/c\n4:memory:/m\n",
                "sys/fs/cgroup/memory/m/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2048000\n",
                "sys/fs/cgroup/cpu/c/memory.limit_in_bytes": "1\n",
            },
            2048000,
        ),
    ],
)
def test_control_groups_bound_the_memory(files: dict[str, str], limit: int, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert physical_memory(tmp_path) == limit
