"""The command line: what it shows and writes, and errors of a line or two without tracebacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gradloom.command import main
from gradloom.compiler import parse
from gradloom.inspection import STAGES

SCRIPT = """
import gradloom as gl
import neighbour

print("loading")

def build():
    return gl.Sequential([gl.layers.Dense(3, activation="relu", input_shape=(neighbour.SIZE,))], name="built")

model = build()
model.compile("sgd", "mse")
plain = build()

class Holder:
    inner = plain

if __name__ == "__main__":
    raise SystemExit("the main part ran")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "neighbour.py").write_text("SIZE = 5\n")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture(autouse=True)
def _forget_neighbours() -> None:
    sys.modules.pop("neighbour", None)


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert "Traceback" not in captured.err and len(lines) <= 3
    return lines[-1]


def test_what_a_prediction_prepares_is_shown_on_demand(
    tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "normalized.py"
    path.write_text(
        "import gradloom as gl\n"
        "model = gl.Sequential([gl.Input((5,)), gl.layers.Dense(3), gl.layers.BatchNormalization()])\n"
    )
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


def test_a_graph_file_is_shown(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "step.ir"
    output(capsys, "show", f"{script}:model", "--output", str(file), "--stage", "gradient")
    assert parse(output(capsys, "show", str(file), "--stage", "gradient")) == parse(file.read_text())
    assert parse(output(capsys, "show", str(file))).groups
    file.write_text(file.read_text().replace("matmul", "matmult", 1))
    message = error(capsys, "show", str(file))
    assert message.startswith(f"error: {file}: line ") and "unknown op. Did you mean matmul" in message


def test_a_module_is_found_from_the_current_folder(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(script).parent)
    try:
        assert parse(output(capsys, "show", "script:model")).name == "train"
    finally:
        sys.modules.pop("script")


def test_paths_and_arguments_are_as_before(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path), list(sys.argv)
    output(capsys, "show", f"{script}:model")
    error(capsys, "show", f"{script}:nothing")
    assert (sys.path, sys.argv) == before


MAKERS = """
from __future__ import annotations
from typing import Any
import gradloom as gl
from gradloom import Model, Sequential
from gradloom.applications import Darknet53
from neighbour import imported, imported_unannotated

def unannotated(width=3): ...
def annotated() -> Sequential: ...
def any_result() -> Any: ...
def with_arguments(width) -> gl.Model: ...
def other_result() -> int: ...
def no_result() -> None: ...
def unknown_result() -> Absent: ...
def _private(): ...
lambdas = [lambda: None]
class Own(Model): ...
class OwnWithArguments(Model):
    def __init__(self, width): ...
class Other: ...
"""


@pytest.mark.parametrize("target", ["makers.py", "makers.py:nothing", "makers", "makers:nothing"])
def test_functions_that_make_models_are_named_beside_models(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "neighbour.py").write_text(
        "import gradloom as gl\ndef imported() -> gl.Model: ...\ndef imported_unannotated(): ...\n"
    )
    (tmp_path / "makers.py").write_text(MAKERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "makers", raising=False)
    place = target.partition(":")[0]
    known = "Darknet53, imported, unannotated, annotated, any_result, Own"
    assert f"models in {place}: none; functions that may return one: {known}\n" in error(capsys, "show", target) + "\n"


def test_errors_about_names(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = f"models in {script}: model, plain; functions that may return one: build"
    assert error(capsys, "show", f"{script}:modle") == f"error: {script} has no 'modle' (did you mean model?); {models}"
    assert models in error(capsys, "show", script)
    assert models in error(capsys, "show", f"{script}:Holder")
    assert "Received: module; models in" in error(capsys, "show", f"{script}:neighbour")
    assert "has no attribute 'outer'; models in" in error(capsys, "show", f"{script}:Holder.outer")
    assert "which is no file" in error(capsys, "show", f"{tmp_path}/absent.py:model")
    assert "No such file" in error(capsys, "show", f"{tmp_path}/absent.ir")
    assert (
        error(capsys, "show", "no_such_module:model")
        == "error: Expected a Python file or a module. Received: no_such_module"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nx / 0\n", "{script}:2: ZeroDivisionError: division by zero"),
        ("x = 1\nx = = 2\n", "{script}:2: SyntaxError: invalid syntax"),
        ("import no_such_module\n", "{script}:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import sys\n\nsys.exit(3)\n", "{script}:3: the script ends itself (exit code 3)"),
        ("def model():\n    raise OSError('disk')\n", "{script}:2: OSError: disk"),
        ("import gradloom as gl\n\nmodel = gl.Sequential([gl.layers.Dense(0)])\n", "{script}:3: ValueError: "),
    ],
)
def test_errors_of_a_script_name_its_line(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(source)
    assert error(capsys, "show", f"{script}:model").startswith("error: " + message.format(script=script))


def test_errors_about_stages(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "graph stage" in error(capsys, "show", f"{script}:model", "--stage", "llvm", "--format", "svg")
    assert "Expected one of the stages" in error(capsys, "show", f"{script}:plain", "--stage", "gradient")
    assert "compile" in error(capsys, "show", f"{script}:plain", "--mode", "train")
    assert "Unknown dtype" in error(capsys, "show", f"{script}:model", "--dtype", "float23")


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["show", "a:b", "--stage", "nothing"], ["show", "a:b", "--batch-size", "0"], ["cache"], ["sow"], []],
)
def test_wrong_usage_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m gradloom" in capsys.readouterr().err


def test_cache_commands(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradloom.compiler.program import Program
    from gradloom.runtime import cache

    monkeypatch.setenv("GRADLOOM_CACHE_DIR", str(tmp_path / "cache"))
    assert "0 entries" in output(capsys, "cache", "info")
    cache.store("key", Program("p", b"code", (), 0, 0, 1, (), (), ()))
    assert str(tmp_path / "cache") in output(capsys, "cache", "info")
    assert output(capsys, "cache", "clear") == "removed 1 entry\n"
    assert output(capsys, "cache", "clear") == "removed 0 entries\n"
    monkeypatch.setenv("GRADLOOM_CACHE_LIMIT", "lots")
    assert "GRADLOOM_CACHE_LIMIT" in error(capsys, "cache", "info")


@pytest.mark.smoke
def test_the_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gradloom", "show", "--help"], capture_output=True, text=True, check=True
    )
    assert "layers → forward → gradient" in " ".join(done.stdout.split())
    assert done.stderr == ""


def test_a_reader_that_stops_early_is_no_error(script: str) -> None:
    command = f"{sys.executable} -m gradloom show {script}:model --stage assembly | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == "loading\n"
