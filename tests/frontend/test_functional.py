"""Models from symbolic tensors: shared layers, nested models, several inputs and outputs, subclasses."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import layers
from gradloom.compiler.errors import ShapeError

RNG = np.random.default_rng(0)
LEFT = RNG.normal(size=(45, 4)).astype(np.float32)
RIGHT = RNG.normal(size=(45, 3)).astype(np.float32)
KIND = RNG.integers(0, 3, 45)
SIZE = RNG.normal(size=(45, 1)).astype(np.float32)


def two_by_two(**options: Any) -> gl.Model:
    """Two inputs, a layer shared by both, a nested model, two outputs."""
    left, right = gl.Input((4,), name="left"), gl.Input((3,), name="right")
    shared = layers.Dense(5, activation="tanh", name="shared")
    both = layers.concatenate([shared(left), shared(layers.Dense(4, name="widen")(right))], name="both")
    trunk = gl.Sequential([gl.Input((10,)), layers.Dense(6, "relu")], name="trunk")(both)
    kind = layers.Dense(3, activation="softmax", name="kind")(trunk)
    size = layers.Dense(1, name="size")(trunk)
    return gl.Model([left, right], [kind, size], **options)


def in_numpy(model: gl.Model) -> tuple[np.ndarray, np.ndarray]:
    w = {variable.path: variable.value.astype(np.float64) for variable in model.weights}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    hidden = np.tanh(dense(LEFT, "shared")), np.tanh(dense(dense(RIGHT, "widen"), "shared"))
    trunk = np.maximum(dense(np.concatenate(hidden, 1), "dense"), 0)
    e = np.exp(dense(trunk, "kind"))
    return e / e.sum(axis=1, keepdims=True), dense(trunk, "size")


def test_predictions_of_a_network_with_shared_layers_and_nested_models() -> None:
    model = two_by_two()
    assert model.input_names == ["left", "right"] and model.output_names == ["kind", "size"]
    assert model.input_shape == [(None, 4), (None, 3)] and model.output_shape == [(None, 3), (None, 1)]
    assert [layer.name for layer in model.layers] == [
        "left", "right", "shared", "widen", "both", "trunk", "kind", "size",
    ]  # fmt: skip
    assert len(model.weights) == 10, "the shared layer's weights are there once"
    for x in ([LEFT, RIGHT], (LEFT, RIGHT), {"right": RIGHT, "left": LEFT}):
        for result, expected in zip(model.predict(x), in_numpy(model), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nested", [lambda tensor: [tensor], lambda tensor: {"it": tensor}], ids=["list", "dict"])
def test_a_list_or_dict_of_one_input_takes_its_data_alone(nested: Any) -> None:
    inputs = gl.Input((4,), name="it")
    outputs = layers.Dense(1, name="out")(inputs)
    plain, model = gl.Model(inputs, outputs), gl.Model(nested(inputs), [outputs])
    expected = plain.predict(LEFT)
    for x in (LEFT, nested(LEFT), LEFT.tolist()):
        (result,) = model.predict(x)
        np.testing.assert_array_equal(result, expected)
    (result,) = model(LEFT)
    np.testing.assert_array_equal(result, expected)
    weights = np.linspace(0, 1, 45, dtype=np.float32)
    for network in (plain, model):
        network.compile("sgd", "mse")
    loss = plain.evaluate(LEFT, SIZE, sample_weight=weights, verbose=0)
    assert model.evaluate(LEFT, SIZE, sample_weight=weights, verbose=0) == loss
    histories, start = [], plain.get_weights()
    for network in (plain, model):
        network.set_weights(start)
        fitted = network.fit(LEFT, SIZE, validation_data=(LEFT, SIZE), shuffle=False, verbose=0)
        histories.append(fitted.history)
    assert histories[0] == histories[1]


def loss_of(model: gl.Model) -> tuple[float, float]:
    kind, size = in_numpy(model)
    return float(-np.log(kind[np.arange(45), KIND]).mean()), float(((size - SIZE) ** 2).mean())


@pytest.mark.parametrize(
    ("losses", "weights", "targets"),
    [
        (["sparse_categorical_crossentropy", "mse"], [1.0, 0.25], [KIND, SIZE]),
        (
            {"size": "mse", "kind": "sparse_categorical_crossentropy"},
            {"size": 0.25},
            {"kind": KIND, "size": SIZE},
        ),
    ],
    ids=["lists", "dicts"],
)
def test_losses_of_outputs_are_weighted_and_logged(losses: Any, weights: Any, targets: Any) -> None:
    model = two_by_two()
    metrics = {"kind": ["accuracy"], "size": "mae"} if isinstance(losses, dict) else [["accuracy"], ["mae"]]
    model.compile(gl.optimizers.SGD(0.1), losses, weights, metrics)
    logs = model.evaluate([LEFT, RIGHT], targets, batch_size=32, return_dict=True, verbose=0)
    assert isinstance(logs, dict)
    kind, size = loss_of(model)
    assert list(logs) == ["loss", "kind_loss", "size_loss", "kind_accuracy", "size_mae"] == model.metrics_names
    assert logs["kind_loss"] == pytest.approx(kind, rel=1e-4) and logs["size_loss"] == pytest.approx(size, rel=1e-4)
    assert logs["loss"] == pytest.approx(kind + 0.25 * size, rel=1e-4)
    predictions = in_numpy(model)
    assert logs["kind_accuracy"] == pytest.approx((predictions[0].argmax(1) == KIND).mean())
    assert logs["size_mae"] == pytest.approx(np.abs(predictions[1] - SIZE).mean(), rel=1e-4)


def test_a_step_follows_the_differences_of_the_weighted_loss() -> None:
    model = two_by_two()
    model.compile(gl.optimizers.SGD(1e-2), ["sparse_categorical_crossentropy", "mse"], loss_weights=[1.0, 0.25])
    kernel = model.get_layer("shared").weights[0]
    before = kernel.numpy()
    expected = np.zeros_like(before)
    for place in np.ndindex(before.shape):
        sides = []
        for step in (1e-3, -1e-3):
            moved = before.copy()
            moved[place] += step
            kernel.assign(moved)
            kind, size = loss_of(model)
            sides.append(kind + 0.25 * size)
        kernel.assign(before)
        expected[place] = before[place] - 1e-2 * (sides[0] - sides[1]) / 2e-3
    model.train_on_batch([LEFT, RIGHT], [KIND, SIZE])
    np.testing.assert_allclose(kernel.value, expected, atol=1e-5)


def test_training_lowers_the_loss_and_validates() -> None:
    model = two_by_two()
    model.compile("adam", ["sparse_categorical_crossentropy", "mse"])
    history = model.fit(
        {"left": LEFT, "right": RIGHT}, [KIND, SIZE], epochs=20, batch_size=16, validation_split=0.2, verbose=0
    )
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert {"val_loss", "val_kind_loss", "val_size_loss"} < set(history.history)


def test_sample_weights_for_all_outputs_or_each() -> None:
    model = two_by_two()
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    weight = RNG.random(45).astype(np.float32)
    kind, size = in_numpy(model)
    plain = -np.log(kind[np.arange(45), KIND]), ((size - SIZE) ** 2)[:, 0]
    x, y = [LEFT, RIGHT], [KIND, SIZE]
    shared = model.evaluate(x, y, sample_weight=weight, return_dict=True, verbose=0)
    one = model.evaluate(x, y, sample_weight={"size": weight}, return_dict=True, verbose=0)
    assert isinstance(shared, dict) and isinstance(one, dict)
    assert shared["kind_loss"] == pytest.approx((plain[0] * weight).mean(), rel=1e-4)
    assert one["kind_loss"] == pytest.approx(plain[0].mean(), rel=1e-4)
    assert shared["size_loss"] == pytest.approx(one["size_loss"]) == pytest.approx((plain[1] * weight).mean(), rel=1e-4)


def test_an_output_without_a_loss_needs_no_targets() -> None:
    model = two_by_two()
    model.compile("sgd", {"size": "mse"})
    frozen = model.get_layer("kind").get_weights()
    history = model.fit([LEFT, RIGHT], {"size": SIZE}, verbose=0)
    assert list(history.history) == ["loss", "size_loss"]
    for before, after in zip(frozen, model.get_layer("kind").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_dicts_in_and_out() -> None:
    left = gl.Input((4,))
    hidden = layers.Dense(2, name="hidden")(left)
    model = gl.Model({"a": left}, {"twice": hidden * 2.0, "plain": hidden})
    assert model.input_names == ["a"] and model.output_names == ["plain", "twice"]
    result = model.predict({"a": LEFT})
    np.testing.assert_allclose(result["twice"], 2 * result["plain"], rtol=1e-6)
    model.compile("sgd", {"plain": "mse"})
    model.fit({"a": LEFT}, {"plain": LEFT[:, :2]}, verbose=0)


def test_a_model_is_called_like_a_layer_on_tensors_values_and_arrays() -> None:
    inner = two_by_two(name="inner")
    left, right = gl.Input((4,)), gl.Input((3,))
    kind, _ = inner([left, right])
    outer = gl.Model([left, right], layers.Dense(2)(kind))
    assert outer.get_layer("inner") is inner
    assert len(outer.weights) == 12 and outer.weights[:10] == inner.weights
    expected = inner.predict([LEFT, RIGHT])[0] @ outer.weights[-2].value + outer.weights[-1].value
    np.testing.assert_allclose(outer.predict([LEFT, RIGHT]), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outer([LEFT, RIGHT]), expected, rtol=1e-4, atol=1e-5)
    paths = {variable.path for variable in outer.weights}
    assert {"shared/kernel", "dense/kernel"} <= paths


def inner_models() -> list[gl.Model]:
    inputs = gl.Input((4,))
    return [
        gl.Model(inputs, layers.Dense(3)(inputs), name="inner"),
        gl.Sequential([gl.Input((2, 2)), layers.Flatten(), layers.Dense(3)], name="inner"),
    ]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3), ()])
def test_a_nested_model_names_the_shape_that_it_was_given(which: int, shape: tuple[int, ...]) -> None:
    inner = inner_models()[which]
    message = rf"Model 'inner': Expected an input of shape {re.escape(str(inner.input_shape))}. Received: shape "
    message += re.escape(str((None, *shape)))
    with pytest.raises(ShapeError, match=message):
        inner(gl.Input(shape))


def test_a_nested_model_of_several_inputs_names_the_one_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"Model '.*', input 'right': Expected .*\(None, 3\). Received: .*\(None, 7\)"):
        two_by_two()([gl.Input((4,)), gl.Input((7,))])


def test_a_nested_model_that_defines_call_takes_what_it_can() -> None:
    class Net(gl.Model):
        def call(self, x: Any) -> Any:
            return gl.ops.sum(x, axis=-1, keepdims=True)

    net = Net()
    assert net.predict(LEFT).shape == (45, 1)
    assert net(gl.Input((9, 9))).shape == (None, 9, 1)


def test_models_of_what_lies_between() -> None:
    """Feature maps: a model from another one's input to the output of a layer inside."""
    model = gl.Sequential([gl.Input((4,)), layers.Dense(5, name="first"), layers.ReLU(), layers.Dense(2)])
    features = gl.Model(model.input, model.get_layer("first").output)
    first, bias, *_ = model.get_weights()
    np.testing.assert_allclose(features.predict(LEFT), LEFT @ first + bias, rtol=1e-4, atol=1e-5)
    tail = gl.Model(model.get_layer("first").output, model.output)
    np.testing.assert_allclose(tail.predict(features.predict(LEFT)), model.predict(LEFT), rtol=1e-4, atol=1e-5)
    shared = layers.Dense(2)
    shared(gl.Input((2,))), shared(gl.Input((2,)))
    with pytest.raises(AttributeError, match="Expected one call on symbolic tensors. Received: 2"):
        _ = shared.output


