"""`reduce`: graphs in files that fail a check of a command's, or one of its own, become small ones."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest
from command_runs import error

from gradloom.command import main
from gradloom.command import reduce as command
from gradloom.compiler import ops, parse
from gradloom.compiler.ir import Constant, Graph, Input, building
from gradloom.compiler.types import F32, TensorType


@pytest.fixture
def file(tmp_path: Path) -> Path:
    graph = Graph("long")
    with building(graph):
        x = graph.input("x", TensorType(F32, (8, 16)), role="parameter")
        y = ops.matmul(ops.tanh(x), ops.swapaxes(ops.exp(x), 0, 1))
        graph.output("loss", ops.sum(ops.log(ops.abs(y) + 2.0)))
        graph.output("x", x - ops.sigmoid(x) * 0.1, donor=x)
    path = tmp_path / "long.ir"
    path.write_text(str(graph))
    return path


def nodes(path: Path) -> list[str]:
    values = parse(path.read_text()).live()
    return [value.op.name for value in values if not isinstance(value.op, Input | Constant)]


def searching(word: str, more: str = "") -> str:
    """A check that fails for files with a word in them."""
    return f"{sys.executable} -c \"import sys; {more}sys.exit('{word}' in open(sys.argv[1]).read())\" {{}}"


def test_a_command_s_check_is_failed_by_one_node(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reduce", str(file), "--check", searching("log")]) == 0
    small, log = file.with_suffix(".reduced.ir"), file.with_suffix(".reduced.log")
    assert nodes(small) == ["log"]
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{small}: 1 node, 1 input, 1 output, of ")
    assert captured.err.startswith("fails: a non-zero exit code\n")
    lines = log.read_text().splitlines()
    assert lines[0].endswith("fails") and any(line.endswith("does not fail") for line in lines)
    assert lines[-1] == f"{len(lines) - 1} graphs tried"


def test_the_smallest_graph_is_there_while_the_search_goes_on(file: Path, tmp_path: Path) -> None:
    """A check that interrupts the search, as Ctrl-C does, once the file has become small."""
    output = tmp_path / "small.ir"
    check = command._Check(searching("exp"), "0", tmp_path / "candidate.ir", deadline=time.monotonic() + 100)

    def interrupting(graph: Graph) -> bool:
        if output.exists() and len(nodes(output)) <= 3:
            raise KeyboardInterrupt
        return check(graph)

    with (tmp_path / "log").open("w") as log, pytest.raises(KeyboardInterrupt):
        command.reduce(parse(file.read_text()), interrupting, note=command._Progress(output, log, 0.0))
    assert "exp" in nodes(output) and len(nodes(output)) <= 3


def test_a_smaller_graph_takes_the_other_s_place_in_one_piece(file: Path, tmp_path: Path) -> None:
    """Whoever has the older one open, or interrupts while the newer one is written, has all of it."""
    output, graph = tmp_path / "small.ir", parse(file.read_text())
    with (tmp_path / "log").open("w") as log:
        progress = command._Progress(output, log, 0.0)
        progress("first", graph, fails=True)
        with output.open() as older:
            progress("second", Graph("smaller"), fails=True)
            assert older.read() == str(graph)
    assert parse(output.read_text()) == Graph("smaller")


def test_a_check_of_results_keeps_the_kind_of_failure(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child process whose interpreter is wrong about tanh, and which dies of graphs without exp."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from gradloom.command import main\n"
        "from gradloom.compiler.ops.elementwise import Tanh\n"
        "Tanh.reference = lambda self, x: np.tanh(x) + np.ones_like(x)\n"
        "if 'exp' not in open(sys.argv[1]).read():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(main(['run', sys.argv[1], '--check']))\n"
    )
    monkeypatch.setitem(command.BUILT_IN, "wrong", "--check")
    monkeypatch.setattr(command, "_command", lambda check, seed, path: [sys.executable, str(wrong), str(path)])
    assert main(["reduce", str(file), "--check", "wrong"]) == 0
    assert capsys.readouterr().err.startswith("fails: results differ\n")
    small = nodes(file.with_suffix(".reduced.ir"))
    assert sorted(small) == ["exp", "tanh"]


def test_kinds_of_failure_are_told_apart() -> None:
    from subprocess import CompletedProcess

    def outcome(code: int, stderr: str = "", is_own: bool = True) -> str:
        return command._outcome(CompletedProcess([], code, "", stderr), is_own)

    assert outcome(0) == ""
    assert outcome(3) == "results differ"
    assert outcome(-11) == "crash by SIGSEGV"
    assert outcome(1, "error: internal error at compiler/x.py:3: KeyError: 'v7'\n  all of it: y") == (
        "internal error at compiler/x.py:3: KeyError"
    )
    assert outcome(1, "error: Expected a matrix") == "an error"
    assert outcome(1, is_own=False) == outcome(9, is_own=False) == "a non-zero exit code"


@pytest.mark.parametrize("check", ["compiled", "fused"])
def test_a_graph_that_does_not_fail_has_an_exit_code_of_its_own(
    check: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = file.with_suffix(".reduced.log")
    log.write_text("of another search")
    message = error(capsys, "reduce", str(file), "--check", check, code=3)
    assert log.read_text() == "of another search"
    assert message == f"{file}: does not fail the check {check}: nothing to reduce"
    assert not file.with_suffix(".reduced.ir").exists()


def test_time_is_bounded(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on from look to look: how long a check takes is none of the machine's."""
    looks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: 10.0 * next(looks))
    assert main(["reduce", str(file), "--check", searching("log"), "--seconds", "100"]) == 0
    assert "stopped after 100 s: a smaller graph may fail, too" in capsys.readouterr().err
    small = nodes(file.with_suffix(".reduced.ir"))
    assert "log" in small and len(small) > 1


def test_a_check_that_does_not_end_in_time_is_not_taken_for_one_that_is_passed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = f"{sys.executable} -c 'import signal; signal.pause()' {{}}"
    message = error(capsys, "reduce", str(file), "--check", endless, "--seconds", "1")
    assert "--seconds: Expected time for the check of the whole graph. Received: 1 s, in which it did not" in message


def test_wrong_checks_are_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(did you mean compiled?)" in error(capsys, "reduce", str(file), "--check", "compild")
    assert "or a command with {}" in error(capsys, "reduce", str(file), "--check", "python check.py")
    log = file.with_suffix(".log")
    assert "Expected another ending than .log" in error(
        capsys, "reduce", str(file), "--check", "compiled", "--output", str(log)
    )
    assert not log.exists()
    assert "No closing quotation" in error(capsys, "reduce", str(file), "--check", "sh -c 'x {}")
    assert "no-such-program: No such file" in error(capsys, "reduce", str(file), "--check", "no-such-program {}")
    assert "Expected a file ending in .ir" in error(capsys, "reduce", "train.py", "--check", "compiled")
