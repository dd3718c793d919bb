"""The benchmarks run, compare like with like, and notice who computes something else."""

from __future__ import annotations

import json
import os
import select
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
        "mlp.py",
        "--peers",
        "gradloom,numpy",
        "--samples",
        "260",
        "--batch",
        "32",
        "--rounds",
        "2",
        "--output",
        str(out),
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for it")
def test_stopped_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(ECHO)
    parent = (
        "from harness import Worker; import os, sys\n"
        f"worker = Worker('only', [{str(tmp_path / 'worker.py')!r}], {{}})\n"
        "print(worker.process.pid, flush=True); sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as started:
        assert started.stdout is not None
        worker = os.pidfd_open(int(started.stdout.readline()))
        started.kill()
    ended, *_ = select.select([worker], [], [], 30)
    os.close(worker)
    assert ended


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


def test_startup_tells_what_is_wrong(module: Module) -> None:
    warm = {"call": 0.01, "seconds": 0.1, "process": 0.5, "compilations": 1}
    answers = {"import": [{"seconds": 0.2, "llvmlite": True}], "MLP, warm": [warm]}
    startup = module("startup")
    found = "; ".join(startup.faults(answers))
    assert "loads llvmlite" in found and "MLP: code is generated although the cache is warm" in found
    reached = {aim.work: (aim.measured, aim.reached) for aim in startup.aims(answers)}
    assert reached["import beyond NumPy"] == (0.2, False)
    assert reached["MLP: model and first `fit` after the import, warm cache"] == (0.1, True)
    assert reached["MLP: new process to first result, warm cache"] == (0.5, False)
    assert reached["Darknet53: first prediction, cold cache"] == (None, None)


def test_startup_measures_cold_and_warm(module: Module) -> None:
    answers = module("startup").measure(1, ["MLP"])
    assert [answer["compilations"] for answer in answers["MLP, cold"]] != [0]
    assert [answer["compilations"] for answer in answers["MLP, warm"]] == [0]
    assert [answer["llvmlite"] for answer in answers["import"]] == [False]
    for answer in answers["MLP, cold"]:
        assert 0 < answer["call"] < answer["seconds"] < answer["process"]


def test_startup_times_what_is_made_of_graphs(module: Module, tmp_path: Path) -> None:
    """On a small network of Darknet53's family: everything that figures are taken from."""
    startup = module("startup")
    network = "gl.applications.Darknet(((8, 1), (16, 1)), 4, input_shape=(33, 32, 3), classes=5)"
    script = startup.GRAPHS.replace("gl.applications.Darknet53()", network)
    cold, warm = (startup.run(script, tmp_path, tmp_path / "cache") for _ in range(2))
    assert cold["compilations"] > 0 and warm["compilations"] == 0
    told = {figure.key for figure in startup.FIGURES if figure.run.startswith("Darknet53's graphs")}
    assert told == cold.keys() - {"compilations"} and all(cold[key] > 0 for key in told)
    known = {f"{network}, {state}" for network in startup.NETWORKS for state in ("cold", "warm")} | {"import"}
    assert {figure.run for figure in startup.FIGURES} <= known


TOY = """
import numpy as np
from call_worker import Task, Unavailable

def right(case):
    return Task(lambda: np.array([[0.1, 0.2, 0.7]]), ["numpy"], repeats=2)

def wrong(case):
    return Task(lambda: np.array([[0.1, 0.3, 0.6]]), ["numpy"])

def absent(case):
    import no_such_framework

def unable_to(case):
    raise Unavailable("cannot do that")
"""


def test_a_contest_admits_who_computes_the_same(module: Module, tmp_path: Path) -> None:
    contest = module("contest")
    (tmp_path / "toy.py").write_text(TOY)
    np.savez(tmp_path / "reference.npz", predict=np.array([[0.1, 0.2, 0.7]]))
    case = {"task": "predict", "reference": str(tmp_path / "reference.npz"), "probabilities": True}
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{FOLDER}"}
    entries = contest.calls("toy", ["right", "wrong", "absent", "unable-to"], case, path)
    result = contest.compete("toys", entries, 3, 1e-6)
    assert {name: len(given) for name, given in result["answers"].items()} == {"right": 3}
    assert result["absent"].keys() == {"absent", "unable-to"} and result["absent"]["unable-to"] == "cannot do that"
    assert "deviates" in result["failed"]["wrong"]
    assert result["ready"]["right"]["versions"] == {"numpy": np.__version__}
    text = contest.report(result)
    assert "right" in text and "absent: No module named 'no_such_framework'" in text
    json.dumps(result)


def test_deviations_are_those_of_logits(module: Module, tmp_path: Path) -> None:
    worker = module("call_worker")
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(20)
    exact = np.exp(logits) / np.exp(logits).sum()
    np.savez(tmp_path / "reference.npz", predict=exact[None])
    case = {"task": "predict", "reference": str(tmp_path / "reference.npz"), "probabilities": True}
    logits[3] += 1e-3
    off = np.exp(logits) / np.exp(logits).sum()
    found = worker.deviation(np.stack([off, exact]), case)  # only the first row counts
    assert found["deviation"] == pytest.approx(0.95e-3 / logits.std(), rel=1e-2) and found["top"]
    assert not worker.deviation(exact[None, ::-1], case)["top"]
    assert worker.deviation(exact, {}) == {}


def fabricated(**seconds: Sequence[float]) -> dict[str, object]:
    given = {
        name.replace("_", "-"): [{"seconds": time, "peak_mb": 1.0, "foreign_cores": None} for time in times]
        for name, times in seconds.items()
    }
    return {"title": "", "answers": given, "ready": {}, "absent": {}, "failed": {}}


def test_the_lead_is_over_the_fastest_peer_in_medians(module: Module) -> None:
    lead = module("contest").lead
    result = fabricated(gradloom=[1, 9, 2], torch=[8, 8, 8], openvino=[3, 5, 4])
    assert lead(result, "gradloom", ["torch", "openvino", "numpy"]) == 2
    assert lead(result, "gradloom", ["numpy"]) is None and lead(result, "gradloom-bf16", ["torch"]) is None


def test_aims_of_darknet53(module: Module) -> None:
    darknet53 = module("darknet53")
    result = fabricated(gradloom=[2], onnxruntime=[4], openvino=[3], torch=[1], **{"gradloom-autotuned": [1.6]})
    one, _, tuned, bf16, train = darknet53.WORKS
    (aim,) = darknet53.aims(one, result, held=False)
    assert aim.measured == 1.5 and aim.reached  # PyTorch's eager mode is shown, but is none of the engines to beat
    (aim,) = darknet53.aims(tuned, result, held=False)
    assert aim.measured == 1.25 and aim.reached
    (aim,) = darknet53.aims(bf16, result, held=False)
    assert aim.measured is None and aim.reached is None
    lead, memory = darknet53.aims(train, result, held=False)
    assert (lead.measured, lead.reached, memory.measured, memory.reached) == (0.5, False, 1.0, True)
    (aim,) = darknet53.aims(darknet53.ON_AVX2[0], result, held=True)
    assert aim.measured == 2


def test_aims_of_mlp_training(module: Module) -> None:
    result = {"case": {"batch": 32}, "microseconds": {"gradloom": [1.0], "jax-scan": [3.0], "torch": [0.5]}}
    (aim,) = module("mlp").aims(result, held=False)
    assert (aim.measured, aim.needed, aim.reached) == (3.0, 2.2, True)
    (aim,) = module("mlp").aims(result, held=True)
    assert (aim.measured, aim.reached) == (0.5, False)


def test_the_results_name_machine_versions_and_aims(module: Module, tmp_path: Path) -> None:
    aims, bench = module("aims"), module("bench")
    told = [aims.Aim("work", 2.0, "× NumPy", 1.5), aims.Aim("memory", 1.0, "MB", None, at_most=True)]
    (tmp_path / "matmul.json").write_text(json.dumps({"aims": aims.written(told)}))
    benchmarks = bench.gather(["matmul", "darknet53"], tmp_path)
    text = bench.summary(benchmarks, {"machine": {"cores": 2}, "versions": {"numpy": "2"}})
    assert "cores 2; numpy 2" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[2:] == [["work", "≥ 2 × NumPy", "1.5", "no"], ["memory", "≤ 1 MB", "not available", ""]]


def test_every_benchmark_of_make_bench_exists(module: Module) -> None:
    for script, *_ in module("bench").RUNS.values():
        done = run(script, "--help")
        assert done.returncode == 0 and "--quick" in done.stdout, script


def test_frameworks_that_are_here_multiply_and_classify(tmp_path: Path) -> None:
    for script, own in (("matmul.py", "gradloom"), ("mlp_calls.py", "gradloom")):
        done = run(script, "--quick", "--rounds", "1", "--output", str(tmp_path / "out.json"))
        assert done.returncode == 0, done.stderr
        written = json.loads((tmp_path / "out.json").read_text())
        for result in written["results"]:
            assert {own} <= result["answers"].keys() and result["failed"] == {}
        assert all(aim["measured"] > 0 for aim in written["aims"] if "NumPy" in aim["unit"])


def test_threads_are_set_for_each_worker(module: Module) -> None:
    result = module("threads").training(samples=512, rounds=2)
    assert {name: len(given) for name, given in result["answers"].items()} == {"2 threads": 2, "1 thread": 2}


def test_work_is_counted_as_published(module: Module) -> None:
    scaling = module("scaling")
    point = scaling.darknet53(256)
    assert point.flops == pytest.approx(18.57e9, rel=0.005)  # 9.29 billion multiply-adds
    assert point.bytes == pytest.approx(4 * 41.6e6, rel=0.01)
    assert scaling.perceptron(1, batch=3, width=5, depth=2).flops == 2 * 3 * 5 * 5 * 2


def test_growth_is_measured_where_kernels_are_large(module: Module) -> None:
    scaling = module("scaling")
    points = [scaling.perceptron(n, batch=8, width=n, depth=2) for n in (32, 64)]
    for result in scaling.measure(points, rounds=2):
        assert len(result["seconds"]) == 2 and result["ratio"] > 0 and result["bound"] in ("FLOPs", "bytes")
    large, small = {"smallest kernel": 1e6}, {"smallest kernel": 9e5}
    assert scaling.flatness([{"ratio": 9.0, **small}, {"ratio": 3.0, **large}, {"ratio": 2.0, **large}]) == 1.5
    assert scaling.flatness([{"ratio": 3.0, **large}]) is None


def test_compilation_is_held_against_different_kernels(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = module("scaling")
    monkeypatch.setattr(scaling, "DIFFERENT", (1, 2))
    first, second = scaling.compilations(1)
    assert first["kernels"] < second["kernels"] and len(first["seconds"]) == 1
    counted = [{"kernels": n, "seconds": [t]} for n, t in ((2, 1.0), (4, 2.0), (8, 6.0))]
    assert scaling.evenness(counted) == 2.0


def test_darknet53_is_the_same_network_everywhere(module: Module) -> None:
    torch = pytest.importorskip("torch")
    import gradloom as gl

    described = module("darknet53_torch")
    network = described.network().eval()
    model = gl.applications.Darknet53()
    model.set_weights(described.gradloom_weights(network))
    images = module("darknet53_case").make_data(1)[0]
    with torch.inference_mode():
        wanted = network(described.images(1)).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_on_batch(images), wanted, rtol=1e-3, atol=1e-7)


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


def test_kernels_one_by_one_compute_what_their_program_does(module: Module) -> None:
    import gradloom as gl

    model = gl.applications.Darknet(stages=((32, 1), (64, 1)), filters=16, input_shape=(32, 32, 3), classes=10)
    step = module("roofline").Step(model.predict_graph(1), 1, 1)
    (name,) = (argument.name for argument in step.lowering.arguments if argument.role == "result")
    step.whole.run()
    wanted = step.arrays[name].copy()
    step.arrays[name].fill(0)
    for kernel in step.bindings:
        kernel.run()
    np.testing.assert_array_equal(step.arrays[name], wanted)
    assert np.ptp(wanted) > 0

    parts = {part["name"]: part for part in step.parts([1.0] * len(step.bindings))}
    squeezed = parts["1×1 32→16, 16²"]
    taps, spared = 16 * 16 * 32 * 16, parts["F(4×4) 16→32, 16²"]
    assert squeezed["defined"] == squeezed["flops"] == pytest.approx(2 * taps, rel=0.2)
    assert spared["defined"] == pytest.approx(2 * 9 * taps, rel=0.05)
    assert spared["flops"] == pytest.approx(2 * 36 * taps / 16, rel=0.2)
    images = 4 * 16 * 16 * (16 + 32 + 32)  # read, read for the residual sum, written
    assert spared["bytes"] == images + 4 * (36 * 16 * 32 + 32)
    assert sum(part["count"] for part in parts.values()) == len(step.bindings)


def test_the_roofline_is_measured_and_drawn(module: Module, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "roofline.json"
    done = run("roofline.py", "--quick", "--only", "mlp", "--output", str(out))
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(out.read_text())["results"].values()
    update, forward = (2 * 784 * 128 * 128, 2 * 128 * 784 * 128)
    assert sum(part["flops"] for part in result["parts"]) == pytest.approx(update + forward, rel=0.05)
    assert result["kernels"] > 0 and result["roof"].keys() == {"peak", "memory", "cache"}
    drawn = run("roofline_picture.py", "--results", str(out), "--folder", str(tmp_path))
    assert drawn.returncode == 0, drawn.stderr
    picture = (tmp_path / "roofline-mlp.svg").read_text()
    assert "MLP, train step of 128" in picture and "FLOPs for each compulsory byte" in picture


def test_profiles_are_compared_with_the_wall(tmp_path: Path) -> None:
    out = tmp_path / "profiling.json"
    done = run("profiling.py", "--quick", "--only", "MLP, train step of 32", "--output", str(out))
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    (rounds,) = written["results"].values()
    assert len(rounds) == 5 and all(min(one.values()) > 0 for one in rounds)
    assert [aim["unit"] for aim in written["aims"]] == ["% off", "%"]
