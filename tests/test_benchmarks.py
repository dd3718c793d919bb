"""The benchmarks run, compare like with like, and notice who computes something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
Module = Callable[[str], ModuleType]

ECHO = """
import sys
from harness import private_channel, serve
channel = private_channel()
print("a library talks")
serve({"versions": {}}, lambda request: {"seconds": 1.0, "request": request}, channel)
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    """Import a file of the benchmarks, which are scripts and no package."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return import_module


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def workers(module: Module, script: Path, names: Sequence[str]) -> list[object]:
    script.write_text(ECHO)
    return [module("harness").Worker(name, [str(script)], {"PYTHONPATH": str(FOLDER)}) for name in names]


def test_mlp_reports_every_framework_and_round(tmp_path: Path) -> None:
    out = tmp_path / "mlp.json"
    done = run(
        "mlp.py", "--peers", "gradloom,numpy", "--samples", "260", "--batch", "32", "--rounds", "2", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    (result,) = written["results"]
    assert result["case"]["batch"] == 32 and result["case"]["samples"] == 260
    assert {name: len(rounds) for name, rounds in result["microseconds"].items()} == {"gradloom": 2, "numpy": 2}
    assert result["failed"] == {} and result["absent"] == {}
    assert {"gradloom", "numpy", "llvmlite"} <= set(result["versions"])
    assert {"processor", "cores", "python"} <= set(written["machine"])
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["gradloom", "numpy"]


def test_mlp_refuses_unknown_peers() -> None:
    done = run("mlp.py", "--peers", "gradloom,tensorflow")
    assert done.returncode == 2 and "unknown peers tensorflow" in done.stderr


def test_missing_frameworks_are_skipped_with_a_word(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = module("mlp")

    class Absent:
        name = "torch"

        def __init__(self, *arguments: object) -> None:
            self.ready = {"missing": "No module named 'torch'"}

        def close(self) -> None:
            pass

    monkeypatch.setattr(module("contest"), "Worker", Absent)
    result = mlp.measure(["torch"], module("mlp_case").Case(samples=64, batch=32), 1)
    assert result["absent"] == {"torch": "No module named 'torch'"}
    assert "absent" in mlp.report(result) and "No module named 'torch'" in mlp.report(result)


@pytest.mark.parametrize(("batch", "samples"), [(1, 40), (32, 100), (128, 300), (128, 50)])
def test_the_numpy_peer_trains_like_float64(module: Module, batch: int, samples: int) -> None:
    case = module("mlp_case").Case(samples=samples, batch=batch)
    data = module("mlp_case").make_data(case)
    peer = module("mlp_numpy").build(case, *data)
    assert module("mlp_worker").deviation(peer, case, *data) < 1e-4


def test_who_trains_otherwise_is_found_out(module: Module) -> None:
    case = module("mlp_case").Case(samples=100, batch=32)
    data = module("mlp_case").make_data(case)
    deviation, limit = module("mlp_worker").deviation, module("mlp").EXACTNESS
    for change in ({"epochs": 1}, {"batch": 64}, {"learning_rate": 0.00301}):
        other = module("mlp_numpy").build(replace(case, **change), *data)
        assert deviation(other, case, *data) > limit, change


def test_losses_that_lie_apart_are_named(module: Module) -> None:
    losses = {"gradloom": [0.500, 0.501], "numpy": [0.499, 0.502], "jax": [0.6, 0.61]}
    assert "jax 0.6050" in module("mlp").disagreement({"losses": losses})
    assert module("mlp").disagreement({"losses": {"gradloom": [0.5], "numpy": [0.501]}}) == ""
    assert "numpy nan" in module("mlp").disagreement({"losses": {"gradloom": [0.5], "numpy": [np.nan], "jax": [0.5]}})


def answers(*foreign_cores: float | None) -> list[dict[str, float | None]]:
    return [{"seconds": 1.0, "foreign_cores": cores} for cores in foreign_cores]


def test_a_busy_machine_is_told(module: Module) -> None:
    disturbance = module("contest").disturbance
    assert "1.1 processors" in disturbance({"numpy": answers(1.0, 1.2), "jax": answers(1.1)})
    assert disturbance({"numpy": answers(0.01, 1.2), "jax": answers(0.0)}) == ""
    assert disturbance({"numpy": answers(None)}) == ""


def test_workers_answer_in_turn_and_end(module: Module, tmp_path: Path) -> None:
    started = workers(module, tmp_path / "worker.py", ["first", "second"])
    answers = module("harness").alternate(started, 3, "go")
    assert {name: [a["request"] for a in given] for name, given in answers.items()} == {
        "first": ["go"] * 3,
        "second": ["go"] * 3,
    }
    for worker in started:
        worker.close()  # type: ignore[attr-defined]
        assert worker.process.returncode == 0  # type: ignore[attr-defined]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_waiting_workers_are_stopped(module: Module, tmp_path: Path) -> None:
    (worker,) = workers(module, tmp_path / "worker.py", ["only"])
    pid = worker.process.pid  # type: ignore[attr-defined]
    # A signal is sent, not yet obeyed, when `send_signal` returns: wait until the kernel reports the change of state.
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    assert Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    worker.close()  # type: ignore[attr-defined]


def test_a_worker_that_dies_is_reported(module: Module, tmp_path: Path) -> None:
    harness = module("harness")
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(harness.WorkerError, match="code 7"):
        harness.Worker("broken", [str(script)], {})


def test_tables_are_aligned(module: Module) -> None:
    text = module("harness").table(["start", "seconds"], [["import", "0.1"], ["first step", "12"]])
    assert text.splitlines() == [
        "| start      | seconds |",
        "|------------|--------:|",
        "| import     |     0.1 |",
        "| first step |      12 |",
    ]


def test_startup_tells_what_is_too_slow(module: Module) -> None:
    figures = {
        "import beyond NumPy": [{"seconds": 0.2, "llvmlite": True}],
        "first step, cold cache": [{"seconds": 9.0, "compilations": 2}],
        "first step, warm cache": [{"seconds": 0.1, "compilations": 1}],
    }
    found = "; ".join(module("startup").faults(figures))
    assert "import beyond NumPy takes longer" in found and "loads llvmlite" in found and "cache is warm" in found
    assert "first step" not in found


def test_startup_measures_cold_and_warm(module: Module) -> None:
    figures = module("startup").measure(1)
    assert [answer["compilations"] for answer in figures["first step, cold cache"]] != [0]
    assert [answer["compilations"] for answer in figures["first step, warm cache"]] == [0]
    assert [answer["llvmlite"] for answer in figures["import beyond NumPy"]] == [False]


def test_the_roof_kernels_compute(module: Module) -> None:
    machine = module("machine")
    target = machine.Target.host()
    fma = machine.fma_kernel(target.lanes, turns=3)
    data = np.zeros(fma.buffers[0].type.shape, np.float32)
    machine.executable(fma, target).run({"data": data})
    np.testing.assert_array_equal(data, 1.75)  # 0 → 1 → 1.5 → 1.75
    total = machine.sum_kernel(target.lanes, 100_000)
    numbers = np.arange(total.buffers[0].type.size, dtype=np.float32) % 7
    result = np.zeros(machine.BLOCKS, np.float32)
    machine.executable(total, target).run({"data": numbers, "result": result})
    np.testing.assert_array_equal(result, numbers.reshape(machine.BLOCKS, -1).sum(1, dtype=np.float64))
