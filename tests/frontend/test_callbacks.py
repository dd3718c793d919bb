"""Callbacks, progress output, and training that is broken off."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl

X = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def new_model() -> gl.Sequential:
    model = gl.Sequential(
        [gl.layers.Dense(8, activation="relu", input_shape=(4,)), gl.layers.Dense(2, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Recorder(gl.callbacks.Callback):
    """Writes down every hook with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append(("train begin",))

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append(("train end", *logs))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch begin", epoch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(("epoch end", epoch, *logs))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("batch begin", batch))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(("batch end", batch, *logs))

    def on_test_begin(self, logs: Any = None) -> None:
        self.calls.append(("test begin",))

    def on_test_end(self, logs: Any = None) -> None:
        self.calls.append(("test end", *logs))


def test_hooks_are_called_in_keras_order() -> None:
    recorder = Recorder()
    new_model().fit(X, Y, epochs=2, validation_data=(X, Y), callbacks=[recorder], verbose=0)
    figures = ("loss", "accuracy")
    everything = (*figures, "val_loss", "val_accuracy")

    def epoch(number: int) -> list[tuple[Any, ...]]:
        batches = [[("batch begin", n), ("batch end", n, *figures)] for n in range(2)]
        test = [("test begin",), ("test end", *figures)]
        return [("epoch begin", number), *batches[0], *batches[1], *test, ("epoch end", number, *everything)]

    assert recorder.calls == [("train begin",), *epoch(0), *epoch(1), ("train end", *everything)]


@pytest.mark.parametrize("hook", ["on_batch_end", "on_test_batch_end", "on_predict_end"])
def test_hooks_that_only_keras_has_are_refused(hook: str) -> None:
    made = type("Mine", (gl.callbacks.Callback,), {hook: lambda self, *_: None})()
    for act in (new_model().fit, new_model().evaluate):
        with pytest.raises(TypeError, match=f"^Mine: Expected hooks among on_train_begin, .*Received: {hook}, which"):
            act(X, Y, callbacks=[made])


def test_watching_batches_changes_no_result() -> None:
    weights = []
    for callbacks in ([Recorder()], []):
        gl.utils.set_random_seed(3)
        model = new_model()
        model.fit(X, Y, epochs=2, callbacks=callbacks, verbose=0)
        weights.append([weight.tobytes() for weight in model.get_weights()])
    assert weights[0] == weights[1]


class Interloper(gl.callbacks.Callback):
    """Works with the model in the midst of an epoch."""

    def __init__(self, work: Callable[[gl.Sequential], object]) -> None:
        super().__init__()
        self.work = work
        self.metrics: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.work(self.model)
        self.metrics += [metric.result() for metric in self.model.metrics]


