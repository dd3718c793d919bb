"""Bad input of models: each message says what was expected and what came, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler.errors import DTypeError, ShapeError

X, Y = np.zeros((10, 4), np.float32), np.zeros(10, np.int64)

RAGGED = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0]]


@pytest.fixture
def model() -> Iterator[gl.Sequential]:
    """A compiled model that must be as it was after the test."""
    model = gl.Sequential([gl.layers.Dense(6, input_shape=(4,), name="first"), gl.layers.Dense(3, name="last")])
    model.compile("sgd", gl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    before = [weight.tobytes() for weight in model.get_weights()]
    yield model
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_one_number_per_sample_may_come_as_a_vector() -> None:
    model = gl.Sequential([gl.Input((1,)), gl.layers.Dense(np.int64(2))])
    np.testing.assert_array_equal(model.predict(X[:, 0]), model.predict(X[:, :1]))


def test_a_lone_layer_is_no_list_of_layers() -> None:
    with pytest.raises(TypeError, match="Expected a list of layers. Received: <Dense"):
        gl.Sequential(gl.layers.Dense(2))  # type: ignore[arg-type]


def test_a_stage_of_another_name_lists_those_there_are(model: gl.Sequential) -> None:
    with pytest.raises(KeyError, match="Expected one of the stages layers, forward, .*Received: 'fuse'"):
        model.inspect(mode="predict").stages["fuse"]


Call = Callable[[gl.Sequential], Any]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # the form of x
        (
            lambda m: m.fit(np.zeros((10, 5)), Y),
            r"Model 'sequential', layer 'first' \(Dense\): Expected an input of shape \(None, 4\). "
            r"Received: x of shape \(10, 5\)",
        ),
        (lambda m: m.fit(np.zeros((10, 2, 2)), Y), r"\(None, 4\). Received: x of shape \(10, 2, 2\)"),
        (lambda m: m.fit(np.zeros(10), Y), r"\(None, 4\). Received: x of shape \(10,\)"),
        (lambda m: m.predict(np.zeros((10, 5))), r"layer 'first'.*\(None, 4\). Received: x of shape \(10, 5\)"),
        (lambda m: m.evaluate(np.zeros((10, 5)), Y), r"layer 'first'.*Received: x of shape \(10, 5\)"),
        (lambda m: m.predict_on_batch(np.zeros((1, 5))), r"Received: x of shape \(1, 5\)"),
        # how many
        (lambda m: m.fit(X[:0], Y[:0]), r"Expected x with at least one sample. Received: x of shape \(0, 4\)"),
        (lambda m: m.predict(X[:0]), "Expected x with at least one sample"),
        (lambda m: m.predict(3.0), "Expected x with samples along its first axis. Received: x is a single number"),
        (lambda m: m.fit(X, Y[:9]), r"Expected y with as many samples as x, 10. Received: 9 \(y of shape \(9,\)\)"),
        (lambda m: m.evaluate(X, Y[:9]), "Expected y with as many samples as x, 10. Received: 9"),
        (lambda m: m.train_on_batch(X[:9], Y), "Expected y with as many samples as x, 9. Received: 10"),
        (lambda m: m.fit(X), "Expected targets y beside x. Received: y=None"),
        (lambda m: m.fit(X, Y, sample_weight=np.ones(9)), "Expected sample_weight with as many samples as x, 10"),
        (lambda m: m.fit(X, Y, sample_weight=np.ones((10, 2))), r"one weight per sample, of shape \(10,\)"),
        # rows of different length
        (lambda m: m.fit(RAGGED, Y), r"for x, with rows of equal length. Received: list.*\(4,\) at 0 and \(3,\) at 1"),
        (lambda m: m.fit(X, RAGGED), "for y, with rows of equal length. Received: list"),
        (lambda m: m.fit(X, Y, sample_weight=RAGGED), "for sample_weight, with rows of equal length"),
        (lambda m: m.fit(X, Y, validation_data=(RAGGED, Y)), "^validation_data: .*for x, with rows of equal length"),
        (lambda m: m.evaluate(RAGGED, Y), "for x, with rows of equal length"),
        (lambda m: m.evaluate(X, RAGGED), "for y, with rows of equal length"),
        (lambda m: m.predict(RAGGED), "for x, with rows of equal length"),
        (lambda m: m.predict([RAGGED]), r"in part 0, \(4,\) at 0 and \(3,\) at 1"),
        (lambda m: m.predict([np.zeros(4), np.zeros(3)]), r"for x.*\(4,\) at 0 and \(3,\) at 1"),
        # labels
        (lambda m: m.fit(X, Y + 3), r"of layer 'last': Expected class labels in \[0, 3\). Received: 3 at position 0"),
        (lambda m: m.fit(X, Y - 1), r"Expected class labels in \[0, 3\). Received: -1 at position 0, and 9 more"),
        (lambda m: m.evaluate(X, Y + 3), r"Expected class labels in \[0, 3\)"),
        (lambda m: m.fit(X, Y, validation_data=(X, Y + 3)), r"^validation_data: .*Expected class labels in \[0, 3\)"),
        # class weights
        (lambda m: m.fit(X, Y, class_weight={3: 1.0}), r"integers in \[0, 3\) as classes in class_weight. Received: 3"),
        (lambda m: m.fit(X, Y, class_weight={"0": 1.0}), r"integers in \[0, 3\) as classes.*Received: '0'"),
        (
            lambda m: m.fit(X, Y, class_weight={0: np.nan}),
            "finite numbers as weights in class_weight. Received: 0: nan",
        ),
        (lambda m: m.fit(X, Y, class_weight={0: "1"}), "finite numbers as weights in class_weight. Received: 0: '1'"),
        (lambda m: m.fit(X, Y + 2**33), "Expected integer targets that fit 32 bits. Received: 8589934592"),
        (lambda m: m.fit(np.full((10, 4), 1e300), Y), r"float32 has, up to 3.403e\+38, for x. Received: 1e\+300"),
        (lambda m: m.fit(np.full((10, 4), 1e300).tolist(), Y), "numbers that float32 has.* for x"),
        (lambda m: m.fit(X, Y, sample_weight=np.full(len(X), 1e39)), "float32.* for sample_weight. Received: 1e.39"),
        (lambda m: m.fit(X, np.eye(3)[Y]), "one-hot targets need loss='categorical_crossentropy'"),
        # settings
        (lambda m: m.fit(X, Y, batch_size=0), "Expected batch_size as a positive integer. Received: batch_size=0"),
        (lambda m: m.fit(X, Y, batch_size=2.5), "Received: batch_size=2.5"),
        (lambda m: m.fit(X, Y, epochs=-1), "Expected epochs as a positive integer. Received: epochs=-1"),
        (lambda m: m.fit(X, Y, steps_per_epoch=0), "Received: steps_per_epoch=0"),
        (lambda m: m.fit(X, Y, initial_epoch="a"), "Expected initial_epoch as an integer.*initial_epoch='a'"),
        (lambda m: m.fit(X, Y, initial_epoch=-1), "Received: initial_epoch=-1"),
        (lambda m: m.fit(X, Y, shuffle="batch"), "Expected shuffle as True or False. Received: shuffle='batch'"),
        (lambda m: m.fit(X, Y, validation_freq=0), "Expected validation_freq as a positive integer.*validation_freq=0"),
        (lambda m: m.fit(X, Y, validation_freq=[1, 0]), r"Received: validation_freq=\[1, 0\]"),
        (lambda m: m.fit(X, Y, validation_freq="1"), "Received: validation_freq='1'"),
        (lambda m: m.fit(X, Y, verbose="loud"), "Expected verbose as 0, 1, 2 or 'auto'. Received: verbose='loud'"),
        (lambda m: m.fit(X, Y, validation_split=1.5), "Expected 0 < validation_split < 1. Received"),
        (lambda m: m.fit(X, Y, validation_split=0.95), "10 samples leaves no sample for training"),
        (lambda m: m.fit(X, Y, validation_data=X), r"Expected validation_data as \(x, y\).*Received: ndarray"),
    ],
)
def test_values(model: gl.Sequential, call: Call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fit(X, Y + 0.5), "Expected integral class labels. Received: 0.5 at position 0, and 9 more"),
        (lambda m: m.fit(X, Y.astype(str)), "Expected an array.*for y, with dtype bool.*Received: ndarray of dtype <U"),
        (lambda m: m.fit(X.astype(complex), Y), "for x, with dtype bool.*complex128"),
        (lambda m: m.fit("data", Y), "Expected an array.*for x.*Received: str"),
        (lambda m: m.set_weights(None), "Layer 'sequential': Expected a list of weight arrays. Received: None"),
        (lambda m: m.fit(X, Y, callbacks=["early"]), "Expected instances of gl.callbacks.Callback. Received: 'early'"),
    ],
)
def test_kinds(model: gl.Sequential, call: Call, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(model)


def test_dtypes(model: gl.Sequential) -> None:
    model.build((None, 4))
    before = model.get_weights()
    with pytest.raises(DTypeError, match="weight 'first/kernel': Expected values of dtype float32. Received: <U"):
        model.set_weights([weight.astype(str) for weight in before])
    for mode in ("train", "predict"):
        with pytest.raises(DTypeError, match="Expected one of bool.*Received: bogus"):
            model.inspect(mode=mode, dtype="bogus")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: gl.ops.sum(x, axis=1.0), TypeError, "sum: expected axis as an integer, or several.*axis=1.0"),
        (lambda x: gl.ops.one_hot(x, -3), ValueError, "one_hot: expected num_classes as.*num_classes=-3"),
        (lambda x: gl.ops.one_hot(x, 2.5), ValueError, "num_classes=2.5"),
        (lambda x: gl.ops.broadcast_to(x, (-3, 2)), ShapeError, r"broadcast_to: expected sizes.*shape=\(-3, 2\)"),
        (lambda x: gl.ops.broadcast_to(x, (2**62, 2)), ShapeError, r"less than 2\*\*63 bytes. Received: "),
    ],
)
def test_operations(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gl.trace(call, gl.TensorSpec((2,), "int32"))


def test_a_function_names_its_argument_with_rows_of_different_length() -> None:
    with pytest.raises(ValueError, match="for argument left, with rows of equal length. Received: list"):
        gl.function(lambda left: left)(RAGGED)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_before_compile(method: str) -> None:
    model = gl.Sequential([gl.layers.Dense(3)])
    with pytest.raises(
        ValueError,
        match=rf"Expected compile\(optimizer, loss, metrics\) before {method}. Received: a model that is not",
    ):
        getattr(model, method)(X, Y)
    assert not model.built
    model.compile("sgd")
    with pytest.raises(ValueError, match=rf"Expected a loss for {method}. Received: compile\(loss=None\)"):
        getattr(model, method)(X, Y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "adm"}, "Unknown optimizer. Did you mean 'adam'.*Received: 'adm'"),
        (
            {"loss": "sparse_crossentropy"},
            "Unknown loss. Did you mean .*'sparse_categorical_crossentropy'.*Received: 'sparse_crossentropy'",
        ),
        ({"metrics": ["acuracy"]}, "Unknown metric. Did you mean 'accuracy'"),
        ({"weighted_metrics": ["acuracy"]}, "Unknown metric. Did you mean 'accuracy'"),
        ({"memory_limit": -1}, "Expected memory_limit as a positive number of bytes. Received: memory_limit=-1"),
        ({"memory_limit": 0}, "Received: memory_limit=0"),
        ({"memory_limit": True}, "Received: memory_limit=True"),
        ({"memory_limit": 1e6}, "Received: memory_limit=1000000.0"),
        ({"memory_limit": "1 GB"}, "Received: memory_limit='1 GB'"),
    ],
)
def test_compile_refuses_what_it_does_not_know(model: gl.Sequential, arguments: dict[str, Any], message: str) -> None:
    optimizer = model.optimizer
    with pytest.raises(ValueError, match=message):
        model.compile(**({"optimizer": "adam", "loss": "mse"} | arguments))
    assert model.optimizer is optimizer


def test_compile_wants_metrics_as_a_list(model: gl.Sequential) -> None:
    with pytest.raises(TypeError, match="Expected metrics as a list. Received: 'accuracy'"):
        model.compile("sgd", "mse", metrics="accuracy")


def test_a_model_without_layers_says_so() -> None:
    with pytest.raises(ValueError, match="Expected at least one layer. Received: a model without layers"):
        gl.Sequential().predict(X)


def test_a_model_that_does_not_fit_its_first_data_stays_unbuilt() -> None:
    model = gl.Sequential([gl.layers.Dense(3), gl.layers.Dense(2, input_dim=5, name="wide")])
    with pytest.raises(ValueError, match=r"'wide'.*Expected an input of shape \(None, 5\).*\(None, 3\)"):
        model.predict(X)
    assert not model.built


def test_targets_of_a_regression_name_both_shapes() -> None:
    model = gl.Sequential([gl.layers.Dense(2, input_shape=(4,), name="out")])
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"loss 'mean_squared_error' of the output of layer 'out': .*\(None, 2\). Received: \(10, 3\)"
    ):
        model.fit(X, np.zeros((10, 3)))


def test_an_unknown_layer_option_is_named() -> None:
    with pytest.raises(ValueError, match="Unknown activation. Did you mean 'relu'"):
        gl.layers.Dense(3, activation="rellu")
