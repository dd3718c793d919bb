"""Copies: `copy.deepcopy` makes an independent model; what cannot be pickled says what to do instead."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers
from gradloom.compiler.program import ALIGNMENT
from gradloom.symbolic import SymbolicTensor
from gradloom.variables import Variable

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(20, 2)).astype(np.float32)


def sequential() -> gl.Model:
    return gl.Sequential([layers.Dense(5, "relu", input_shape=(4,)), layers.Dropout(0.5), layers.Dense(2)])


def functional() -> gl.Model:
    """A layer that is called twice, a nested model, a variable in the midst, a function of the user's own."""
    inputs = gl.Input((4,), name="it")
    shared = layers.Dense(4, activation=lambda x: x * 2.0, name="shared")
    offset = Variable(np.ones(4, np.float32), path="offset")
    inner = gl.Sequential([gl.Input((4,)), layers.BatchNormalization(), layers.Dense(3)], name="inner")
    hidden = inner(gl.ops.tanh(shared(shared(inputs))) + offset)
    return gl.Model([inputs], layers.Dense(2, name="out")(hidden))


class Subclass(gl.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(4, "tanh"), layers.Dense(2)]
        self.scale = gl.function(lambda x: x * 2.0)

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.scale(x)


def subclass() -> gl.Model:
    model = Subclass()
    model.build((None, 4))
    return model


MAKERS = [sequential, functional, subclass]


def fit(model: gl.Model, **options: Any) -> dict[str, list[float]]:
    return model.fit(X, Y, epochs=2, shuffle=False, verbose=0, **options).history


@pytest.mark.parametrize("make", MAKERS)
def test_a_copy_goes_on_as_the_model_does_and_leaves_it_alone(make: Callable[[], gl.Model]) -> None:
    model = make()
    model.compile("adam", "mse", metrics=["mae"])
    fit(model)
    copied = copy.deepcopy(model)
    weights = model.get_weights()
    np.testing.assert_array_equal(copied.predict(X), model.predict(X))
    histories = [fit(copied)]
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    histories.append(fit(model))
    assert histories[0] == histories[1], "the optimizer's state and the dropout's counter are copied, too"
    for one, other in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not set(copied.weights) & set(model.weights)


@pytest.mark.parametrize("make", MAKERS)
def test_the_tensors_of_a_copy_are_those_of_its_layers(make: Callable[[], gl.Model]) -> None:
    model = make()
    copied = copy.deepcopy(model)
    texts: list[str] = []
    for one in (model, copied):
        one.summary(texts.append)
    assert texts[0] == texts[1]
    assert [layer.name for layer in copied.layers] == [layer.name for layer in model.layers]
    assert not set(copied.layers) & set(model.layers)
    tensor = copied.outputs[0]
    if make is not subclass:
        assert copied.layers[-1].output is tensor
    assert isinstance(copied.inputs[0], SymbolicTensor) and copied.inputs[0] is not model.inputs[0]
    features = gl.Model(copied.inputs, [tensor, gl.ops.relu(tensor)])
    np.testing.assert_array_equal(features.predict(X)[0], model.predict(X))


def test_a_sequential_model_grows_apart_from_its_copy() -> None:
    model = gl.Sequential([gl.Input((4,))])
    copied = copy.deepcopy(model)
    copied.add(layers.Dense(3))
    again = copy.deepcopy(copied)
    again.add(layers.Dense(2))
    assert [len(one.layers) for one in (model, copied, again)] == [0, 1, 2]
    assert (copied.output_shape, again.output_shape) == ((None, 3), (None, 2))
    unbuilt = copy.deepcopy(gl.Sequential([layers.Dense(3)]))
    assert unbuilt.predict(X).shape == (20, 3)


def test_the_depth_of_a_network_is_no_limit() -> None:
    x = inputs = gl.Input((4,))
    shared = layers.Dense(4, name="shared")
    for number in range(400):
        x = shared(x) if number % 100 == 0 else layers.ReLU()(x)
    copied = copy.deepcopy(gl.Model(inputs, x))
    assert len(copied.layers) == 398 and len(copied.get_layer("shared")._calls) == 4


def test_copies_of_layers_and_tensors() -> None:
    entry = layers.InputLayer((4,))
    dense = layers.Dense(3)
    tensor = dense(entry.tensor)
    assert copy.deepcopy(entry).tensor.shape == (None, 4)
    assert copy.deepcopy(dense).get_weights()[0].tobytes() == dense.get_weights()[0].tobytes()
    copied = copy.deepcopy(tensor)
    assert copied.call is not None and copied.call.operation is not dense and copied.shape == (None, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda variable: pickle.loads(pickle.dumps(variable))])
def test_copies_of_variables_are_aligned(copied: Callable[[Variable], Variable]) -> None:
    for size in range(1, 20):
        variable = Variable(np.arange(size, dtype=np.float32), path="w")
        other = copied(variable)
        assert other.value.ctypes.data % ALIGNMENT == 0 and not np.shares_memory(other.value, variable.value)
        other.assign(other.value + 1)
        np.testing.assert_array_equal(other.value, variable.value + 1)


@gl.function
def double(x: Any) -> Any:
    return x * 2.0


def test_a_compiled_function_is_copied_and_pickled_as_a_function_is() -> None:
    assert copy.deepcopy(double) is double and copy.copy(double) is double
    assert pickle.loads(pickle.dumps(double)) is double
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(gl.function(lambda x: x))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("keep", [pickle.dumps, copy.copy])
def test_a_model_is_kept_by_saving_it(make: Callable[[], gl.Model], keep: Callable[[Any], Any]) -> None:
    model = make()
    with pytest.raises(TypeError, match=rf"Model '{model.name}': Expected copy.deepcopy.*model.save\(path\)"):
        keep(model)
