"""Processes killed, and disks full, while checkpoints are written: the old or the new one is there, and loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: object, before: Sequence[str] = ()) -> str:
    """Run a script that lies beside this file; return what it prints."""
    command = [*before, sys.executable, str(HERE / script), *map(str, arguments)]
    # One thread: forking is for processes that have no others, and what is tested here needs none.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "GRADLOOM_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(HERE.parent)  # what tests share
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
    return result.stdout


def test_a_killed_training_ends_as_if_it_had_not_been(times: Callable[[int, int], int], tmp_path: Path) -> None:
    """After each kill the checkpoint is the last one that was finished, or the one that was being written."""
    kills = times(4, 200)
    counts = json.loads(run("killed_trainings.py", tmp_path / "backup", kills, 0))
    assert counts["kills"] >= kills and counts["finished"] >= 1
    assert counts["while saving"] >= kills // 4


def test_a_killed_save_leaves_the_old_file_or_the_new_one(times: Callable[[int, int], int], tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    kills = times(6, 200)
    while_saving = json.loads(run("killed_saves.py", tmp_path / "saved", kills, 0))
    assert sum(while_saving.values()) >= kills // 2
    assert kills < 100 or min(while_saving.values()) >= kills // 20


@pytest.mark.parametrize("way", ["limit", "tmpfs"])
def test_a_full_disk_leaves_the_old_checkpoint(way: str, times: Callable[[int, int], int], tmp_path: Path) -> None:
    before = []
    if way == "tmpfs":
        before = ["unshare", "--mount"]
        probe = [*before, "mount", "-t", "tmpfs", "none", str(tmp_path)]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("a file system can be mounted by root only, and not in every container")
    points = times(3, 50)
    assert run("full_disks.py", tmp_path / "disk", points, 0, way, before=before) == f"{points}\n"