def test_the_training_flag_reaches_recorded_layers_unless_the_call_said_another() -> None:
    x = gl.Input((4,))
    free, pinned = layers.BatchNormalization(name="free"), layers.BatchNormalization(name="pinned")
    model = gl.Model(x, layers.Dense(1)(free(x) + pinned(x, training=False)))
    model.compile("sgd", "mse")
    model.fit(LEFT, SIZE, verbose=0)
    assert not np.allclose(free.moving_mean.value, 0)
    np.testing.assert_array_equal(pinned.moving_mean.value, np.zeros(4))


class Scaled(layers.Layer):
    """Takes a list of tensors and has a weight of its own, as Keras users write layers."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.shapes = input_shape
        self.kernel = self.add_weight(shape=(input_shape[0][-1], self.units), initializer="ones", name="kernel")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        x, factor = inputs
        return gl.ops.matmul(x, self.kernel) * factor, factor


def test_layers_of_several_tensors() -> None:
    left, right = gl.Input((4,)), gl.Input((1,))
    layer = Scaled(2)
    product, factor = layer([left, right])
    assert layer.shapes == [(None, 4), (None, 1)] and product.shape == (None, 2) and factor.shape == (None, 1)
    assert layer.compute_output_shape([(None, 4), (None, 1)]) == ((None, 2), (None, 1))
    model = gl.Model([left, right], product)
    expected = LEFT.sum(axis=1, keepdims=True) * SIZE * np.ones(2)
    np.testing.assert_allclose(model.predict([LEFT, SIZE]), expected, rtol=1e-4, atol=1e-5)


class Regression(gl.Model):
    """A model that is a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(8, activation="tanh")
        self.normalize = layers.BatchNormalization()
        self.out = layers.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        left, right = inputs
        x = self.normalize(gl.ops.concatenate([left, right], axis=1))
        return self.out(self.hidden(x)) * (1.0 if training else 2.0)


