"""`profile` and `report`: what a step's time goes to, and everything in one file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_runs import NORMALIZED, error, output

QUICK = ("--batch-size", "2", "--seconds", "0.05")


def test_a_profile_has_kernels_and_layers_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, chart, trace, text = (tmp_path / name for name in ("model.py", "p.svg", "t.json", "p.txt"))
    script.write_text(NORMALIZED + "model.compile('adam', 'mse')\n")
    shown = output(capsys, "profile", str(script), *QUICK, "--svg", str(chart), "--trace", str(trace))
    for word in ("normalization", "dense", "adam", "GFLOP/s"):
        assert word in shown
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")
    assert json.loads(trace.read_text())["traceEvents"]
    figures = json.loads(output(capsys, "profile", str(script), *QUICK, "--mode", "predict", "--json"))
    assert figures["kernels"] and figures["layers"] and figures["wall_seconds"] > 0
    assert output(capsys, "profile", str(script), *QUICK, "--output", str(text)) == ""
    assert "dense" in text.read_text()


def test_a_graph_file_is_profiled(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "step.ir"
    output(capsys, "show", f"{script}:model", "--stage", "gradient", "--output", str(file))
    assert "dense" in output(capsys, "profile", str(file), "--seconds", "0.05")


def test_a_report_is_one_page(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert output(capsys, "report", f"{script}:model", "--output", str(page)) == f"{page}\n"
    plain = page.read_text()
    assert "<html" in plain and "assembly" in plain
    assert output(capsys, "report", f"{script}:model", "--output", str(page), "--profile") == f"{page}\n"
    assert len(page.read_text()) > len(plain)
    missing = tmp_path / "absent" / "report.html"
    assert f"No such folder as {missing.parent}" in error(capsys, "report", f"{script}:model", "--output", str(missing))
