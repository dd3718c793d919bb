"""Callbacks that save: models at times, and all that an interrupted training needs to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from callback_runs import ADAM, FILE, SGD, Interrupt, X, Y, bits, everything, files, network, new_model, run

import gradloom as gl
from gradloom.callbacks import BackupAndRestore, ModelCheckpoint
from gradloom.saving.objects import ConfigError

NAN = float("nan")


def loaded(path: Path) -> list[bytes]:
    model = new_model()
    model.load_weights(path)
    return bits(model)


def test_weights_are_saved_after_each_epoch_under_names_with_numbers(tmp_path: Path) -> None:
    kept: list[Any] = []
    keeping = gl.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(bits(model)))
    model = new_model()
    path = tmp_path / "new" / "{epoch:02d}-{loss:.2f}.safetensors"
    run([ModelCheckpoint(path, save_weights_only=True), keeping], [0.5, 0.25], model=model)
    assert files(tmp_path) == ["new/01-0.50.safetensors", "new/02-0.25.safetensors"]
    assert [loaded(tmp_path / name) for name in files(tmp_path)] == kept


def test_whole_models_are_saved_and_loaded(tmp_path: Path) -> None:
    model, path = new_model(), tmp_path / "model.gradloom"
    run(ModelCheckpoint(path), [1, 1], model=model)
    other = gl.models.load_model(path)
    assert bits(other) == bits(model)
    assert [one.value.tobytes() for one in other.optimizer.variables] == [
        one.value.tobytes() for one in model.optimizer.variables
    ]


@pytest.mark.parametrize(
    ("options", "values", "saved"),
    [
        ({}, [3, 2, 4, 1], [1, 2, 4]),
        ({"mode": "max"}, [3, 2, 4, 1], [1, 3]),
        ({"initial_value_threshold": 2.5}, [3, 2, 4, 1], [2, 4]),
        ({"verbose": 1}, [NAN, 3, NAN, 2, 4], [2, 4]),
        ({"verbose": 1, "mode": "max"}, [NAN, 3, NAN, 2, 4], [2, 5]),
    ],
)
def test_only_the_best_is_saved(options: dict[str, Any], values: list[float], saved: list[int], tmp_path: Path) -> None:
    path = tmp_path / "{epoch}.safetensors"
    run(ModelCheckpoint(path, "loss", save_best_only=True, save_weights_only=True, **options), values)
    assert files(tmp_path) == [f"{epoch}.safetensors" for epoch in saved]


def test_what_is_better_is_asked_only_where_the_best_is_saved(tmp_path: Path) -> None:
    def closeness(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.ones_like(y_pred)

    saving = ModelCheckpoint(tmp_path / "{epoch}.safetensors", "closeness", save_weights_only=True)
    run(saving, [1, 2], "closeness", new_model(metrics=[closeness]))
    assert files(tmp_path) == ["1.safetensors", "2.safetensors"]


def test_batches_are_counted_across_epochs(tmp_path: Path) -> None:
    path = tmp_path / "{epoch}-{batch}.safetensors"
    run(ModelCheckpoint(path, save_weights_only=True, save_freq=3), [0] * 5)  # of two batches each
    assert files(tmp_path) == ["2-1.safetensors", "3-2.safetensors", "5-1.safetensors"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filepath": "m.keras"}, "Expected a filepath that ends in .gradloom with save_weights_only=False"),
        ({"filepath": "m.gradloom", "save_weights_only": True}, "ends in .safetensors or .weights.h5 with"),
        ({"filepath": "{loss:02d}.gradloom"}, r"Expected fields .* Received: filepath='\{loss:02d\}.*code 'd'"),
        ({"filepath": "{epoch.gradloom"}, "Expected fields .* Received: filepath=.*expected '}'"),
        ({"filepath": "{}.gradloom"}, "Expected fields .*positional"),
        ({"filepath": "{loss.mean}.gradloom"}, "Expected fields .*no attribute 'mean'"),
        ({"filepath": "m.gradloom", "save_freq": 0}, "Expected save_freq as 'epoch' or a positive number"),
        ({"filepath": "m.gradloom", "save_freq": "batch"}, "Received: save_freq='batch'"),
        ({"filepath": "m.gradloom", "save_freq": 5, "save_best_only": True}, "monitor that the logs of batches have"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelCheckpoint(**options)


def test_unknown_fields_of_a_path_are_named(tmp_path: Path) -> None:
    path = tmp_path / "{val_loss}.safetensors"
    with pytest.raises(
        ValueError, match="Expected fields among epoch, loss, accuracy in filepath. Received: 'val_loss'"
    ):
        run(ModelCheckpoint(path, save_weights_only=True), [1])


def test_a_model_that_cannot_be_saved_is_not_trained(tmp_path: Path) -> None:
    model = gl.Sequential([gl.Input(X.shape[1:]), gl.layers.Dense(1)])
    model.compile("sgd", lambda target, output: gl.ops.mean(gl.ops.square(output), axis=-1))
    before = bits(model)
    with pytest.raises(ConfigError, match="say def name"):
        model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "m.gradloom", "loss", save_best_only=True)])
    assert bits(model) == before and files(tmp_path) == []
    model.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "m.safetensors", save_weights_only=True)])
    assert files(tmp_path) == ["m.safetensors"]


# BackupAndRestore.


def train(kind: str, callbacks: list[gl.callbacks.Callback], seed: int = 5) -> tuple[Any, ...]:
    """Train, and train again; return the bits of everything that is left."""
    model = network(kind)
    gl.utils.set_random_seed(seed)
    history = model.fit(X, Y, batch_size=5, epochs=5, verbose=0, validation_split=0.25, callbacks=callbacks)
    model.fit(X, Y, batch_size=5, verbose=0)  # in the order that follows
    state = [variable.value.tobytes() for variable in [*model.weights, *model.optimizer.variables]]
    return state, history.epoch, history.history


@pytest.mark.parametrize("kind", [SGD, ADAM])
@pytest.mark.parametrize("save_freq", ["epoch", 1, 3])
def test_training_goes_on_as_if_it_had_not_been_interrupted(kind: str, save_freq: Any, tmp_path: Path) -> None:
    """It is interrupted again and again, in the midst of epochs of four batches and between them."""

    def callbacks(log: str) -> list[gl.callbacks.Callback]:
        return everything(tmp_path, log) if kind == SGD else []

    expected = train(kind, callbacks("whole"))
    backup = BackupAndRestore(tmp_path / "backup", save_freq)
    for seed, steps in enumerate((6, 7, 8, 11), start=5):
        with pytest.raises(KeyboardInterrupt):
            train(kind, [*callbacks("resumed"), backup, Interrupt(steps)], seed)
    assert train(kind, [*callbacks("resumed"), backup], 77) == expected
    assert files(tmp_path / "backup") == []
    if kind == SGD:
        for ending in ("", ".safetensors"):
            logs = [(tmp_path / f"{name}{ending}").read_bytes() for name in ("whole", "resumed")]
            assert logs[0] == logs[1]


def test_callbacks_come_before_the_backup_wherever_they_are_listed(tmp_path: Path) -> None:
    """A training that was to stop stops, though it was killed between its last backup and its end."""

    class Killed(gl.callbacks.Callback):
        runs_last = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if self.model.stop_training:  # type: ignore[union-attr]
                raise KeyboardInterrupt

    model = new_model()
    callbacks = [BackupAndRestore(tmp_path), gl.callbacks.EarlyStopping("loss")]
    with pytest.raises(KeyboardInterrupt):
        run([*callbacks, Killed()], [1, 2, 1, 1], model=model)
    again = new_model()
    assert run(callbacks, [1, 2, 1, 1], model=again).epoch == [0, 1]
    assert bits(again) == bits(model)


def test_a_checkpoint_that_stays_is_gone_on_from(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    model = new_model()
    run(backup, [1, 2], model=model)
    assert files(tmp_path) == [FILE]
    again = new_model()
    history = run(backup, [1, 2], model=again)
    assert bits(again) == bits(model) and int(again.optimizer.iterations) == 4
    assert history.history["loss"] == [1, 2]
    assert run(backup, [1, 2, 3], model=new_model()).epoch == [0, 1, 2]


@pytest.mark.parametrize(("steps", "epochs"), [(4, 1), (5, 1), (5, 2)])
def test_the_checkpoint_of_a_longer_training_is_kept(steps: int, epochs: int, tmp_path: Path) -> None:
    """An epoch has two batches: the fifth step is within the third one."""
    model, again = new_model(), new_model()
    backup = BackupAndRestore(tmp_path, save_freq=1)
    with pytest.raises(KeyboardInterrupt):
        run([Interrupt(steps), backup], [0] * 6, model=model)
    run(backup, [0] * epochs, model=new_model())
    assert files(tmp_path) == [FILE]
    run(backup, [0] * 6, model=again)
    assert int(again.optimizer.iterations) == 12 and files(tmp_path) == []


def test_a_training_that_was_stopped_has_ended_also_with_more_epochs(tmp_path: Path) -> None:
    callbacks = [BackupAndRestore(tmp_path, delete_checkpoint=False), gl.callbacks.EarlyStopping("loss")]
    model, again = new_model(), new_model()
    run(callbacks, [1, 2, 1], model=model)
    assert run(callbacks, [1, 2, 1, 1, 1], model=again).epoch == [0, 1]
    assert bits(again) == bits(model)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".writing-0123456789abcdef").write_bytes(b"half")
    run(BackupAndRestore(tmp_path, delete_checkpoint=False), [1])
    assert files(tmp_path) == [FILE]