@pytest.mark.parametrize(
    "work",
    [
        lambda model: model.evaluate(X[:7], 1 - Y[:7], verbose=0),
        lambda model: model.test_on_batch(X[:7], 1 - Y[:7]),
        lambda model: model.train_on_batch(X[:7], 1 - Y[:7], sample_weight=np.zeros(7)),
    ],
)
def test_work_within_an_epoch_leaves_its_logs_alone(work: Callable[[gl.Sequential], object]) -> None:
    models = [new_model() for _ in range(2)]
    for model in models:
        model.compile(gl.optimizers.SGD(0.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    models[1].set_weights(models[0].get_weights())
    callbacks = [Interloper(each) for each in (lambda model: None, work)]
    expected, actual = (
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False, callbacks=[callback]).history
        for model, callback in zip(models, callbacks, strict=True)
    )
    assert actual["loss"] == pytest.approx(expected["loss"])
    assert actual["accuracy"] == pytest.approx(expected["accuracy"])
    assert callbacks[1].metrics == pytest.approx(callbacks[0].metrics) and len(callbacks[0].metrics) == 8


def test_weights_are_up_to_date_in_batch_hooks() -> None:
    seen = []

    class Watch(gl.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert self.model is not None
            seen.append(self.model.get_weights()[2].tobytes() + self.model.predict(X[:1]).tobytes())

    new_model().fit(X, Y, epochs=2, callbacks=[Watch()], verbose=0)
    assert len(set(seen)) == 4


def test_on_progress_sees_batches_grow() -> None:
    seen: list[tuple[int, float]] = []

    class Watch(gl.callbacks.Callback):
        def on_progress(self, batch: int, logs: Any = None) -> None:
            seen.append((batch, logs["loss"]))

    model = new_model()
    history = model.fit(X, Y, batch_size=1, callbacks=[Watch()], verbose=0)
    batches = [batch for batch, _ in seen]
    assert batches == sorted(set(batches)) and batches[-1] == 50
    assert seen[-1][1] == history.history["loss"][0]


def test_stop_training_ends_after_the_epoch() -> None:
    class Stop(gl.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert self.model is not None
            self.model.stop_training = epoch == 1

    model = new_model()
    assert model.fit(X, Y, epochs=5, callbacks=[Stop()], verbose=0).epoch == [0, 1]
    assert model.fit(X, Y, epochs=3, verbose=0).epoch == [0, 1, 2]


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_progress", "on_epoch_end", "on_train_batch_begin"])
def test_a_model_is_whole_after_an_interrupt(hook: str) -> None:
    def interrupt(self: Any, number: int, logs: Any = None) -> None:
        raise KeyboardInterrupt

    callback = type("Interrupt", (gl.callbacks.Callback,), {hook: interrupt})()
    model = new_model()
    model.fit(X, Y, batch_size=5, verbose=0)
    versions = [variable.version for variable in model.weights]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=5, callbacks=callback, verbose=0)
    assert [variable.version for variable in model.weights] != versions
    w1, b1, w2, b2 = model.get_weights()
    logits = np.maximum(X @ w1 + b1, 0) @ w2 + b2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-4, atol=1e-6)
    losses = model.fit(X, Y, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_an_error_of_one_close_keeps_no_other_from_being_closed() -> None:
    closed: list[str] = []

    class Closed(gl.callbacks.Callback):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def close(self) -> None:
            closed.append(self.name)
            raise OSError(self.name)

    model = new_model()
    with pytest.raises(OSError, match="last"):
        model.fit(X, Y, callbacks=[Closed("first"), Closed("last")], verbose=0)
    assert closed == ["first", "last"] and model.training_run is None


def test_fit_returns_its_own_history_where_a_callback_trains_too() -> None:
    model = new_model()

    def train(epoch: int, logs: Any) -> None:
        model.fit(X, Y, verbose=0)

    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=gl.callbacks.LambdaCallback(on_epoch_end=train))
    assert history.epoch == [0, 1, 2] and len(history.history["loss"]) == 3 and model.history is history


def test_the_history_of_an_interrupted_fit_is_kept() -> None:
    class Interrupt(gl.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    model = new_model()
    assert model.history is None
    assert model.fit(X, Y, verbose=0) is model.history
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, epochs=4, callbacks=Interrupt(), verbose=0)
    assert model.history.epoch == [0, 1] and len(model.history.history["loss"]) == 2


def test_one_line_per_epoch_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    model = new_model()
    model.fit(X, Y, epochs=2, validation_split=0.2)
    model.evaluate(X, Y)
    model.predict(X)
    lines = capsys.readouterr().out.splitlines()
    number = r"\d+\.\d{4}(e-\d+)?"
    times = r"\d+\.\ds - \d+(\.\d)?(us|ms|s)/step"
    names = ["loss", "accuracy", "val_loss", "val_accuracy"]
    figures = " - ".join(f"{name}: {number}" for name in names)
    assert re.fullmatch(f"Epoch 1/2 - {times} - {figures}", lines[0])
    assert re.fullmatch(f"Epoch 2/2 - {times} - {figures}", lines[1])
    assert re.fullmatch(f"Evaluation - {times} - loss: {number} - accuracy: {number}", lines[2])
    assert len(lines) == 3


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    model = new_model()
    model.fit(X, Y, validation_data=(X, Y), verbose=0)
    model.evaluate(X, Y, verbose=0)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [80, 40, 0])
