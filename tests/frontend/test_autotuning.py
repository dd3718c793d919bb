"""Autotuning from Keras's side: who asks for it, what is printed, what a second process finds, and that bits stay."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import gradloom as gl
from gradloom import autotuning
from gradloom.compiler import ops
from gradloom.compiler.ir import Graph, building
from gradloom.compiler.pipeline import compile_graph
from gradloom.compiler.program import Program
from gradloom.compiler.types import F32, TensorType
from gradloom.runtime.binding import Binding

Prefer = Callable[[int], list[int]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, of which this process knows nothing."""
    monkeypatch.setenv("GRADLOOM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(autotuning, "_records", autotuning._Records())
    return tmp_path


@pytest.fixture
def prefer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Prefer:
    """Let the candidate in one place (or the last) seem fastest; the list grows with each measurement."""

    def use(place: int) -> list[int]:
        asked: list[int] = []

        def measure(programs: Sequence[Program], footprint: int) -> list[float]:
            asked.append(len(programs))
            best = min(place, len(programs) - 1)
            return [1.0 if number == best else 2.0 for number in range(len(programs))]

        monkeypatch.setattr(autotuning, "measure", measure)
        return asked

    return use


def network() -> gl.Sequential:
    """Convolutions that go by the definition alone, and dense layers."""
    gl.utils.set_random_seed(1)
    return gl.Sequential(
        [
            gl.layers.Conv2D(40, 3, strides=2, padding="same", activation="relu", input_shape=(12, 12, 3)),
            gl.layers.BatchNormalization(),
            gl.layers.Conv2D(24, 1, activation="relu"),
            gl.layers.Flatten(),
            gl.layers.Dense(48, activation="tanh"),
            gl.layers.Dense(40, activation="softmax"),
        ]
    )


def winograd_network() -> gl.Sequential:
    return gl.Sequential([gl.layers.Conv2D(64, 3, padding="same", input_shape=(16, 16, 64), name="filters")])


def data(samples: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((samples, 12, 12, 3), np.float32), rng.integers(0, 40, samples)


def trained(autotune: bool) -> list[np.ndarray]:
    model, (x, y) = network(), data()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], autotune=autotune)
    losses = model.fit(x, y, epochs=2, batch_size=8, verbose=0).history["loss"]
    return [
        *model.get_weights(),
        np.array(losses),
        model.predict(x, verbose=0),
        np.array(model.evaluate(x, y, verbose=0)),
    ]


@pytest.mark.parametrize("place", [1, 99])
def test_training_and_predictions_are_the_same_bits_whatever_is_chosen(prefer: Prefer, place: int) -> None:
    asked = prefer(place)
    tuned, plain = trained(autotune=True), trained(autotune=False)
    assert len(asked) > 5
    assert all(a.tobytes() == b.tobytes() for a, b in zip(tuned, plain, strict=True))


def test_choices_are_printed_once_and_shown_by_inspect(prefer: Prefer, capsys: pytest.CaptureFixture[str]) -> None:
    prefer(1)
    model, x = winograd_network(), np.ones((1, 16, 16, 64), np.float32)
    model.compile(autotune=True)
    model.predict(x)
    text = capsys.readouterr().out
    assert "autotune 'predict': measured 1 of 1 kinds" in text
    assert "filters: conv2d f32[1,16,16,64]" in text and "which rounds otherwise" in text
    model.predict(x)
    model.predict_on_batch(x)
    assert capsys.readouterr().out == ""
    choices = model.inspect(1, "predict").choices
    (departure,) = choices.departures
    assert departure.rounds_otherwise and str(departure) in str(choices) and str(departure) in text
    (note,) = model._programs.predict([gl.TensorSpec(x.shape).type], most=1).compiled.program.notes
    assert str(departure) in note
    model.compile()
    assert model.inspect(1, "predict").choices.departures == ()


def test_what_inspect_shows_is_computed_by_the_chosen_algorithm(prefer: Prefer) -> None:
    model, found = winograd_network(), []
    for place in range(2):
        autotuning._records.clear()
        autotuning.cache.clear()
        prefer(place)
        model.compile(autotune=True)
        found.append("tile=4" in model.inspect(1, "predict").stages["simplified"].text())
    assert sorted(found) == [False, True]


@pytest.mark.parametrize("verbose", [0, 2])
def test_fit_and_evaluate_print_unless_told_not_to(
    prefer: Prefer, capsys: pytest.CaptureFixture[str], verbose: int
) -> None:
    prefer(1)
    x, y = np.ones((8, 300), np.float32), np.ones((8, 64), np.float32)
    model = gl.Sequential([gl.layers.Dense(64, input_shape=(300,))])
    model.compile("sgd", "mse", autotune=True)
    model.fit(x, y, batch_size=8, verbose=verbose)
    assert ("autotune 'train'" in capsys.readouterr().out) == bool(verbose)
    model.evaluate(x, y, batch_size=8, verbose=verbose)
    assert ("autotune 'test'" in capsys.readouterr().out) == bool(verbose)


def test_nothing_is_measured_unless_it_is_asked_for(prefer: Prefer) -> None:
    asked = prefer(1)
    trained(autotune=False)
    assert asked == []


