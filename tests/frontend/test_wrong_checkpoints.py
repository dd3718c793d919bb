"""Checkpoints that are refused, and why: of other models and trainings, with wrong values or states, and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from callback_runs import FILE, Interrupt, bits, everything, files, new_model, run

import gradloom as gl
from gradloom.callbacks import BackupAndRestore
from gradloom.random_seed import streams_taken
from gradloom.saving.checkpoint import KEY
from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors

NAN = float("nan")


def other_width() -> gl.Sequential:
    model = gl.Sequential([gl.layers.Dense(3, activation="softmax", input_shape=(4,))])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def deeper() -> gl.Sequential:
    layers = gl.layers
    model = gl.Sequential([layers.Dense(2, input_shape=(4,)), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (other_width, {}, r"training with layer 'dense': units 3\. Received: one with 2"),
        (deeper, {}, r"training with model: call 1 \['dense_1', .*\. Received: one with None"),
        (lambda: new_model("adam"), {}, "training with optimizer 'Adam'. Received: one with 'SGD'"),
        (
            lambda: new_model(gl.optimizers.SGD(gl.optimizers.schedules.PolynomialDecay(0.1, 5))),
            {},
            "learning rate schedule 'PolynomialDecay'. Received: one with None",
        ),
        (
            lambda: new_model(loss=gl.losses.SparseCategoricalCrossentropy(from_logits=True)),
            {},
            "training with losses .*'from_logits': True.* Received: one with .*'from_logits': False",
        ),
        (lambda: new_model(loss=twice), {}, "training with losses .*FunctionLoss.*twice.* Received: one with"),
        (lambda: new_model(gl.optimizers.SGD(0.01, nesterov=True)), {}, "nesterov True. Received: one with False"),
        (lambda: new_model(gl.optimizers.SGD(0.01, weight_decay=0.1)), {}, "weight_decay .*. Received: one with None"),
        (lambda: new_model(gl.optimizers.SGD(0.1, momentum=0.5)), {}, "variables of the optimizer"),
        (new_model, {"validation_split": 0.5}, "training with samples 12. Received: one with 24"),
        (new_model, {"shuffle": False}, "training with shuffle False. Received: one with True"),
    ],
)
def test_a_checkpoint_of_another_training_changes_nothing(
    make: Callable[[], gl.Sequential], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    run(backup, [1])
    model, before = make(), (tmp_path / FILE).read_bytes()
    weights = bits(model)
    with pytest.raises(SavedFileError, match=message):
        run(backup, [1, 2], model=model, **options)
    assert bits(model) == weights and int(model.optimizer.iterations) == 0
    assert (tmp_path / FILE).read_bytes() == before


def test_metrics_may_be_others_between_epochs_only(tmp_path: Path) -> None:
    def first(k: int, name: str | None = None) -> gl.Sequential:
        return new_model(metrics=[gl.metrics.SparseTopKCategoricalAccuracy(k, name or "top")])

    within, between = BackupAndRestore(tmp_path / "within", save_freq=1), BackupAndRestore(tmp_path / "between")
    for backup, steps in ((within, 1), (between, 3)):
        with pytest.raises(KeyboardInterrupt):
            run([Interrupt(steps), backup], [1, 2], model=first(1))
    with pytest.raises(SavedFileError, match="with metrics .*'k': 2.* Received: one with .*'k': 1"):
        run(within, [1, 2], model=first(2))
    assert run(within, [1, 2], model=first(1, "another name")).epoch == [0, 1]
    assert run(between, [1, 2], model=first(2)).history["top"][1] == 1.0


def branches(
    *, activation: str = "relu", rate: float = 0.5, short: bool = True, first: bool = False, more: bool = False
) -> gl.Model:
    """A network of models, one inside another."""
    x = gl.Input((4,))
    inner = gl.Sequential([gl.Input((4,)), gl.layers.Dense(4, activation), gl.layers.Dropout(rate)], name="inner")
    a, b = inner(x), gl.layers.Dense(4)(x)
    joined = gl.layers.Add()([a, b, x] if short else [a, b])
    if more:
        joined = gl.layers.Activation("tanh")(joined)
    outputs = gl.layers.Dense(2, "softmax", name="head")(a if first else joined)
    model = gl.Model(x, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "tanh"}, "layer 'inner/dense': activation 'tanh'. Received: one with 'relu'"),
        ({"rate": 0.25}, r"layer 'inner/dropout': rate 0\.25. Received: one with 0\.5"),
        ({"short": False}, "model: call 2 .'add'.* Received: one with .'add'"),
        ({"more": True}, "model: call 3 .'activation'.* Received: one with .'head'"),
        ({"first": True}, "training with model: call 1 "),
    ],
)
def test_a_model_of_the_same_shapes_may_be_another(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    run(backup, [1], model=branches())
    with pytest.raises(SavedFileError, match=message):
        run(backup, [1, 2], model=branches(**options))
    assert run(backup, [1, 2], model=branches()).epoch == [0, 1]


class Silent(gl.layers.Layer):
    """Has arguments that it cannot tell."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = factors

    def call(self, x: Any) -> Any:
        return x * self.factors[0]