def test_a_bar_on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of zero columns is one that does not tell its width."""
    written = on_terminal(columns, lambda: new_model().fit(X, Y, epochs=2, validation_data=(X, Y)), monkeypatch)
    *lines, rest = [line.rstrip("\r").split("\r") for line in written.split("\n")]
    assert rest == [""] and len(lines) == 2
    for epoch, (*bars, final) in enumerate(lines, start=1):
        assert all(len(bar) < (columns or 80) for bar in bars)
        assert any(bar.startswith(f"Epoch {epoch}/2: 2/2 |") for bar in bars)
        values = re.compile(r"\| .*loss: .* - accuracy: \d\.\d{4}$")
        assert columns == 40 or any(values.search(bar) for bar in bars)
        assert final.startswith(f"Epoch {epoch}/2 - ")
        assert re.search(r"s/step - loss: .* - accuracy: .* - val_loss: .* - val_accuracy: \d\.\d{4}$", final)


def test_what_callbacks_print_is_on_lines_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        path = tmp_path / "m.gradloom"
        model = new_model()
        printing = gl.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(f"after {epoch}"))
        model.fit(X, Y, callbacks=[printing, gl.callbacks.ModelCheckpoint(path, verbose=1)], validation_data=(X, Y))
        model.evaluate(X, Y, callbacks=gl.callbacks.LambdaCallback(on_test_end=lambda logs: print("tested")))

    lines = [line.rstrip("\r").split("\r")[-1] for line in on_terminal(80, act, monkeypatch).split("\n")]
    assert lines[:2] == ["after 0", f"Epoch 1: saved to {tmp_path / 'm.gradloom'}"]
    assert lines[2].startswith("Epoch 1/1 - ") and lines[3] == "tested" and lines[4].startswith("Evaluation - ")


LOGS = {"loss": 0.51234, "accuracy": 0.8, "top_5": 0.97}


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "0.5s - 100.0ms/step - loss: 0.5123 - accuracy: 0.8000 - top_5: 0.9700"),
        (80, "loss: 0.5123 - accuracy: 0.8000 - top_5: 0.9700"),
        (60, "loss: 0.5123 - …"),
        (40, ""),
    ],
)
def test_a_bar_keeps_a_length_that_shows_something(columns: int, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    bar = gl.callbacks.open_bar("Epoch 1/10", 10)
    gl.callbacks.update_bar(bar, 5, 0.5, LOGS)
    line = terminal.getvalue().split("\r")[-1]
    bar.close()
    head, drawn, values = line.rstrip().split("|")
    assert (head, values.strip()) == ("Epoch 1/10: 5/10 ", shown)
    assert len(drawn) >= 8 and len(line) < columns


def test_zero_is_written_like_its_neighbours() -> None:
    line = gl.callbacks.format_line(1.0, None, {"val_accuracy": 0.0, "loss": 0.0002, "accuracy": 0.875})
    assert line == "1.0s - val_accuracy: 0.0000 - loss: 2.0000e-04 - accuracy: 0.8750"


def on_terminal(columns: int, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `action` writes to a terminal of that width."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    reading, writing = pty.openpty()
    fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
    monkeypatch.delenv("COLUMNS", raising=False)
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(reading, 4096):
                written.extend(part)

    # While the action runs: a terminal that nobody reads makes its writers wait.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with os.fdopen(writing, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "__stdout__", terminal)
        action()
    reader.join(timeout=60)
    os.close(reading)
    return written.decode()


def test_a_name_with_braces_beside_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    model = new_model()
    model.compile("adam", "mse", metrics=[gl.metrics.MeanSquaredError(name="{x}")])
    model.fit(X, np.eye(2)[Y])
    assert " - {x}: 0." in terminal.getvalue().split("\n")[0].split("\r")[-1]


def test_a_bar_is_closed_when_training_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt(gl.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    with pytest.raises(KeyboardInterrupt):
        new_model().fit(X, Y, callbacks=[Interrupt()])
    assert terminal.getvalue().endswith("\n")
