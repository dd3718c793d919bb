"""The control groups that this process runs in: where their limits on processors and memory are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def group_folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """The folders of the groups around this process that `controller` ("cpu", "memory") governs, of both versions.

    A group is bound by the limits of the groups around it, too. `root` is where the file systems `proc` and `sys` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [root / "sys/fs/cgroup" / mount for mount in dict.fromkeys((controller, controllers))]
        for base in mounts if controllers else [root / "sys/fs/cgroup"]:
            group = base / path.strip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(base):
                    yield folder
