"""LLVM in processes beside this one: the same results as in one, whatever becomes of the others."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gradloom as gl
from compiled import run_program
from gradloom.compiler import pipeline, schedule
from gradloom.compiler.errors import VerificationError
from gradloom.compiler.ir import Graph
from gradloom.compiler.llvm import beside, codegen
from gradloom.compiler.llvm.target import Target
from gradloom.compiler.pipeline import Lowering, Options

TARGET = Target.host()


def chain(layers: int = 6) -> Graph:
    """Products of different widths: each is a kernel of its own."""

    def f(x: gl.TensorSpec, *weights: gl.TensorSpec) -> gl.TensorSpec:
        for weight in weights:
            x = gl.ops.tanh(gl.ops.matmul(x, weight))
        return x

    widths = [8 * (number + 1) for number in range(layers + 1)]
    return gl.trace(f, gl.TensorSpec((5, 8)), *(gl.TensorSpec(pair) for pair in itertools.pairwise(widths)))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules of a program that is cut into many."""
    monkeypatch.setattr(pipeline, "MODULE_INSTRUCTIONS", 20)
    return list(Lowering(chain(), Options()).modules())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that are started from here on."""
    made: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[call-overload]
            made.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return made


@pytest.mark.parametrize("work", beside.WORK.values())
def test_results_are_the_same_from_any_number_of_processes(
    work: beside.Work, modules: list[str], started: list[subprocess.Popen[bytes]]
) -> None:
    assert len(modules) > 3
    alone = beside.each(work, modules, TARGET, 1)
    assert not started
    before = codegen.compilations
    assert beside.each(work, modules, TARGET, 3) == alone
    assert len(started) == 2 and all(process.returncode is not None for process in started)
    assert codegen.compilations - before == len(modules)


def test_the_first_module_is_there_before_the_last_kernel_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MODULE_INSTRUCTIONS", 20)
    lowered = []
    lower = schedule.lower_contraction
    monkeypatch.setattr(schedule, "lower_contraction", lambda task: lowered.append(task.outline) or lower(task))
    lowering = Lowering(chain(), Options())
    following = lowering.modules()
    next(following)
    kernels = lowered.count(False)
    list(following)
    assert 1 <= kernels <= 2 < lowered.count(False) == len(lowering.kernels)


def test_one_module_needs_no_other_process(modules: list[str], started: list[subprocess.Popen[bytes]]) -> None:
    assert len(beside.each(beside.object_code, modules[:1], TARGET, 8)) == 1
    assert not started


@pytest.mark.parametrize("executable", ["/bin/false", "/no/such/python", "", None])
def test_without_another_process_this_one_does_it_all(
    executable: str | None, modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = beside.each(beside.object_code, modules, TARGET, 1)
    monkeypatch.setattr(sys, "executable", executable)
    assert beside.each(beside.object_code, modules, TARGET, 2) == expected


def test_an_application_in_one_file_is_not_started_again(
    modules: list[str], started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert len(beside.each(beside.object_code, modules, TARGET, 2)) == len(modules)
    assert not started


def test_what_llvm_refuses_is_said_by_this_process(modules: list[str]) -> None:
    with pytest.raises(VerificationError, match="LLVM refuses the emitted module"):
        beside.each(beside.object_code, [*modules, "define void @f() {"] * 2, TARGET, 2)
    assert not [thread for thread in threading.enumerate() if thread.name == "gradloom-llvm"]


def test_an_error_on_the_way_to_modules_leaves_no_process(
    modules: list[str], started: list[subprocess.Popen[bytes]]
) -> None:
    def broken() -> Iterator[str]:
        yield from modules
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        beside.each(beside.object_code, broken(), TARGET, 2)
    assert all(process.returncode is not None for process in started)


def test_readers_of_what_waits_come_to_an_end() -> None:
    """The longest is first; when all is to end, each reader takes what was counted for it, however they meet."""
    waiting = beside._Waiting()
    for number, length in enumerate([3, 1, 2]):
        waiting.put((-length, number, "m"))
    assert [waiting.get()[1] for _ in range(2)] == [0, 2]
    for readers in (1, 3) * 100:
        threads = [threading.Thread(target=lambda: [*iter(waiting.get, beside.END)]) for _ in range(readers)]
        for number in range(5):
            waiting.put((-number - 1, number, "m"))
        for thread in threads:
            thread.start()
        waiting.end(readers)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_a_program_of_many_modules_computes_the_same(modules: list[str]) -> None:
    graph = chain()
    several = Lowering(graph, Options(cores=2)).program()
    assert len(several.code) == len(modules)
    rng = np.random.default_rng(0)
    given = {str(value.op.attributes["label"]): rng.random(value.type.shape, np.float32) for value in graph.inputs}
    (result,) = run_program(several, graph, given).values()
    expected, *weights = given.values()
    for weight in weights:
        expected = np.tanh(expected @ weight)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert several.from_bytes(several.to_bytes()) == several


def test_what_a_start_of_python_prints_is_no_answer(
    modules: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('Welcome!', flush=True)")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = codegen.compilations
    assert beside.each(beside.object_code, modules, TARGET, 2) == beside.each(beside.object_code, modules, TARGET, 1)
    assert codegen.compilations - before == 2 * len(modules)


def test_what_goes_wrong_beside_this_process_loses_no_module(
    modules: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: object) -> bytes:
        raise MemoryError

    expected = beside.each(beside.object_code, modules, TARGET, 1)
    monkeypatch.setattr(beside, "_receive", broken)
    assert beside.each(beside.object_code, modules, TARGET, 2) == expected


def test_without_another_thread_this_one_does_it_all(modules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = beside.each(beside.object_code, modules, TARGET, 1)
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert beside.each(beside.object_code, modules, TARGET, 2) == expected
