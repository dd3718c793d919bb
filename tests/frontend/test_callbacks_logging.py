"""Callbacks that set rates, keep records, call functions, and end training at a NaN."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from callback_runs import X, Y, new_model, run

import gradloom as gl
from gradloom.callbacks import CSVLogger, LambdaCallback, LearningRateScheduler, TerminateOnNaN


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [(lambda epoch: 0.1 * (epoch + 1), [0.1, 0.2, 0.3]), (lambda epoch, rate: rate / 2, [0.5, 0.25, 0.125])],
)
def test_a_schedule_sets_each_epochs_rate(schedule: Any, rates: list[float]) -> None:
    model = new_model(gl.optimizers.SGD(1.0))
    history = run(LearningRateScheduler(schedule), [0, 0, 0], model=model)
    assert history.history["learning_rate"] == pytest.approx(rates)
    assert float(model.optimizer.learning_rate) == pytest.approx(rates[-1])


def test_an_error_inside_a_schedule_is_the_schedules_own() -> None:
    def schedule(epoch: int, rate: float) -> float:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="^mine$"):
        run(LearningRateScheduler(schedule), [0])
    with pytest.raises(TypeError, match=r"Expected a number from schedule\(epoch\). Received: None"):
        run(LearningRateScheduler(lambda epoch: None), [0])


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: LearningRateScheduler(0.1), TypeError, "a function of the epoch. Received: schedule=0.1"),
        (
            lambda: LearningRateScheduler(gl.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
            TypeError,
            r"is the optimizer's: SGD\(learning_rate=ExponentialDecay\(…\)\)",
        ),
        (lambda: LambdaCallback(on_epoch_end=3), TypeError, "Expected functions. Received: on_epoch_end=3"),
        (lambda: CSVLogger("x.csv", separator=";;"), ValueError, "one character. Received: separator=';;'"),
        (lambda: CSVLogger("x.csv", separator=3), ValueError, "one character. Received: separator=3"),
    ],
)
def test_arguments_are_checked_when_a_callback_is_made(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_a_rate_may_be_an_array_without_axes() -> None:
    history = run(LearningRateScheduler(lambda epoch: np.array(0.25)), [0])
    assert history.history["learning_rate"] == [0.25]


def test_a_rate_is_not_set_where_the_optimizer_has_a_schedule() -> None:
    rate = gl.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    with pytest.raises(TypeError, match="Expected a schedule when the optimizer is made"):
        run(LearningRateScheduler(lambda epoch: 0.1), [0], model=new_model(gl.optimizers.SGD(rate)))


def rows(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_lines_of_a_file_are_the_history(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old\n")
    model = new_model()
    history = model.fit(
        X, Y, epochs=3, verbose=0, validation_split=0.5, validation_freq=2, callbacks=CSVLogger(path, separator=";")
    ).history
    head, *lines = rows(path, ";")
    assert head == ["epoch", "accuracy", "loss", "val_accuracy", "val_loss"]
    assert [line[0] for line in lines] == ["0", "1", "2"]
    assert [float(line[2]) for line in lines] == history["loss"]
    assert [line[4] for line in lines] == ["NA", repr(history["val_loss"][0]), "NA"]


def test_appending_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    logger = CSVLogger(path, append=True)
    run(logger, [1.5, 2.5])
    run(logger, [3.5])
    assert [line[0] for line in rows(path)] == ["epoch", "0", "1", "0"]
    run(CSVLogger(path), [4.5])
    assert [line[2] for line in rows(path)] == ["loss", "4.5"]


def test_each_line_is_in_the_file_at_the_end_of_its_epoch(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    sizes = []
    size = LambdaCallback(on_epoch_begin=lambda epoch, logs: sizes.append(len(rows(path))))
    run([CSVLogger(path), size], [1, 1, 1])
    assert sizes == [0, 2, 3]


def test_a_file_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    model = new_model()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(CSVLogger(tmp_path / "nowhere" / "log.csv"), [1], model=model)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(OSError, match="/dev/full"):
        run(CSVLogger("/dev/full"), [1, 2])


def test_functions_are_called_as_hooks() -> None:
    calls: list[Any] = []
    functions = {
        name: lambda *arguments, name=name: calls.append((name, *arguments[:-1]))
        for name in ("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_end")
    }
    run(LambdaCallback(**functions, on_train_end=None), [0], validation_split=0.5)
    assert calls == [
        ("on_train_begin",),
        ("on_epoch_begin", 0),
        ("on_train_batch_begin", 0),
        ("on_train_batch_end", 0),
        ("on_test_end",),
    ]
    with pytest.raises(TypeError, match="Expected hooks among on_train_begin.* Received: 'on_lunch'"):
        LambdaCallback(on_lunch=print)


def test_only_batch_hooks_have_python_back_after_each_batch() -> None:
    for callback, expected in (
        (LambdaCallback(on_epoch_end=lambda *_: None), False),
        (LambdaCallback(on_train_batch_end=lambda *_: None), True),
        (gl.callbacks.BackupAndRestore("x"), False),
        (gl.callbacks.BackupAndRestore("x", save_freq=2), True),
        (gl.callbacks.ModelCheckpoint("x.gradloom"), False),
        (gl.callbacks.ModelCheckpoint("x.gradloom", save_freq=2), True),
    ):
        hooks = gl.callbacks.CallbackList([callback], new_model(), {})
        assert hooks.overrides("on_train_batch_begin", "on_train_batch_end") == expected, callback


def test_training_ends_after_the_first_batch_with_a_nan(capsys: pytest.CaptureFixture[str]) -> None:
    x = X.copy()
    x[7] = np.nan
    model = new_model()
    history = model.fit(x, Y, batch_size=3, epochs=5, shuffle=False, verbose=0, callbacks=TerminateOnNaN())
    assert int(model.optimizer.iterations) == 3
    assert history.epoch == [0] and np.isnan(history.history["loss"])
    assert capsys.readouterr().out == "Batch 3 of epoch 1: the loss is nan; training ends\n"
    with pytest.raises(RuntimeError, match="^Batch 1 of epoch 1: the loss is nan"):
        model.fit(x, Y, batch_size=3, verbose=0, callbacks=TerminateOnNaN(raise_error=True))


def test_stop_training_ends_an_epoch_after_the_batch() -> None:
    model = new_model()

    def stop(batch: int, logs: Any) -> None:
        model.stop_training = batch == 1

    history = model.fit(
        X,
        Y,
        batch_size=10,
        epochs=4,
        verbose=0,
        validation_split=0.1,
        callbacks=LambdaCallback(on_train_batch_end=stop),
    )
    assert int(model.optimizer.iterations) == 2
    assert history.epoch == [0] and "val_loss" in history.history
    model.stop_training = True
    model.train_on_batch(X, Y)
    assert int(model.optimizer.iterations) == 3


def test_one_dict_of_logs_goes_through_all_callbacks() -> None:
    history = gl.callbacks.History()
    model = new_model()

    def add(epoch: int, logs: Any) -> None:
        logs["twice"] = 2 * logs["loss"]

    returned = model.fit(X, Y, epochs=2, verbose=0, callbacks=[history, LambdaCallback(on_epoch_end=add)])
    assert returned is history is model.history and "twice" not in history.history
    recorded = model.fit(X, Y, epochs=2, verbose=0, callbacks=LambdaCallback(on_epoch_end=add)).history
    assert recorded["twice"] == [2 * loss for loss in recorded["loss"]]
