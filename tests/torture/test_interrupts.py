"""Ctrl-C at random moments of `fit`: the model is that of a whole number of steps, and goes on working."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).with_name("interrupted_fits.py")


def test_an_interrupted_fit_leaves_a_whole_model(times: Callable[[int, int], int]) -> None:
    interrupts = times(4, 50)
    command = [sys.executable, str(SCRIPT), str(interrupts), "0"]
    # In a process of its own: an interrupt that comes late is none of pytest's.
    result = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
    counts = json.loads(result.stdout)
    assert counts["interrupts"] >= interrupts and counts["moments"] > interrupts // 4
