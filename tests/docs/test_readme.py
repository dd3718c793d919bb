"""The README's code runs as it stands there, and links and commands in the documentation lead somewhere."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gradloom.datasets import synthetic_fashion

    for prefix, split in zip(("train", "t10k"), synthetic_fashion.load_data(train=200, test=40), strict=True):
        for part, array in zip(("images-idx3", "labels-idx1"), split, strict=True):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / f"{prefix}-{part}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    monkeypatch.setenv("GRADLOOM_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # the code writes a file

    names: dict[str, object] = {}
    codes = blocks(ROOT / "README.md", "python")
    for number, code in enumerate(codes, 1):
        exec(compile(code, f"README.md, block {number}", "exec"), names)
    assert len(names["history"].history["val_accuracy"]) == 5  # type: ignore[attr-defined]
    assert str(names["svg"]).lstrip().startswith("<")
    assert "Total params: 101,770" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_make_target_that_is_named_exists() -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^)make ([a-z]+)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= known
