"""The commands that the documentation shows do what is said: each page's run in order, in a folder of their own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gradloom.command import main

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "python -m gradloom "
CHECK = 3
"""The exit code of a check that came out otherwise than it should: a right graph gives `reduce` nothing to do."""


def commands(page: Path) -> list[list[str]]:
    """The arguments of the commands in a page's blocks marked `sh`."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(PREFIX)]
    return [shlex.split(line.removeprefix(PREFIX), comments=True) for line in lines]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tour.md"], ids=lambda page: page.name)
def test_commands_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    shown = commands(page)
    assert len(shown) >= 2
    for arguments in shown:
        code = main(arguments)
        said = capsys.readouterr()
        assert code == (CHECK if arguments[0] == "reduce" else 0), f"{arguments}: {said.err}"
        if "--output" in arguments:
            assert Path(arguments[arguments.index("--output") + 1]).stat().st_size
