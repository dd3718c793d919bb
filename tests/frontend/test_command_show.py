"""`show`: stages as text, drawings and JSON, from models and from graphs in files, and all of them in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_runs import NORMALIZED, error, output

from gradloom.command import main
from gradloom.compiler import parse
from gradloom.drawn_arrays import drawn_arrays
from gradloom.graph_runs import run_graph
from gradloom.inspection import GRAPH_STAGES, STAGES
from small_files import small_files


def test_what_a_prediction_prepares_is_shown_on_demand(
    tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "normalized.py"
    path.write_text(NORMALIZED)
    prepare = parse(output(capsys, "show", str(path), "--prepare"))
    assert prepare.name == "predict_prepare" and prepare.groups
    labels = [value.op.attributes["label"] for value in parse(output(capsys, "show", str(path))).inputs]
    assert {result.name for result in prepare.outputs} == {label for label in labels if label != "x"}
    assert "nothing is prepared" in error(capsys, "show", f"{script}:model", "--prepare")
    assert "mode predict" in error(capsys, "show", f"{script}:model", "--prepare", "--mode", "train")
    graph = tmp_path / "graph.ir"
    graph.write_text(str(prepare))
    assert "Expected a model with --prepare" in error(capsys, "show", str(graph), "--prepare")


@pytest.mark.parametrize("stage", STAGES)
def test_show_prints_every_stage(script: str, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "show", f"{script}:model", "--stage", stage, "--batch-size", "2")
    assert text.endswith("\n") and "loading" not in text
    assert ("f32[2,3]" in text) or stage not in ("forward", "gradient", "simplified", "fused")


def test_the_fused_graph_of_the_train_step_is_shown_unless_told_otherwise(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = parse(output(capsys, "show", f"{script}:model"))
    assert graph.name == "train" and graph.groups
    assert parse(output(capsys, "show", f"{script}:model", "--mode", "predict")).name == "predict"
    # What is not compiled can only predict.
    assert parse(output(capsys, "show", f"{script}:plain")).name == "predict"
    assert parse(output(capsys, "show", f"{script}:build")).name == "predict"
    assert parse(output(capsys, "show", f"{script}:Holder.inner")).name == "predict"


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, results = tmp_path / "step.ir", tmp_path / "results.npz"
    for file in (path, results):
        file.write_text("old")
    for command in (
        ["show", f"{script}:model", "--output", str(path)],
        ["run", f"{script}:model", "--output", str(results)],
    ):
        with small_files(100):
            assert main(command) == 1
        assert command[-1] in capsys.readouterr().err
        assert path.read_text() == results.read_text() == "old"
        assert {file.suffix for file in tmp_path.iterdir()} <= {".ir", ".npz", ".py"}
    assert output(capsys, "show", f"{script}:model", "--output", "/dev/null") == ""


def test_formats_follow_the_option_or_the_ending(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output(capsys, "show", f"{script}:model", "--format", "svg").startswith("<svg")
    assert output(capsys, "show", f"{script}:model", "--format", "dot").startswith("digraph")
    svg, ir, odd = tmp_path / "step.svg", tmp_path / "step.ir", tmp_path / "step.svg.txt"
    assert output(capsys, "show", f"{script}:model", "--output", str(svg)) == ""
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    output(capsys, "show", f"{script}:model", "--output", str(ir), "--stage", "gradient")
    assert parse(ir.read_text()).name == "train"
    output(capsys, "show", f"{script}:model", "--output", str(odd), "--format", "dot")
    assert odd.read_text().startswith("digraph")


@pytest.mark.parametrize(
    ("stage", "name", "known"),
    [
        ("fused", "a.png", ".txt, .ir, .dot, .gv, .svg, .json for the stage fused"),
        ("fused", "a.html", ".txt, .ir, .dot"),
        ("fused", "a.ll", ".txt, .ir, .dot"),
        ("llvm", "a.s", ".txt, .ll, .dot"),
        ("assembly", "a.ir", ".txt, .s, .dot"),
        ("memory", "a.ir", ".txt, .dot"),
    ],
)
def test_endings_of_what_is_not_written_are_refused(
    stage: str, name: str, known: str, script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = error(capsys, "show", f"{script}:model", "--stage", stage, "--output", str(tmp_path / name))
    assert f"--output: Expected a file ending in {known}" in message
    assert "or --format. Received: " in message
    assert not (tmp_path / name).exists()


def test_a_gradient_needs_a_compiled_model(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Received: one that is not compiled" in error(capsys, "show", f"{script}:plain", "--stage", "gradient")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_every_format(script: str, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    show = ("show", f"{script}:model", "--stage", stage, "--batch-size", "2", "--format")
    assert output(capsys, *show, "dot").startswith("digraph")
    assert ElementTree.fromstring(output(capsys, *show, "svg")).tag.endswith("svg")
    assert json.loads(output(capsys, *show, "json"))["stage"] == stage


@pytest.mark.parametrize("mode", ["train", "predict"])
@pytest.mark.parametrize("stage", GRAPH_STAGES)
def test_a_saved_stage_is_gone_on_from(
    tmp_path: Path, mode: str, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What follows in the model follows from the file, to the last line of assembly."""
    path, file = tmp_path / "normalized.py", tmp_path / "stage.ir"
    path.write_text(NORMALIZED + "model.compile('adam', 'mse')\n")
    model = ("show", str(path), "--mode", mode, "--stage")
    if stage == "gradient" and mode == "predict":
        assert "Expected one of the stages" in error(capsys, *model, stage)
        return
    if stage == "forward" and mode == "train":
        return  # Another graph than the one that is compiled.
    output(capsys, *model, stage, "--output", str(file))
    assert parse(output(capsys, "show", str(file), "--stage", stage)) == parse(file.read_text())
    for later in STAGES[STAGES.index(stage) + 1 :]:
        if later == "gradient":
            continue
        wanted, found = output(capsys, *model, later), output(capsys, "show", str(file), "--stage", later)
        if later in GRAPH_STAGES:
            assert parse(found) == parse(wanted)
        elif later == "assembly":
            assert found == wanted
    earlier = STAGES[STAGES.index(stage) - 1]
    assert "Expected one of the stages" in error(capsys, "show", str(file), "--stage", earlier)