def test_subclassed_models_are_built_by_their_first_data() -> None:
    model = Regression()
    model.compile("adam", "mse", metrics=["mae"])
    assert not model.built
    history = model.fit([LEFT, RIGHT], SIZE, epochs=15, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert [layer.name for layer in model.layers] == ["dense", "batch_normalization", "dense_1"]
    assert not np.allclose(model.normalize.moving_mean.value, 0)
    assert model.output_shape == (None, 1) and model.input_shape == [(None, 4), (None, 3)]
    mean = model.predict([LEFT, RIGHT])
    assert mean.shape == (45, 1)
    assert model.evaluate([LEFT, RIGHT], mean, return_dict=True, verbose=0)["mae"] == pytest.approx(0, abs=1e-6)  # type: ignore[call-overload,index]
    model.summary(print_fn=lambda text: None)


def test_a_model_that_defines_no_call_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Expected inputs and outputs, or a class that defines call"):
        gl.Model().predict(LEFT)


def test_nodes_come_from_the_lines_that_the_layers_were_called_in() -> None:
    x = gl.Input((4,))
    hidden = layers.Dense(3, name="hidden")(x)
    here = gl.compiler.provenance.user_line()
    y = layers.ReLU()(hidden)
    graph = gl.Model(x, y).predict_graph(batch_size=2)
    path, line = here.rsplit(":", 1)
    lines = {}
    for value in graph.values:
        for origin in graph.provenance[value]:
            lines.setdefault(value.op.name, set()).add(origin.source)
    assert lines["matmul"] == {f"{path}:{int(line) - 1}"} and lines["maximum"] == {f"{path}:{int(line) + 1}"}


def test_summary_says_what_is_connected_to_what() -> None:
    lines: list[str] = []
    two_by_two().summary(print_fn=lines.append)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[0].splitlines() if line.startswith("│")]
    assert rows == [
        ["Layer (type)", "Output Shape", "Param #", "Connected to"],
        ["left (InputLayer)", "(None, 4)", "0", ""],
        ["right (InputLayer)", "(None, 3)", "0", ""],
        ["shared (Dense)", "(None, 5)", "25", "left[0][0], widen[0][0]"],
        ["widen (Dense)", "(None, 4)", "16", "right[0][0]"],
        ["both (Concatenate)", "(None, 10)", "0", "shared[0][0], shared[1][0]"],
        ["trunk (Sequential)", "(None, 6)", "66", "both[0][0]"],
        ["kind (Dense)", "(None, 3)", "21", "trunk[0][0]"],
        ["size (Dense)", "(None, 1)", "7", "trunk[0][0]"],
    ]
    two_by_two().summary(print_fn=lines.append, expand_nested=True)
    assert "   └ dense_1 (Dense)" in lines[1] and "   └ " not in lines[0]
    assert " Total params: 135 (540.00 B)" in lines[0]