def test_layers_that_cannot_tell_their_arguments_are_compared_by_class(tmp_path: Path) -> None:
    def make(layer: gl.Layer) -> gl.Sequential:
        model = gl.Sequential([gl.Input((4,)), layer, gl.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    run(backup, [1], model=make(Silent(2.0)))
    assert run(backup, [1, 2], model=make(Silent(2.0))).epoch == [0, 1]
    with pytest.raises(SavedFileError, match="with layer 'silent': class 'ReLU'. Received: one with 'Silent'"):
        run(backup, [1, 2], model=make(gl.layers.ReLU(name="silent")))


class Marked(Silent):
    """Has an argument that does not equal itself."""

    def __init__(self, mark: float) -> None:
        super().__init__(1.0)
        self.mark = mark


def test_nan_among_the_settings_is_the_same_again(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    for epochs in ([1], [1, 2]):
        model = gl.Sequential([gl.Input((4,)), Marked(NAN), gl.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        assert len(run(backup, epochs, model=model).epoch) == len(epochs)


@pytest.mark.parametrize("rate", [NAN, -1.0, float("inf")])
def test_hyperparameters_of_a_file_are_in_range(rate: float, tmp_path: Path) -> None:
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    run(backup, [1], model=new_model())
    arrays, metadata = read_tensors(path)
    entries = json.loads(metadata[KEY])["variables"]["optimizer"]
    (name,) = [entry["array"] for entry in entries if entry["path"].endswith("/learning_rate")]
    write_tensors(path, {**arrays, name: np.array(rate, np.float32)}, metadata)
    model = new_model()
    with pytest.raises(SavedFileError, match=f"{FILE}: SGD: Expected learning_rate as a number in"):
        run(backup, [1, 2], model=model)
    assert float(model.optimizer.learning_rate) > 0

    model.save(tmp_path / "m.gradloom")
    arrays, metadata = read_tensors(tmp_path / "m.gradloom")
    write_tensors(tmp_path / "m.gradloom", {**arrays, "@optimizer/learning_rate": np.array(rate, np.float32)}, metadata)
    with pytest.raises(SavedFileError, match="m.gradloom: .*Expected learning_rate as a number in"):
        gl.models.load_model(tmp_path / "m.gradloom")


def test_hyperparameters_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    run(backup, [1], model=new_model(gl.optimizers.SGD(0.5)))
    model = new_model(gl.optimizers.SGD(0.25))
    run(backup, [1, 2], model=model)
    assert float(model.optimizer.learning_rate) == 0.5


def test_an_optimizer_and_losses_with_settings_of_any_kind_are_compared(tmp_path: Path) -> None:
    """A config may have tuples and functions, of which JSON keeps lists and nothing."""

    class Scaled(gl.optimizers.SGD):
        def get_config(self) -> dict[str, Any]:
            return super().get_config() | {"scales": self.scales, "function": lambda: None}

    def make(scales: tuple[int, ...]) -> gl.Sequential:
        optimizer = Scaled(0.1)
        optimizer.scales = scales  # type: ignore[attr-defined]
        return new_model(optimizer, loss=twice)

    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    run(backup, [1], model=make((1, 2)))
    assert run(backup, [1, 2], model=make((1, 2))).epoch == [0, 1]
    with pytest.raises(SavedFileError, match=r"scales \[1, 3\]. Received: one with \[1, 2\]"):
        run(backup, [1, 2], model=make((1, 3)))


def twice(y_true: Any, y_pred: Any) -> Any:
    return 2 * gl.losses.sparse_categorical_crossentropy(y_true, y_pred)


WRONG_VALUES = {
    "epoch": ["a", -5, 1.5, True, None, [1]],
    "batches": [-1, 10**9, 3, "1", None, 0.5],
    "orders": [10**12, -1, "1", None, 3],
    "stream": [None, [1], [1, 2, 3], 5, ["a", 1], [1, -1], [1, 2**64], [2**64, 1], {"seed": 1}],
    "random": [None, [1], [1, 2, 3], 5, [1, "a"], [-1, 0], [0, 2**64], [True, 1]],
    "stop_training": ["yes", 0, None],
    "logs": ["x", None, 5, [["loss", 1]]],
    "callbacks": [5, None, "x", {}, [5], [["History"]], [["History", 5]], [[5, {"dict": {}}]], [["History", {}]]],
    "variables": [5, None, [], {}, {"model": 5}, {"model": [5, 5]}, {"model": [{}, {}]}],
    "fit": [5, None, [], {}],
}


@pytest.mark.parametrize("key", WRONG_VALUES)
def test_a_checkpoint_with_wrong_values_changes_nothing(key: str, tmp_path: Path) -> None:
    """Its checksum fits: another program has written it, or someone who wants harm."""
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    run(backup, [1])
    arrays, metadata = read_tensors(path)
    state = json.loads(metadata[KEY])
    for value in WRONG_VALUES[key]:
        write_tensors(path, arrays, {KEY: json.dumps({**state, key: value})})
        model, history = new_model(), gl.callbacks.History()
        weights, random = bits(model), []
        noting = gl.callbacks.LambdaCallback(on_train_begin=lambda logs: random.append(streams_taken()))  # noqa: B023
        with pytest.raises(SavedFileError, match=f"{FILE}: Expected"):
            run([backup, history, noting], [1, 2], model=model)
        assert bits(model) == weights and int(model.optimizer.iterations) == 0, value
        assert streams_taken() == random[0] and not model.stop_training and history.epoch == [], value


def test_the_end_bounds_how_many_orders_are_drawn(tmp_path: Path) -> None:
    """Where nothing is left to be trained, however many there were makes no difference."""
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    run(backup, [1])
    arrays, metadata = read_tensors(path)
    state = json.loads(metadata[KEY]) | {"epoch": 10**12, "orders": 10**12}
    write_tensors(path, arrays, {KEY: json.dumps(state)})
    assert run(backup, [1, 2]).epoch == [0]


class Refusing(gl.callbacks.Callback):
    """Has a state that it does not take back."""

    def get_state(self) -> dict[str, Any]:
        return {"what": "it is"}

    def set_state(self, state: Any) -> None:
        raise KeyError("something else")


def test_states_of_another_type_change_nothing(tmp_path: Path) -> None:
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    names = ["CSVLogger", "EarlyStopping", "History", "ModelCheckpoint", "ReduceLROnPlateau"]
    run([*everything(tmp_path, "log", "loss"), backup], [2, 1])
    arrays, metadata = read_tensors(path)
    state = json.loads(metadata[KEY])
    states = {name: entries["dict"] for name, entries in state["callbacks"]}
    assert {*names, "BackupAndRestore"} == states.keys()
    weights = states["EarlyStopping"]["best_weights"]
    wrong = [(owner, key, "x") for owner, entries in states.items() for key in entries]
    wrong += [("EarlyStopping", "best_weights", value) for value in (weights[:1], [1, 2], weights[::-1])]
    wrong += [("History", "history", {"dict": {"loss": 1}}), ("CSVLogger", "keys", [["loss"]])]
    for owner, key, value in wrong:
        before, states[owner][key] = states[owner][key], value
        write_tensors(path, arrays, {KEY: json.dumps(state)})
        states[owner][key] = before
        model = new_model()
        untouched = bits(model)
        with pytest.raises(SavedFileError, match=f"{FILE}: Expected states that the callbacks' set_state takes"):
            run([*everything(tmp_path, "log", "loss"), backup], [2, 1, 1], model=model)
        assert bits(model) == untouched, (owner, key)


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_state_that_a_callback_refuses_changes_nothing(save_freq: Any, tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, save_freq, delete_checkpoint=False)
    run([gl.callbacks.EarlyStopping("loss", patience=9), Refusing(), backup], [3, 4])
    model, stopping, history = new_model(), gl.callbacks.EarlyStopping("loss", patience=9), gl.callbacks.History()
    weights, random = bits(model), []
    noting = gl.callbacks.LambdaCallback(on_train_begin=lambda logs: random.append(streams_taken()))
    with pytest.raises(SavedFileError, match="something else"):
        run([history, stopping, Refusing(), backup, noting], [3, 4, 5], model=model)
    assert bits(model) == weights and int(model.optimizer.iterations) == 0
    assert (stopping.best, stopping.wait, history.epoch) == (None, 0, []) and not model.stop_training
    assert streams_taken() == random[0]


def test_numbers_of_numpy_in_the_logs_are_kept(tmp_path: Path) -> None:
    run(BackupAndRestore(tmp_path, delete_checkpoint=False), [np.float32(0.5), np.float32(0.25)])
    kept: list[Any] = []
    ending = gl.callbacks.LambdaCallback(on_train_end=kept.append)
    run([ending, BackupAndRestore(tmp_path)], [9, 9])
    assert kept[0]["loss"] == 0.25


def test_a_checkpoint_without_a_checksum_is_refused(tmp_path: Path) -> None:
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    run(backup, [1])
    path.write_bytes(path.read_bytes().replace(b"gradloom.sha256", b"gradloom.sha257"))
    with pytest.raises(SavedFileError, match=f"{FILE}: damaged. Expected a checksum, 'gradloom.sha256'"):
        run(backup, [1, 2])


def test_a_damaged_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    backup, path = BackupAndRestore(tmp_path, delete_checkpoint=False), tmp_path / FILE
    run(backup, [1])
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    arrays, metadata = read_tensors(path)
    for damage, message in ((flipped, "damaged"), (whole[:-1], "Expected a file in the safetensors format")):
        path.write_bytes(damage)
        with pytest.raises(SavedFileError, match=f"{FILE}.*{message}"):
            run(backup, [1, 2])
    state = json.loads(metadata[KEY])
    for key in state:
        less = {name: value for name, value in state.items() if name != key}
        write_tensors(path, arrays, {KEY: json.dumps(less)})
        model = new_model()
        weights = bits(model)
        with pytest.raises(SavedFileError, match="Expected a (whole )?checkpoint"):
            run(backup, [1, 2], model=model)
        assert bits(model) == weights
    write_tensors(path, arrays)
    with pytest.raises(SavedFileError, match="Expected a checkpoint. Received: a file of tensors without its state"):
        run(backup, [1, 2])


def test_states_keep_arrays_numbers_and_what_holds_them(tmp_path: Path) -> None:
    class Stateful(gl.callbacks.Callback):
        state: dict[str, Any]

        def get_state(self) -> dict[str, Any]:
            return self.state

        def set_state(self, state: Any) -> None:
            self.state = dict(state)

    one, other = Stateful(), Stateful()
    one.state = {
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "nested": [{"dict": None, "array": True}, [np.float32(0.1), "text"]],
        "numbers": [float("inf"), -0.0, 2**70],
    }
    run([one, BackupAndRestore(tmp_path, delete_checkpoint=False)], [1])
    run([other, BackupAndRestore(tmp_path)], [1])
    assert other.state.pop("array").tolist() == one.state.pop("array").tolist()
    assert other.state == {**one.state, "nested": [{"dict": None, "array": True}, [float(np.float32(0.1)), "text"]]}


@pytest.mark.parametrize("state", [{"what": object()}, {"losses": {0: 1.5}}, 3, [1, 2], np.arange(3)], ids=range(5))
def test_states_that_would_not_come_back_are_refused_before_a_file_is_written(state: Any, tmp_path: Path) -> None:
    class Odd(gl.callbacks.Callback):
        def get_state(self) -> Any:
            return state

    with pytest.raises(TypeError, match="Odd.*: Expected .* Received: "):
        run([Odd(), BackupAndRestore(tmp_path / "backup")], [1])
    assert files(tmp_path / "backup") == []
