"""The command line: what it shows and writes, and errors of a line or two without tracebacks."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import error, output

from gradloom.command import main
from gradloom.compiler import parse


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
    for module in ("makers", "neighbour"):
        monkeypatch.delitem(sys.modules, module, raising=False)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "the following arguments are required: TARGET"),
        (["show", "a:b", "--stage", "fusd"], "(did you mean fused?)"),
        (["show", "a:b", "--format", "png"], "Expected text, dot, svg, json. Received: png"),
        (["show", "a:b", "--batch-size", "0"], "Expected a positive integer. Received: 0"),
        (["show", "a:b", "--staeg", "fused"], "(did you mean --stage?)"),
        (["diff", "a:b", "--from", "llvm"], "Expected forward, gradient, simplified, fused. Received: llvm"),
        (["run", "a:b", "--random", "-1"], "--random"),
        (["reduce", "a.ir"], "the following arguments are required: --check"),
        (["cache"], "the following arguments are required: action"),
        (
            ["sow"],
            "Expected a command: show, diff, profile, report, run, reduce, cache. Received: sow (did you mean show",
        ),
        ([], "Expected a command: show, diff, profile, report, run, reduce, cache. Received: none"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m gradloom")
    assert message in line


@pytest.mark.parametrize("command", ["", "show", "diff", "profile", "report", "run", "reduce", "cache"])
def test_help_fits_eighty_columns_with_a_line_for_each_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main([*([command] if command else []), "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.startswith(" " * 8) and command], "an option of two lines"
    assert not command or f"  python -m gradloom {command} " in "\n".join(lines), "no example"


def test_errors_of_gradloom_itself_leave_a_log(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("gradloom.inspection.stages.GraphStage.text", broken)
    first, last = error(capsys, "show", f"{script}:model").splitlines()
    assert first.startswith("error: internal error at ") and first.endswith("KeyError: 'a defect'")
    log = Path(last.removeprefix("  all of it: "))
    try:
        text = log.read_text()
        assert "Traceback" in text and "broken" in text and "KeyError: 'a defect'" in text
    finally:
        log.unlink()


def test_long_errors_are_cut_and_kept_whole_in_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "long.py"
    script.write_text("raise ValueError('\\n'.join(map(str, range(100))))\n")
    *lines, last = error(capsys, "show", str(script)).splitlines()
    assert lines == [f"error: {script}:1: ValueError: 0", "1", "2", "3"]
    log = Path(last.removeprefix("  all of it: "))
    try:
        assert "\n99\n" in log.read_text()
    finally:
        log.unlink()


class _Interrupting:
    """A finder of modules that Ctrl-C comes to in the midst of an import."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("gradloom.command", "interrupted_by_the_user"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("is_imported", [True, False])
def test_ctrl_c_ends_a_command_with_a_word(
    is_imported: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs, as its script is, and while the commands are being imported."""
    script = tmp_path / "stopped.py"
    script.write_text("import interrupted_by_the_user\n")
    monkeypatch.setattr(sys, "argv", ["gradloom", "show", str(script)])
    monkeypatch.setattr(sys, "meta_path", [_Interrupting(), *sys.meta_path])
    if not is_imported:
        monkeypatch.delitem(sys.modules, "gradloom.command")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("gradloom", run_name="__main__")
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    "arguments", [["show", "--help"], ["show", "{script}:model", "--stage", "layers"], ["diff", "{script}:model"]]
)
def test_commands_print_in_any_encoding(
    arguments: list[str], encoding: str, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gradloom", *(word.format(script=script) for word in arguments)])
    written: dict[str, str] = {}
    for name in (encoding, "utf-8"):
        with io.BytesIO() as file, io.TextIOWrapper(file, encoding=name) as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            with pytest.raises(SystemExit) as caught:
                runpy.run_module("gradloom", run_name="__main__")
            assert caught.value.code == 0
            stream.flush()
            written[name] = file.getvalue().decode(name)
    # One character stands for another: nothing moves.
    assert [len(line) for line in written[encoding].splitlines()] == [len(x) for x in written["utf-8"].splitlines()]
    assert "?" not in written[encoding] and "\\" not in written[encoding]


@pytest.mark.parametrize(
    ("command", "option", "name", "ending"),
    [
        ("run", "--output", "o.txt", ".npz"),
        ("run", "--output", "o", ".npz"),
        ("profile", "--svg", "p.png", ".svg"),
        ("profile", "--trace", "p.html", ".json"),
    ],
)
def test_files_of_other_endings_are_refused_before_the_work(
    command: str, option: str, name: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    message = error(capsys, command, str(tmp_path / "absent.py"), option, str(file))
    assert message == f"error: {option}: Expected a file ending in {ending}. Received: {file}"
    assert not file.exists()


def test_cache_commands(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradloom.compiler.program import Program
    from gradloom.runtime import cache

    monkeypatch.setenv("GRADLOOM_CACHE_DIR", str(tmp_path / "cache"))
    assert "0 entries" in output(capsys, "cache", "info")
    cache.store("key", Program("p", (b"code",), (), 0, 0, 1, (), (), ()))
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


@pytest.mark.parametrize("target", ["", ":", ":m", "::m", ".module:m", "a..b:m", "a b:m"])
def test_what_names_neither_file_nor_module_is_refused(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "Expected SCRIPT_OR_MODULE:MODEL, or a graph in a file ending in .ir."
    assert error(capsys, "show", target) == f"error: {expected} Received: {target!r}"


def test_a_file_of_another_kind_is_not_read_as_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "09-llvm.ll"
    file.write_text("define void @f() { ret void }")
    expected = f"error: Expected a Python file ending in .py, or a graph in .ir. Received: {file}"
    assert error(capsys, "show", str(file)) == expected


def test_a_report_in_no_folder_is_named_as_it_was_asked_for(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nowhere" / "report.html"
    written = error(capsys, "report", f"{script}:model", "--output", str(file))
    assert written.splitlines()[-1] == f"error: {file}: No such folder as {file.parent}"
