"""Fixtures of the tests of the front end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_runs import write_script


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The path of a script with models, whose neighbour no other test has imported."""
    sys.modules.pop("neighbour", None)
    return write_script(tmp_path)