def test_a_copy_and_changed_structure_keep_the_wish(prefer: Prefer) -> None:
    asked, model, (x, _) = prefer(1), network(), data(4)
    model.compile(autotune=7)
    assert copy.deepcopy(model)._programs.autotune == 7
    model.add(gl.layers.Dense(33))
    model.predict(x, verbose=0)
    assert asked and model._programs.autotune == 7


SECOND = """
import numpy as np, gradloom as gl
from gradloom import autotuning
real, asked = autotuning.measure, []
autotuning.measure = lambda programs, footprint: asked.append(1) or real(programs, footprint)
model = gl.Sequential([gl.layers.Dense(64, input_shape=(300,)), gl.layers.Dense(96)])
model.compile(autotune=True)
model.predict(np.ones((4, 300), np.float32), verbose=0)
print(len(asked), model.inspect(4, "predict").choices)
"""


def test_a_second_process_measures_nothing_and_chooses_the_same(folder: Path) -> None:
    first, second = (
        subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first.startswith("2 ") and second == f"0 {first[2:]}"


def test_a_damaged_record_on_the_disk_is_measured_anew(prefer: Prefer, folder: Path) -> None:
    asked = prefer(1)

    def measured_anew() -> int:
        autotuning._records.clear()
        model, before = gl.Sequential([gl.layers.Dense(64, input_shape=(300,))]), len(asked)
        model.compile(autotune=True)
        model.predict(np.ones((4, 300), np.float32), verbose=0)
        return len(asked) - before

    assert [measured_anew(), measured_anew()] == [1, 0]
    (entry,) = folder.glob("*.text")
    entry.write_bytes(entry.read_bytes().replace(b"1.0", b"3.0"))
    assert [measured_anew(), measured_anew()] == [1, 0]


def test_functions_may_be_tuned(prefer: Prefer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = prefer(1)
    x, y = (np.random.default_rng(0).random((80, 80), np.float32) for _ in range(2))
    tuned, plain = gl.function(gl.ops.matmul, autotune=True), gl.function(gl.ops.matmul)
    np.testing.assert_array_equal(tuned(x, y), plain(x, y))
    assert len(asked) == 1 and "autotune 'matmul'" in capsys.readouterr().out


def test_measuring_takes_programs_by_turns_on_finite_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []
    real = autotuning.measure

    def measure(programs: Sequence[Program], footprint: int) -> list[float]:
        seen.append(real(programs, footprint))
        return seen[-1]

    monkeypatch.setattr(autotuning, "measure", measure)
    model = network()
    model.compile(autotune=True)
    model.predict(data(4)[0], verbose=0)
    assert len(seen) > 2 and all(0 < seconds < 10 for times in seen for seconds in times)


@pytest.mark.parametrize("footprint", [1, 1 << 40])
def test_timed_runs_are_one_call_unless_weights_come_from_afar(footprint: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untimed run wakes the threads before each timing; arrays are brought into order once.

    By a clock that goes on from look to look: how long a run takes is none of the machine's.
    """
    tick, looks = 2.0**-10, itertools.count()
    monkeypatch.setattr(autotuning.time, "perf_counter", lambda: next(looks) * tick)
    graph = Graph("product")
    with building(graph):
        x, w = graph.input("x", TensorType(F32, (16, 48))), graph.input("w", TensorType(F32, (48, 48)), "parameter")
        graph.output("y", ops.matmul(x, w))
    calls: list[tuple[Binding, int]] = []
    converted: list[Binding] = []
    run, convert = Binding.run, Binding._convert

    def counted_run(self: Binding, first: int = 0, steps: int = 1) -> None:
        calls.append((self, steps))
        run(self, first, steps)

    def counted_convert(self: Binding, version: object) -> None:
        converted.append(self)
        convert(self, version)  # type: ignore[arg-type]

    monkeypatch.setattr(Binding, "run", counted_run)
    monkeypatch.setattr(Binding, "_convert", counted_convert)
    (seconds,) = autotuning.measure([compile_graph(graph)], footprint)
    copies = {binding for binding, _ in calls}
    runs = math.ceil(autotuning.ROUND_SECONDS / tick)
    assert runs > 1 and seconds == tick / runs
    assert len(converted) == len(copies) == (1 if footprint == 1 else autotuning.MOST_COPIES)
    if footprint == 1:
        assert [steps for _, steps in calls[1:]] == [1, 1] + [1, runs] * autotuning.ROUNDS
    else:
        assert {steps for _, steps in calls} == {1}
        assert all(one is not other for (one, _), (other, _) in itertools.pairwise(calls)), "each run has other weights"


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "yes", None, [1]])
def test_a_wrong_time_is_refused_and_changes_nothing(wrong: object) -> None:
    model = network()
    model.compile("sgd", "mse", autotune=3)
    before = model.optimizer
    with pytest.raises(ValueError, match="Expected autotune as True, False, or the seconds.*Received: autotune="):
        model.compile("adam", "mse", autotune=wrong)  # type: ignore[arg-type]
    assert model.optimizer is before and model._programs.autotune == 3
    with pytest.raises(ValueError, match="Expected autotune"):
        gl.function(gl.ops.matmul, autotune=wrong)  # type: ignore[arg-type]
