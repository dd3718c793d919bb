"""`plot_model`: what it writes without a program, and what it says where one is needed and missing."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import gradloom as gl
import networks
from small_files import small_files


def texts(path: Path) -> list[str]:
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_needs_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    path = tmp_path / "model.svg"
    drawing = gl.utils.plot_model(networks.mlp(), path, show_shapes=True, show_layer_names=True)
    assert drawing._repr_svg_() == path.read_text(encoding="utf-8")
    assert {"dense (Dense)", "(None, 128)", "flatten (Flatten)"} <= set(texts(path))


def test_boxes_say_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "model.svg"
    gl.utils.plot_model(networks.mlp(), path)
    plain = texts(path)
    assert "input" in plain and "argument" not in plain
    assert "Dense" in plain and not any("dense" in text or "None" in text for text in plain if "(" in text)
    gl.utils.plot_model(networks.mlp(), path, show_dtype=True, show_layer_activations=True, show_trainable=True)
    assert "float32, softmax, trainable" in texts(path) and "float32" in texts(path)


@pytest.mark.parametrize("name", ["model.svg", "model.dot", "model.png"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"Expected to_file in a folder that is there. Received: to_file='.*none"
    ):
        gl.utils.plot_model(networks.mlp(), tmp_path / "none" / name)


def test_nested_models_are_expanded(tmp_path: Path) -> None:
    path = tmp_path / "model.dot"
    gl.utils.plot_model(networks.branched(), path, show_layer_names=True)
    closed = path.read_text(encoding="utf-8")
    gl.utils.plot_model(networks.branched(), path, show_layer_names=True, expand_nested=True, rankdir="LR", dpi=60)
    opened = path.read_text(encoding="utf-8")
    assert "inner (Model)" in closed and "twice (Dense)" not in closed and "cluster" not in closed
    assert "inner (Model)" not in opened and "twice (Dense)" in opened and "cluster_0" in opened
    assert "rankdir=LR" in opened and "dpi=60" in opened and "rankdir=TB" in closed


def test_bitmaps_are_made_by_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name gets the DOT source and the format."""
    binary = tmp_path / "bin" / "dot"
    binary.parent.mkdir()
    binary.write_text('#!/bin/sh\n/bin/cat; echo "$1"\n')
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(binary.parent))
    path = tmp_path / "model.png"
    gl.utils.plot_model(networks.mlp(), path)
    written = path.read_text(encoding="utf-8")
    assert written.startswith("digraph") and written.endswith("-Tpng\n") and "dpi=200" in written
    binary.write_text("#!/bin/sh\necho no fonts >&2; exit 3\n")
    with pytest.raises(OSError, match="Received: no fonts"):
        gl.utils.plot_model(networks.mlp(), path)


@pytest.mark.parametrize("name", ["model.svg", "model.dot", "model.png"])
def test_a_drawing_that_finds_no_room_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    binary = tmp_path / "bin" / "dot"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\n/bin/cat\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(binary.parent))
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(OSError, match=name) as error, small_files(200):
        gl.utils.plot_model(networks.mlp(), path)
    assert error.value.filename == str(path) and path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == sorted([binary.parent, path])


def test_a_missing_program_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ImportError, match=r"to write \.png files.*graphviz.*\.svg"):
        gl.utils.plot_model(networks.mlp(), tmp_path / "model.png")
    with pytest.raises(ImportError, match=r"\.svg files"):
        gl.utils.plot_model(networks.mlp(), tmp_path / "model.svg", rankdir="LR")
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to_file='model.bmp'"):
        gl.utils.plot_model(networks.mlp(), "model.bmp")
    with pytest.raises(ValueError, match="rankdir='UP'"):
        gl.utils.plot_model(networks.mlp(), tmp_path / "model.svg", rankdir="UP")
    with pytest.raises(ValueError, match="plot_model"):
        gl.utils.plot_model(gl.Sequential([gl.layers.Dense(3)]), tmp_path / "model.svg")


def test_summary_of_nested_models_in_keras_form() -> None:
    lines: list[str] = []
    networks.branched().summary(print_fn=lines.append, expand_nested=True)
    rows = [line.split("│")[1].rstrip() for line in lines[0].splitlines() if "│" in line]
    at = rows.index(" inner (Model)")
    assert rows[at + 1 : at + 4] == ["    └ inner_input (InputLayer)", "    └ cut (ReLU)", "    └ twice (Dense)"]


def test_summary_expands_models_that_are_not_built_yet() -> None:
    lines: list[str] = []
    inner = gl.Sequential([gl.layers.Dense(2, name="within")], name="inner")
    gl.Sequential([inner], name="outer").summary(print_fn=lines.append, expand_nested=True)
    assert "└ within (Dense)" in lines[0]


@pytest.mark.parametrize("thing", [gl.layers.Dense(3, name="dense"), None, "model"])
def test_only_models_are_plotted(thing: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"^Expected a model. Received: {re.escape(repr(thing))}$"):
        gl.utils.plot_model(thing, tmp_path / "m.svg")