def test_the_summary_of_a_chain_has_no_connections() -> None:
    x = gl.Input((4,))
    lines: list[str] = []
    gl.Model(x, layers.Dense(2)(layers.ReLU()(x))).summary(print_fn=lines.append)
    assert "Connected to" not in lines[0] and "re_lu (ReLU)" in lines[0]


def test_deep_networks_do_not_exhaust_the_stack() -> None:
    x = y = gl.Input((1,))
    for _ in range(1500):
        y = y + 1.0
    assert len(gl.Model(x, y).call_graph.calls) == 1500


def test_an_output_that_needs_another_input_is_named() -> None:
    left, right = gl.Input((4,), name="left"), gl.Input((4,), name="right")
    both = layers.Add(name="both")([left, right])
    with pytest.raises(
        ValueError,
        match=r"Model 'model': Expected outputs that are computed from its inputs 'left' alone. "
        r"Received: output 'both' of shape \(None, 4\), which depends on 'right' of shape \(None, 4\)",
    ):
        gl.Model(left, both)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x: gl.Model(x), ValueError, "Expected inputs and outputs. Received: outputs=None"),
        (lambda x: gl.Model(x, np.ones(3)), TypeError, "Expected outputs as symbolic tensors, made by gl.Input"),
        (lambda x: gl.Model([x, x], x), ValueError, "Expected inputs that differ"),
        (
            lambda x: gl.Model(x, [layers.ReLU(name="a")(x), layers.ReLU(name="a")(x)]),
            ValueError,
            "Expected layers of different names. Received: several called 'a'",
        ),
    ],
)
def test_what_is_no_network(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make(gl.Input((4,)))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda m: m.predict(LEFT),
            ValueError,
            r"Expected x as a list, or a dict, of 2 arrays, for \['left', 'right'\]",
        ),
        (lambda m: m.predict([LEFT]), ValueError, "of 2 arrays, .*Received: 1"),
        (lambda m: m.predict({"left": LEFT}), ValueError, r"Expected x by the names \['left', 'right'\]. Received"),
        (
            lambda m: m.predict([LEFT, LEFT]),
            ShapeError,
            r"Model 'model', input 'right': Expected an input of shape \(None, 3\). "
            r"Received: x\['right'\] of shape \(45, 4\)",
        ),
        (lambda m: m.predict([LEFT, RIGHT[:9]]), ValueError, "Expected x.right with as many samples as x.left, 45"),
        (lambda m: m.fit([LEFT, RIGHT], [KIND]), ValueError, "Expected y as a list, or a dict, of 2 arrays"),
        (lambda m: m.fit([LEFT, RIGHT], {"kind": KIND}), ValueError, "Expected targets y.size beside x"),
        (lambda m: m.fit([LEFT, RIGHT], [KIND, SIZE[:3]]), ValueError, "Expected y.size with as many samples"),
        (
            lambda m: m.fit([LEFT, RIGHT], [KIND + 7, SIZE]),
            ValueError,
            r"of the output of layer 'kind': Expected class labels in \[0, 3\)",
        ),
        (
            lambda m: m.fit([LEFT, RIGHT], [KIND, SIZE], class_weight={0: 2.0}),
            ValueError,
            "class_weight needs a model with one output",
        ),
    ],
)
def test_bad_data(call: Any, kind: type[Exception], message: str) -> None:
    model = two_by_two()
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    with pytest.raises(kind, match=message):
        call(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"loss": ["mse"]},
            r"Expected loss with an entry for each of the outputs \['kind', 'size'\]. Received: 1 of them",
        ),
        ({"loss": {"sizes": "mse"}}, r"Expected loss for the outputs \['kind', 'size'\].*\['sizes'\]"),
        ({"loss": "mse", "metrics": ["mae"]}, "Expected metrics with an entry for each of the outputs"),
        ({"loss": [None, None]}, "Expected a loss for one of the outputs"),
    ],
)
def test_bad_settings(arguments: Any, message: str) -> None:
    model = two_by_two()
    model.compile("sgd", **arguments)
    with pytest.raises(ValueError, match=message):
        model.fit([LEFT, RIGHT], [np.eye(3)[KIND], SIZE])


def test_graphs_of_several_inputs_can_be_inspected() -> None:
    model = two_by_two()
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    labels = [value.op.attributes["label"] for value in model.train_graph(8).inputs]
    assert {"x.left", "x.right", "y.kind", "y.size", "rows"} <= set(labels)
    outputs = [output.name for output in model.predict_graph(8).outputs]
    assert outputs == ["predictions.kind", "predictions.size"]
