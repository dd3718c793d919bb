"""Callbacks that watch a number: stopping early, and reducing the learning rate."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from callback_runs import X, Y, new_model, run

import gradloom as gl
from gradloom.callbacks import EarlyStopping, ReduceLROnPlateau

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "values", "last"),
    [
        ({"patience": 2}, [3, 2, 2.5, 2.6, 1, 1], 3),
        ({"patience": 2}, [3, 2, 2.5, 1.9, 2, 2, 2], 5),
        ({"patience": 0}, [3, 3.5, 1], 1),
        ({"patience": 0}, [3, 2, 1], 2),
        ({"patience": 1, "min_delta": 0.6}, [3, 2.5, 2.3], 1),
        ({"patience": 1, "min_delta": -0.6}, [3, 2.5, 2.3], 1),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 2, 5], 3),
        ({"patience": 2, "mode": "max", "min_delta": 1}, [1, 2, 2.5, 4, 4.5, 4.9, 9], 5),
        ({"patience": 2, "baseline": 1.0}, [3, 2.5, 2.6, 0.5], 2),
        ({"patience": 2, "baseline": 1.0}, [0.9, 2.5, 2.6, 0.5], 2),
        ({"patience": 2, "baseline": 1.0}, [3, 2.5, 2.4, 2.3], 3),
        ({"patience": 1, "start_from_epoch": 3}, [1, 2, 3, 4, 3, 5], 5),
        ({"patience": 2}, [NAN, 3, 2, 2.5, 2.6, 1], 4),
        ({"patience": 1}, [3, NAN, 1, 1], 1),
        ({"patience": 2}, [NAN, NAN, NAN, 1], 1),
    ],
)
def test_training_stops_after_epochs_without_improvement(
    options: dict[str, Any], values: list[float], last: int
) -> None:
    stopping = EarlyStopping("loss", **options)
    assert run(stopping, values).epoch[-1] == last
    assert run(stopping, values).epoch[-1] == last, "the callback begins anew"
    assert stopping.stopped_epoch == (last if last < len(values) - 1 or values[-1] > min(values) else 0)


@pytest.mark.parametrize("values", [[3, 1, 2, 4], [3, 1, 2]])
def test_the_best_weights_come_back_also_without_a_stop(values: list[float]) -> None:
    kept: list[Any] = []
    keeping = gl.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()))
    model = new_model()
    run([keeping, EarlyStopping("loss", patience=2, restore_best_weights=True)], values, model=model)
    assert all(np.array_equal(one, best) for one, best in zip(model.get_weights(), kept[1], strict=True))
    assert not np.array_equal(kept[-1][0], kept[1][0])


@pytest.mark.parametrize(
    ("monitor", "metrics", "mode"),
    [
        ("val_loss", [], "min"),
        ("accuracy", ["accuracy"], "max"),
        ("val_accuracy", ["accuracy"], "max"),
        ("top", [gl.metrics.SparseTopKCategoricalAccuracy(1, name="top")], "max"),
        ("entropy", [gl.metrics.SparseCategoricalCrossentropy(name="entropy")], "min"),
    ],
)
def test_the_automatic_mode_knows_losses_and_metrics(monitor: str, metrics: list[Any], mode: str) -> None:
    values = [2, 1] if mode == "max" else [1, 2]
    stopping = EarlyStopping(monitor, restore_best_weights=True)
    run(stopping, values, monitor, new_model(metrics=metrics))
    assert (stopping.best_epoch, stopping.best, stopping.mode) == (0, values[0], mode)


def test_the_automatic_mode_asks_about_a_function() -> None:
    def closeness(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.ones_like(y_pred)

    model = new_model(metrics=[closeness])
    before = model.get_weights()
    for monitor in ("closeness", "val_closeness"):
        with pytest.raises(ValueError, match=f"Expected mode='min' or mode='max' for monitor='{monitor}'"):
            model.fit(X, Y, epochs=2, verbose=0, callbacks=[EarlyStopping(monitor)])
    assert all(map(np.array_equal, model.get_weights(), before)), "it is said before anything is trained"
    assert run(EarlyStopping("closeness", mode="max"), [1, 1], "closeness", new_model(metrics=[closeness])).epoch


@pytest.mark.parametrize("make", [EarlyStopping, ReduceLROnPlateau])
def test_a_monitor_that_there_is_not_is_an_error_that_names_those_there_are(make: Any) -> None:
    message = "Expected monitor as one of 'loss', 'accuracy'"
    with pytest.raises(ValueError, match=message) as error:
        run(make(), [1, 1])
    assert "val_loss" not in str(error.value).split("Received")[0]
    with pytest.raises(ValueError, match="'val_accuracy'.*Received: monitor='val_acc'"):
        run(make("val_acc"), [1, 1], validation_split=0.5)


def test_an_epoch_without_validation_is_passed_over() -> None:
    stopping = EarlyStopping("val_loss", patience=0, restore_best_weights=True)
    model = new_model(gl.optimizers.SGD(0.0))
    assert model.fit(X, Y, epochs=6, verbose=0, callbacks=stopping, validation_split=0.5, validation_freq=2).epoch == [
        *range(4)
    ]


@pytest.mark.parametrize("value", ["3", -1, 1.5, True])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (EarlyStopping, "patience"),
        (EarlyStopping, "start_from_epoch"),
        (ReduceLROnPlateau, "patience"),
        (ReduceLROnPlateau, "cooldown"),
    ],
)
def test_numbers_of_epochs_are_integers(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Expected {name} as an integer from 0 on\. Received: {name}={value!r}"):
        make(**{name: value})


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected mode as one of auto, min, max. Received: mode='least'"):
        EarlyStopping(mode="least")
    with pytest.raises(ValueError, match=re.escape("Expected factor in [0, 1). Received: factor=1.5")):
        ReduceLROnPlateau(factor=1.5)


@pytest.mark.parametrize(
    ("options", "values", "rates"),
    [
        ({"patience": 1}, [1, 1, 1, 0.5], [1, 1, 0.5, 0.25]),
        ({"patience": 2}, [1, 1, 1, 1, 1], [1, 1, 1, 0.5, 0.5]),
        ({"patience": 1, "cooldown": 1}, [1, 1, 1, 1, 1], [1, 1, 0.5, 0.25, 0.125]),
        ({"patience": 1, "cooldown": 2}, [1, 1, 1, 1, 1, 1], [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "min_lr": 0.4}, [1, 1, 1, 1], [1, 1, 0.5, 0.4]),
        ({"patience": 1, "min_delta": 0.5}, [1, 0.6, 0.2], [1, 1, 0.5]),
        ({"patience": 1, "mode": "max"}, [1, 2, 1, 3], [1, 1, 1, 0.5]),
        ({"patience": 2}, [NAN, 1, 2, 0.5, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_is_reduced_on_a_plateau(
    options: dict[str, Any], values: list[float], rates: list[float]
) -> None:
    """The logs have the rate that the epoch was trained with."""
    callback = ReduceLROnPlateau("loss", factor=0.5, **options)
    history = run(callback, values, model=new_model(gl.optimizers.SGD(1.0)))
    assert history.history["learning_rate"] == pytest.approx(rates)


def test_what_is_done_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = [
        EarlyStopping("loss", patience=2, verbose=1, restore_best_weights=True),
        ReduceLROnPlateau("loss", patience=1, verbose=1),
    ]
    run(callbacks, [1, 2, 2, 2], model=new_model(gl.optimizers.SGD(0.5)))
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 2: learning rate reduced to 0.05",
        "Epoch 3: learning rate reduced to 0.005",
        "Epoch 3: stopped, for loss did not get better",
        "Weights are again those of the best epoch, 1",
    ]


@pytest.mark.parametrize("number", ["a", np.nan, np.inf, True, [0.5]])
@pytest.mark.parametrize(
    ("callback", "argument"),
    [
        (gl.callbacks.EarlyStopping, "baseline"),
        (gl.callbacks.EarlyStopping, "min_delta"),
        (gl.callbacks.ReduceLROnPlateau, "min_delta"),
        (gl.callbacks.ReduceLROnPlateau, "factor"),
        (gl.callbacks.ReduceLROnPlateau, "min_lr"),
    ],
)
def test_what_is_no_finite_number_is_refused(callback: Any, argument: str, number: Any) -> None:
    expected = f"{callback.__name__}: Expected {argument} as a finite number. Received: {argument}={number!r}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        callback(**{argument: number})