@pytest.mark.parametrize("mode", ["train", "predict"])
def test_a_dump_holds_what_changed_and_all_of_it_computes_the_same(
    tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "normalized.py", tmp_path / "new" / "dump"
    path.write_text(
        NORMALIZED.replace("Dense(3,", "Dense(256,").replace("(5,)", "(128,)") + "model.compile('adam', 'mse')\n"
    )
    told = output(capsys, "show", str(path), "--mode", mode, "--dump", str(folder)).splitlines()
    files = sorted(folder.iterdir())
    assert told == [str(file) for file in files]
    names = {"train": ["forward", "gradient", "simplify"], "predict": ["forward", "folding", "prepare", "split"]}[mode]
    found = [file.stem.partition("-")[2] for file in files]
    assert [int(file.stem.partition("-")[0]) for file in files] == list(range(1, len(files) + 1))
    assert found[: len(names) + 1] == ["layers", *names]
    assert found[-5:] == ["fused", "scheduled", "memory", "llvm", "assembly"]
    graphs = {file.stem.partition("-")[2]: parse(file.read_text()) for file in files if file.suffix == ".ir"}
    for before, after in zip(list(graphs.values()), list(graphs.values())[1:], strict=False):
        assert before != after
    # From the last graph that the passes of rewriting left, compiling goes on to the very same kernels.
    last = [graph for graph in graphs.values() if graph.stage == "simplified"]
    assert len(last) == 1
    start = graphs["gradient"] if mode == "train" else graphs["split"]
    arrays = drawn_arrays(start, seed=1)
    wanted = run_graph(start, arrays)
    for name, graph in graphs.items():
        if name not in ("forward", "folding", "prepare") and list(graph.labels) == list(start.labels):
            got = run_graph(graph, arrays)
            assert {key: got[key].tobytes() for key in wanted} == {key: wanted[key].tobytes() for key in wanted}, name


def test_errors_in_a_graph_file_point_at_the_place(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "step.ir"
    output(capsys, "show", f"{script}:model", "--output", str(file), "--stage", "gradient")
    text = file.read_text().replace("= matmul", "= matmult", 1)
    file.write_text(text)
    place, line, caret = error(capsys, "show", str(file)).splitlines()
    number = next(n for n, line in enumerate(text.splitlines(), 1) if "matmult" in line)
    column = text.splitlines()[number - 1].index("matmult") + 1
    assert place.startswith(f"error: {file}:{number}:{column}: unknown op. Did you mean matmul?")
    assert line[caret.index("^") :].startswith("matmult")
    # A long line is shown in part, around the place.
    file.write_text('graph "g" {\n  %0: f32[] = constant {value=0.0, ' + "x" * 500 + ' = "' + "y" * 500 + '"}\n}\n')
    place, line, caret = error(capsys, "show", str(file)).splitlines()
    assert len(line) < 80 and line[caret.index("^")] in "cx"


def test_kernels_of_a_graph_file_that_cannot_be_are_told_of(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "step.ir"
    output(capsys, "show", f"{script}:model", "--output", str(file), "--stage", "fused")
    file.write_text(file.read_text().replace("} -> ", "} -> %0 ", 1))
    for command in ("show", "run"):
        told = error(capsys, command, str(file))
        assert told.startswith(f"error: {file}: kernel ") and "Expected results among its nodes" in told


@pytest.mark.parametrize("command", [["show"], ["run"], ["diff"], ["reduce", "--check", "compiled"]])
def test_files_that_are_no_text_are_told_of(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, binary = tmp_path / "folder.ir", tmp_path / "binary.ir"
    folder.mkdir()
    binary.write_bytes(b"graph \xff")
    other = [str(folder)] if command == ["diff"] else []
    assert error(capsys, *command, str(folder), *other) == f"error: {folder}: Is a directory"
    assert "Expected text in UTF-8. Received: byte 0xff at offset 6" in error(capsys, *command, str(binary), *other)
    assert error(capsys, *command, f"{tmp_path}/absent.ir", *other).endswith("absent.ir: No such file or directory")


def test_errors_about_stages(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    predict = ("--stage", "gradient", "--mode", "predict")
    assert "Expected one of the stages" in error(capsys, "show", f"{script}:model", *predict)
    assert "compile" in error(capsys, "show", f"{script}:plain", "--mode", "train")
    assert "Unknown dtype" in error(capsys, "show", f"{script}:model", "--dtype", "float23")
