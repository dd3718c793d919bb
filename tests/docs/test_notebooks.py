"""The notebooks among the examples run, show what is stored in them, and are small."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import notebooks
from gradloom.compiler.llvm.target import host_levels
from gradloom.inspection.roof import Roof

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.rglob("*.ipynb"))


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set within reach, so that notebooks draw one; a given roof, which would take time to measure."""
    monkeypatch.delenv("GRADLOOM_DATA", raising=False)
    machine = Roof(threads=2, peak=1e12, cache=1e12, shared=1e12, memory=1e11, cache_bytes=500_000, shared_bytes=10**7)
    monkeypatch.setattr("gradloom.inspection.profiling.roof", lambda threads, seen=0.0: machine)


def test_there_is_one_about_inspection() -> None:
    assert FOLDER / "inspection.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
@pytest.mark.usefixtures("surroundings")
def test_notebook_shows_what_is_stored(path: Path) -> None:
    if "x86-64-v3" not in host_levels():
        pytest.skip("the notebooks show code for x86-64-v3")
    stored = notebooks.read(path)
    renew = f"where that is right, run python tests/notebooks.py {path.relative_to(FOLDER.parent)}"
    assert not notebooks.differences(stored, notebooks.outputs(path)), renew


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_stored_with_its_pictures_and_small(path: Path) -> None:
    notebook = notebooks.read(path)
    cells = notebooks.code_cells(notebook)
    assert notebook["nbformat"] == 4
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    text = path.read_text(encoding="utf-8")
    assert text.count("<svg") >= 3
    assert len(text.encode()) < 400_000
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_other_outputs_are_found_and_times_are_not(tmp_path: Path) -> None:
    def cell(source: str, *tags: str) -> dict[str, object]:
        return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": [source], "outputs": []}

    path = tmp_path / "small.ipynb"
    notebook = {"cells": [cell("x = 1"), cell("print(x)\nx + 1"), cell("import time\ntime.time()", "varies")]}
    path.write_text(notebooks.json.dumps(notebook))
    shown = notebooks.outputs(path)
    assert shown[0] == [] and shown[1][0]["text"] == ["1\n"] and shown[1][1]["data"] == {"text/plain": ["2"]}
    assert [line.split(" ")[1] for line in notebooks.differences(notebook, shown)] == ["2", "3"]
    for made, outputs in zip(notebook["cells"], copy.deepcopy(shown), strict=True):
        made["outputs"] = outputs
    notebook["cells"][2]["outputs"][0]["data"]["text/plain"] = ["0.0"]  # type: ignore[index]
    assert not notebooks.differences(notebook, shown)
    notebook["cells"][1]["outputs"][0]["text"] = ["2\n"]  # type: ignore[index]
    assert notebooks.differences(notebook, shown)
