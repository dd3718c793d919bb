"""What belongs to a layer: layers and variables in containers, and when new ones may be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers
from gradloom.variables import Variable

X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


class Pair(NamedTuple):
    first: Any
    second: Any


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "dict": lambda a, b: {"a": a, "b": b},
    "set": lambda a, b: {a, b},
    "named tuple": lambda a, b: Pair(a, b),
    "lists in lists": lambda a, b: [[a], [[b]]],
    "dicts in dicts": lambda a, b: {"a": {"a": a}, "b": {0: b}},
    "lists in dicts": lambda a, b: {"both": [a, (b, 3, None, "text")]},
    "dicts in lists": lambda a, b: [{"a": a}, {"b": b}],
}


class Holds(layers.Layer):
    """Applies whatever it holds, one after the other."""

    def __init__(self, held: Any, order: list[Any]) -> None:
        super().__init__()
        self.held = held
        self.names = [one.name for one in order]

    def call(self, x: Any) -> Any:
        for name in self.names:
            found = next(one for one in [*self._sublayers, *self._own_variables] if one.name == name)
            x = found(x) if isinstance(found, layers.Layer) else x * found
        return x


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("wrapped", [True, False])
def test_layers_in_containers_are_trained(kind: str, wrapped: bool) -> None:
    both = [layers.Dense(3, name="one"), layers.Dense(3, name="two")]
    holder = Holds(CONTAINERS[kind](*both), both)
    model = gl.Sequential([gl.Input((3,)), holder]) if wrapped else gl.Model(x := gl.Input((3,)), holder(x))
    model.compile("sgd", "mse")
    assert holder._sublayers == both and len(model.trainable_weights) == 4
    before = model.get_weights()
    model.fit(X, X + 1, verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    holder.trainable = False
    assert not both[0].trainable and not model.trainable_weights and len(model.weights) == 4


@pytest.mark.parametrize("kind", CONTAINERS)
def test_variables_in_containers_are_trained(kind: str) -> None:
    both = [Variable(np.ones(3, np.float32), name=name, path=f"mine/{name}") for name in ("one", "two")]
    holder = Holds(CONTAINERS[kind](*both), both)
    model = gl.Sequential([gl.Input((3,)), holder])
    model.compile("sgd", "mse")
    model.fit(X, X + 1, verbose=0)
    assert model.trainable_weights == both
    assert all(np.any(variable.value != 1) for variable in both)


def test_what_is_held_twice_or_holds_itself_is_counted_once() -> None:
    dense = layers.Dense(3)
    ring: list[Any] = [dense]
    ring.append(ring)
    holder = Holds([ring, {"again": dense, "ring": ring}], [dense])
    model = gl.Sequential([gl.Input((3,)), holder])
    assert holder._sublayers == [dense] and len(model.weights) == 2


class Hidden:
    """An object of the user's own, into which a layer does not look."""

    def __init__(self) -> None:
        self.scale = Variable(np.ones(3, np.float32), path="hidden/scale")


def hidden_in_a_layer(hidden: Hidden) -> gl.Model:
    class Scale(layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="scaling")
            self.hidden = hidden

        def call(self, x: Any) -> Any:
            return x * self.hidden.scale

    return gl.Sequential([gl.Input((3,)), Scale(), layers.Dense(1)])


def hidden_in_a_lambda(hidden: Hidden) -> gl.Model:
    function = layers.Lambda(lambda x: x * hidden.scale, name="scaling")
    return gl.Sequential([gl.Input((3,)), function, layers.Dense(1)])


