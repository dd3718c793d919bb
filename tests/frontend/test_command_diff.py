"""`diff`: stages of one target with each other, and two targets, aligned by structure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_runs import error, output
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler import parse
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.ir_text import print_graph
from gradloom.inspection.alignment import aligned_texts
from gradloom.testing import graphs


def test_stages_of_a_model_differ_by_the_rules_that_applied(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "diff", f"{script}:model", "--from", "gradient", "--to", "simplified")
    assert "@" not in text and text.strip()
    assert output(capsys, "diff", f"{script}:model") == output(
        capsys, "diff", f"{script}:model", "--from", "simplified", "--to", "fused"
    )


def test_changes_that_are_like_others_are_shown_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "deep.py"
    layers = "*[gl.layers.Dense(4, activation='relu') for _ in range(9)]"
    script.write_text(f"import gradloom as gl\nmodel = gl.Sequential([gl.Input((4,)), {layers}])\n")
    short, long = (output(capsys, "diff", str(script), *options) for options in ((), ("--all",)))
    assert "and 8 like it" in short and "like it" not in long
    assert all(f"# dense_{number}\n" in long for number in range(1, 9)) and "# dense_5\n" not in short


def test_one_changed_op_is_one_changed_line(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one.ir", tmp_path / "two.ir"
    output(capsys, "show", f"{script}:model", "--stage", "gradient", "--output", str(one))
    two.write_text(one.read_text().replace("= maximum", "= minimum", 1))
    lines = output(capsys, "diff", str(one), str(two)).splitlines()
    assert lines[:2] == [f"--- {one}", f"+++ {two}"]
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert [line.split("= ")[1].split()[0] for line in changed] == ["maximum", "minimum"]
    assert "no difference" in output(capsys, "diff", str(one), str(one))
    assert output(capsys, "diff", str(one), str(two), "--stage", "llvm").startswith("--- ")


def test_what_models_are_called_is_the_difference_of_equal_ones(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output(capsys, "diff", f"{script}:plain", f"{script}:Holder.inner") == "no difference\n"
    lines = output(capsys, "diff", f"{script}:plain", f"{script}:build", "--stage", "forward").splitlines()
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert changed and all(" = input " in line for line in changed)


def test_errors_about_what_is_compared(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = f"{script}:model"
    assert "--stage for two" in error(capsys, "diff", model, "--stage", "fused")
    assert "--from and --to for one" in error(capsys, "diff", model, model, "--to", "fused")
    assert "earlier stage first" in error(capsys, "diff", model, "--from", "fused", "--to", "gradient")


NUMBER = re.compile("%[0-9]+")


def renumbered(graph: Graph, order: list[int]) -> Graph:
    """The same graph with its nodes added in another order that respects operands."""
    result, image = Graph(graph.name), {}
    pending = sorted(graph.live(), key=lambda value: order[value.number])
    while pending:
        value = next(value for value in pending if all(operand in image for operand in value.inputs))
        pending.remove(value)
        image[value] = result.copy(value, *(image[operand] for operand in value.inputs))
    for out in graph.outputs:
        result.output(out.name, image[out.value], None if out.donor is None else image[out.donor])
    return result


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_alignment_changes_numbers_only(drawn: tuple[Graph, object], data: st.DataObject) -> None:
    graph, other = drawn[0].rebuild()[0], data.draw(graphs())[0].rebuild()[0]
    before, after = aligned_texts(graph, other)
    assert parse(before) == graph
    numbers = dict(zip(NUMBER.findall(str(other)), NUMBER.findall(after), strict=True))
    assert len(set(numbers.values())) == len(numbers)
    assert NUMBER.sub(lambda match: numbers[match.group()], print_graph(other, comments=False)) == after
    assert aligned_texts(graph, graph) == (before, before)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_equal_graphs_in_another_order_have_the_lines_of_each_other(
    drawn: tuple[Graph, object], data: st.DataObject
) -> None:
    graph = drawn[0].rebuild()[0]
    inputs = sum(isinstance(value.op, Input) for value in graph.values)
    order = [*range(inputs), *data.draw(st.permutations(range(inputs, len(graph.values))))]
    before, after = aligned_texts(graph, renumbered(graph, order))
    assert len(before.splitlines()) == len(after.splitlines())
    whole = set(before.splitlines()) & set(after.splitlines())
    assert len(whole) >= len(graph.inputs)
