"""The memory report: buffers as planned, the peak counted anew, and its chart."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

import networks
from gradloom.compiler.pipeline import lower
from gradloom.inspection.lifetimes import LiveBuffer, MemoryReport


@pytest.mark.parametrize("make", [networks.mlp, networks.darknet], ids=lambda make: make.__name__)
def test_buffers_and_peak_are_those_of_the_plan(make: object) -> None:
    model = make()  # type: ignore[operator]
    inspection = model.inspect(batch_size=4)
    report, plan = inspection.memory, lower(inspection.stages["fused"].graph).memory
    planned = {(slot.name, slot.nbytes, slot.offset, slot.first, slot.last) for slot in plan.slots.values()}
    assert {(b.name, b.nbytes, b.offset, b.first, b.last) for b in report.buffers} == planned
    assert report.arena_bytes == plan.arena_bytes and report.scratch_bytes == plan.scratch_bytes
    at, live = plan.peak()
    assert report.peak_bytes == sum(slot.nbytes for slot in live) and report.peak_call == at
    assert {buffer.name for buffer in report.holders} == {slot.name for slot in live}
    assert all(buffer.owner for buffer in report.buffers)
    layers = {layer.name for layer in model.layers} | {"input", "loss", "accuracy", "adam", "sgd"}
    assert all(set(buffer.layers) <= layers for buffer in report.buffers)
    assert report is inspection.memory


REPORT = MemoryReport(
    "small <&>",
    (
        LiveBuffer("a", 100, 0, 0, 1, "first/matmul", ("first",)),
        LiveBuffer("b", 40, 100, 1, 2, "second/add", ("second",)),
        LiveBuffer("c", 60, 0, 2, 3, "second/exp", ("second",)),
    ),
    192,
    0,
    4,
)


def test_bytes_alive_during_each_call() -> None:
    assert REPORT.alive == [100, 140, 100, 60]
    assert (REPORT.peak_bytes, REPORT.peak_call) == (140, 1)
    assert [buffer.name for buffer in REPORT.holders] == ["a", "b"]


def test_text_and_json_have_every_buffer() -> None:
    lines = REPORT.text().splitlines()
    assert "peak 140 bytes in call 1, held by a (100), b (40)" in lines[1]
    assert [line.split() for line in lines[3:]] == [
        ["a", "100", "0", "0–1", "first/matmul"],
        ["b", "40", "100", "1–2", "second/add"],
        ["c", "60", "0", "2–3", "second/exp"],
    ]
    shown = json.loads(json.dumps(REPORT.json()))
    assert shown["alive"] == REPORT.alive and shown["peak_bytes"] == 140
    assert [buffer["owner"] for buffer in shown["buffers"]] == ["first/matmul", "second/add", "second/exp"]


def test_the_chart_draws_lifetimes_to_scale() -> None:
    root = ElementTree.fromstring(REPORT.svg())
    space = {"s": "http://www.w3.org/2000/svg"}
    drawn = {}
    for group in root.findall("s:g", space):
        title, rectangle = group.find("s:title", space), group.find("s:rect", space)
        assert title is not None and title.text and rectangle is not None
        drawn[title.text[0]] = {key: float(rectangle.get(key, "nan")) for key in ("x", "y", "width", "height")}
    assert set(drawn) == {"a", "b", "c"}
    assert drawn["a"]["width"] == drawn["b"]["width"] == drawn["c"]["width"]
    assert drawn["b"]["y"] == pytest.approx(drawn["a"]["y"] + drawn["a"]["height"], abs=0.2)
    assert drawn["a"]["height"] / drawn["c"]["height"] == pytest.approx(100 / 60, rel=0.01)
    assert drawn["c"]["x"] == pytest.approx(drawn["a"]["x"] + drawn["a"]["width"], abs=0.2)


def test_a_program_without_intermediate_results_has_a_report() -> None:
    empty = MemoryReport("none", (), 0, 0, 1)
    assert empty.peak_bytes == 0 and "held by nothing" in empty.text()
    ElementTree.fromstring(empty.svg())