@pytest.mark.parametrize("make", [hidden_in_a_layer, hidden_in_a_lambda])
def test_a_trainable_variable_that_no_layer_has_is_refused_in_training(make: Callable[[Hidden], gl.Model]) -> None:
    hidden = Hidden()
    model = make(hidden)
    model.compile("sgd", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"'hidden/scale'.*layer 'scaling'.*trainable=False"):
        model.fit(X, X[:, :1], verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.predict(X).shape == (20, 1), "nothing is wrong about a prediction"
    hidden.scale.trainable = False
    model.fit(X, X[:, :1], verbose=0)


def test_a_trainable_variable_of_the_loss_is_refused_too() -> None:
    factor = Variable(np.float32(2), path="factor")
    model = gl.Sequential([gl.Input((3,)), layers.Dense(3)])
    model.compile("sgd", lambda y, p: gl.ops.mean(gl.ops.square(y - p), axis=-1) * factor)
    with pytest.raises(ValueError, match="'factor'"):
        model.fit(X, X, verbose=0)


def test_frozen_layers_and_variables_that_calls_have_are_the_models() -> None:
    inputs = gl.Input((3,))
    offset = Variable(np.zeros(3, np.float32), path="offset")
    frozen = layers.Dense(3, trainable=False)
    arguments = layers.Lambda(lambda x, by: x * by, arguments={"by": Variable(np.ones(3, np.float32), path="by")})
    model = gl.Model(inputs, arguments(frozen(inputs) + offset))
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    assert [variable.path for variable in model.trainable_weights] == ["offset", "by"]


# New ones inside `call`.


class WeightInCall(layers.Layer):
    def call(self, x: Any) -> Any:
        return x * self.add_weight((3,), name="late")


class LayerInCall(layers.Layer):
    def call(self, x: Any) -> Any:
        return layers.Dense(3, name="late")(x)


class AttributeInCall(layers.Layer):
    def call(self, x: Any) -> Any:
        self.late = layers.Dense(3, name="late")
        return self.late(x)


class VariableInCall(layers.Layer):
    def call(self, x: Any) -> Any:
        self.late = Variable(np.ones(3, np.float32), path="late")
        return x * self.late


class DropoutInCall(layers.Layer):
    def call(self, x: Any, training: bool = False) -> Any:
        return layers.Dropout(0.5, name="late")(x)


class Around(layers.Layer):
    def __init__(self, inside: layers.Layer) -> None:
        super().__init__()
        self.inside = inside

    def call(self, x: Any) -> Any:
        return self.inside(x)


LATE = [WeightInCall, LayerInCall, AttributeInCall, VariableInCall, DropoutInCall]


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("around", [False, True])
def test_weights_made_in_call_are_refused(kind: type[layers.Layer], around: bool) -> None:
    layer = kind(name="mine")
    with pytest.raises(ValueError, match=rf"Layer 'mine' \({kind.__name__}\).*build.*late"):
        gl.Sequential([gl.Input((3,)), Around(layer) if around else layer])


def test_weights_made_in_the_call_of_a_model_are_refused() -> None:
    class Net(gl.Model):
        def call(self, x: Any) -> Any:
            return layers.Dense(3, name="late")(x)

    with pytest.raises(ValueError, match=r"Layer 'mine' \(Net\).*build.*late"):
        Net(name="mine").predict(X)


def test_layers_without_weights_may_be_made_in_call() -> None:
    class Net(gl.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return layers.add([layers.ReLU()(self.dense(x)), x])

    model = Net()
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    assert len(model.weights) == 2


def test_layers_made_in_build_are_the_layers_own_wherever_it_is_first_called() -> None:
    class Block(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.inner = [layers.Dense(3), layers.Dropout(0.5)]
            self.scale = self.add_weight((3,), "ones", name="scale")

        def call(self, x: Any) -> Any:
            for layer in self.inner:
                x = layer(x)
            return x * self.scale

    class Net(gl.Model):
        def __init__(self) -> None:
            super().__init__()
            self.block = Around(Block())

        def call(self, x: Any) -> Any:
            return self.block(x)

    model = Net()
    model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    assert len(model.weights) == 3


# What a layer is told wrongly.


def test_a_subclass_that_forgets_its_base_is_told_so() -> None:
    class Forgets(layers.Layer):
        def __init__(self) -> None:
            self.dense = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    forgets = Forgets()
    for use in (lambda: forgets(gl.Input((3,))), lambda: forgets.weights, lambda: forgets.name, lambda: repr(forgets)):
        with pytest.raises(AttributeError, match=r"Forgets.*super\(\).__init__\(\)"):
            use()
    with pytest.raises(AttributeError, match="^'Dense' object has no attribute 'kernal'$"):
        layers.Dense(3).kernal  # noqa: B018


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (lambda x: None, "None"),
        (lambda x: np.ones((2, 3)), r"a NumPy array of shape \(2, 3\)"),
        (lambda x: [x, np.ones(3)], r"a NumPy array of shape \(3,\)"),
        (lambda x: 3.0, "3.0"),
        (lambda x: [], r"\[\]"),
        (lambda x: "text", "'text'"),
    ],
)
def test_what_call_returns_is_a_tensor(function: Callable[[Any], Any], received: str) -> None:
    with pytest.raises(TypeError, match=rf"Layer 'mine' \(Lambda\): Expected call to return .*Received: {received}"):
        layers.Lambda(function, name="mine")(gl.Input((3,)))


def test_a_layer_may_return_a_weight_or_nothing_beside_a_tensor() -> None:
    class Table(layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.table = self.add_weight((4, 3), "ones")

        def call(self, x: Any) -> Any:
            return {"table": self.table, "none": None, "sum": gl.ops.matmul(x, gl.ops.transpose(self.table))}

    inputs = gl.Input((3,))
    results = Table()(inputs)
    assert results["none"] is None and results["table"].shape == (4, 3) and results["sum"].shape == (None, 4)
