"""Reports: one valid HTML file without references to the outside, whose tables refer to what there is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gradloom as gl
from gradloom.compiler.llvm import codegen
from gradloom.inspection import GRAPH_STAGES, Inspection
from gradloom.inspection.report import page, report_html

VOID = {"meta", "link", "input"}


def classifier() -> gl.Model:
    model = gl.Sequential([gl.Input((6,)), gl.layers.Dense(5, activation="relu"), gl.layers.Dense(3)], name="small")
    loss = gl.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=gl.optimizers.SGD(0.1, momentum=0.9), loss=loss, metrics=["accuracy"])
    return model


@pytest.fixture
def inspection() -> Inspection:
    return classifier().inspect(batch_size=4)


class Page(HTMLParser):
    """Checks that elements are closed in order; keeps attributes, and the text of what has an id or is a script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, str] = {}
        self.current = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        self.ids += [values["id"]] if "id" in values else []
        self.current = values.get("id", tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.current = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.current] = self.texts.get(self.current, "") + data


def unpacked(text: str) -> str:
    return zlib.decompress(base64.b64decode(text)).decode()


def document_of(html: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(unpacked(Page(html).texts["document"]))
    return document


def test_page_is_well_formed_and_loads_nothing(inspection: Inspection) -> None:
    html = report_html(inspection)
    found = Page(html)
    assert len(set(found.ids)) == len(found.ids)
    assert [value for _, name, value in found.attributes if name == "src"] == []
    assert [value for _, name, value in found.attributes if name == "href"] == ["data:,"]
    code = page._file("style.css") + "".join(map(page._file, page.SCRIPTS))
    assert re.findall(r"https?://[^\"]+", code) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|@import|url\((?!#)", code)


def test_policy_allows_the_page_and_nothing_else(inspection: Inspection) -> None:
    found = Page(report_html(inspection))
    policy = next(
        value for tag, name, value in found.attributes if (tag, name) == ("meta", "content") and "src" in value
    )
    digests = [
        "sha256-" + base64.b64encode(hashlib.sha256(found.texts[part].encode()).digest()).decode()
        for part in ("script", "style")
    ]
    assert policy.startswith("default-src 'none'")
    assert f"script-src '{digests[0]}'" in policy
    assert f"style-src '{digests[1]}'" in policy


def test_text_of_graphs_stands_in_the_page(inspection: Inspection) -> None:
    texts = Page(report_html(inspection)).texts
    for name in inspection.stages:
        if name in GRAPH_STAGES or name in ("layers", "memory"):
            assert texts[f"text-{name}"] == "\n" + inspection.stages[name].text()


def test_long_texts_are_packed(inspection: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PLAIN_BYTES", 1000)
    texts = Page(report_html(inspection)).texts
    assert "text-assembly" not in texts
    assert unpacked(texts["packed-assembly"]) == inspection.stages["assembly"].text()


def test_everything_named_exists(inspection: Inspection) -> None:
    document = document_of(report_html(inspection))
    stages = {stage["name"]: stage for stage in document["stages"]}
    count = {name: len(stage.get("number", ())) for name, stage in stages.items()} | {
        "scheduled": len(document["calls"])
    }
    for name, stage in stages.items():
        if stage["kind"] != "graph":
            continue
        columns = ("op", "role", "type", "attributes", "layer", "layers")
        assert all(len(stage[column]) == count[name] for column in (*columns, "part", "origin", "inputs", "next"))
        assert all(0 <= text < len(document["strings"]) for column in columns for text in stage[column])
        assert all(operand < node for node, operands in enumerate(stage["inputs"]) for operand in operands)
        assert all(0 <= target < count[stage["following"]] for targets in stage["next"] for target in targets)
        assert all(0 <= origin < len(document["origins"]) for origin in stage["origin"])
        assert all(0 <= member < count[name] for group in stage["groups"] for member in group["members"])
    source = set(stages["gradient"]["number"])
    assert all(forward in source or forward == -1 for _, _, forward in document["sources"])
    for call in document["calls"]:
        assert 0 <= call["function"] < len(document["functions"])
        assert all(0 <= member < count["fused"] for member in call["members"])


def test_every_node_that_computes_leads_to_a_kernel(inspection: Inspection) -> None:
    fused = next(stage for stage in document_of(report_html(inspection))["stages"] if stage["name"] == "fused")
    members = {member for group in fused["groups"] for member in group["members"]}
    assert members
    assert all(fused["next"][node] for node in members)


def test_kernels_have_their_code(inspection: Inspection) -> None:
    html = report_html(inspection)
    document, texts = document_of(html), Page(html).texts
    for stage, begin in (("scheduled", "kernel {}("), ("llvm", "define void @{}("), ("assembly", "{}:")):
        lines = texts[f"text-{stage}"].removeprefix("\n").splitlines()
        for function in document["functions"]:
            first, number = function[stage]
            assert lines[first].startswith(begin.format(function["name"])[:12])
            assert function["name"] in lines[first]
            assert first + number <= len(lines)


def test_parts_of_a_step(inspection: Inspection) -> None:
    document = document_of(report_html(inspection))
    gradient = next(stage for stage in document["stages"] if stage["name"] == "gradient")
    strings = document["strings"]
    parts: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
    for op, layer, part in zip(gradient["op"], gradient["layer"], gradient["part"], strict=True):
        parts[part].add(f"{strings[layer]}: {strings[op]}")
    assert {"dense: dense/kernel", "dense: matmul", "dense_1: matmul"} <= parts[0]
    assert "dense_1: matmul" in parts[1]
    assert "dense: sgd/dense_kernel_momentum" in parts[2]
    assert not any(entry.startswith(("loss", "accuracy", "sgd")) for entry in parts[2])


def test_nodes_share_the_time_of_a_kernel_by_their_work(inspection: Inspection) -> None:
    document = document_of(report_html(inspection))
    strings, fused = document["strings"], next(s for s in document["stages"] if s["name"] == "fused")
    products = 0
    for call in document["calls"]:
        assert len(call["shares"]) == len(call["members"])
        assert not call["shares"] or sum(call["shares"]) == pytest.approx(1, abs=0.001 * len(call["shares"]))
        ops = [strings[fused["op"][node]] for node in call["members"]]
        if "matmul" in ops and len(ops) > 2:  # and not one of so many nodes
            products += 1
            assert call["shares"][ops.index("matmul")] > 0.5
    assert products


def test_a_report_shows_no_other_profile(inspection: Inspection, tmp_path: Path) -> None:
    other: Any = SimpleNamespace(title="graph 'other'")
    for profile, received in ((other, "that of graph 'other'"), (3, "3")):
        with pytest.raises(ValueError, match=f"Expected the profile of 'small'.* Received: {received}"):
            inspection.save(tmp_path / "report.html", profile)
    assert not list(tmp_path.iterdir())


def test_equal_input_gives_equal_reports() -> None:
    first = report_html(classifier().inspect(batch_size=4))
    gl.utils.clear_session()
    assert report_html(classifier().inspect(batch_size=4)) == first


def test_small_report_is_small(inspection: Inspection) -> None:
    assert len(report_html(inspection)) < 500_000


def test_function_without_layers() -> None:
    spec = gl.TensorSpec((3,), "float32")
    html = report_html(gl.inspect(lambda x: gl.ops.exp(x) + 1.0, spec))
    assert document_of(html)["stages"][0]["name"] == "forward"


def test_markup_in_names_stays_text() -> None:
    model = gl.Sequential([gl.Input((2,)), gl.layers.Dense(2)], name="<b>{{script}}&amp;")
    found = Page(report_html(model.inspect(batch_size=1, mode="predict")))
    assert "<b>{{script}}&amp;" in found.texts["title"]


def test_save_returns_the_path(inspection: Inspection, tmp_path: Path) -> None:
    path = inspection.save(tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == report_html(inspection)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_save_leaves_the_old_file_when_it_fails(
    broken: str, inspection: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    target = tmp_path / "report.html"
    target.write_text("before")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        inspection.save(target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_names_the_path_that_was_asked_for(tmp_path: Path) -> None:
    inspection = gl.inspect(gl.ops.exp, gl.TensorSpec((3,), "float32"))
    missing = tmp_path / "missing" / "report.html"
    with pytest.raises(FileNotFoundError) as error:
        inspection.save(missing)
    assert error.value.filename == str(missing)
    assert str(missing.parent) in error.value.strerror
    folder = tmp_path / "folder.html"
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as error_:
        inspection.save(folder)
    assert error_.value.filename == str(folder)


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_other_endings_than_that_of_a_page_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"path ending in \.html or \.htm\. Received: '.*{name}'"):
        gl.inspect(gl.ops.exp, gl.TensorSpec((3,), "float32")).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_second_report_of_a_model_needs_no_llvm() -> None:
    first = report_html(classifier().inspect(batch_size=4))
    before = codegen.compilations
    gl.utils.clear_session()
    assert report_html(classifier().inspect(batch_size=4)) == first
    assert codegen.compilations == before
