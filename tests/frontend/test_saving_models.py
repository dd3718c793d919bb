"""Whole models in files: they predict and train on as before, in another process too; a file is nothing but data."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_networks import networks

import gradloom as gl
from gradloom.saving import ConfigError, SavedFileError
from gradloom.saving.objects import _own_things
from gradloom.saving.state import model_variables
from gradloom.trees import map_leaves

FEW = settings(
    max_examples=8,
    suppress_health_check=list(HealthCheck),
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # Each example compiles a network: making one small takes long.
)


def data_of(model: gl.Model, samples: int = 5) -> tuple[Any, Any]:
    """Features and targets that fit a model, in its structures."""
    rng = np.random.default_rng(7)
    x, y = (
        map_leaves(lambda t: rng.random((samples, *t.shape[1:]), np.float32), tree)
        for tree in (model.input, model.output)
    )
    return x, y


def arrays(tree: Any) -> list[np.ndarray]:
    return list(tree.values()) if isinstance(tree, dict) else list(tree) if isinstance(tree, list) else [tree]


def same_bits(left: Any, right: Any) -> bool:
    pairs = zip(arrays(left), arrays(right), strict=True)
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def state(model: gl.Model) -> dict[str, bytes]:
    return {name: variable.value.tobytes() for name, variable in model_variables(model).items()}


def train(model: gl.Model, epochs: int = 1) -> None:
    gl.utils.set_random_seed(11)
    model.fit(*data_of(model), epochs=epochs, batch_size=2, verbose=0)


@FEW
@given(model=networks())
def test_a_loaded_model_predicts_the_same_and_says_the_same(tmp_path: Path, model: gl.Model) -> None:
    path = tmp_path / "m.gradloom"
    model.save(path)
    loaded = gl.models.load_model(path)
    assert loaded.to_json() == model.to_json() and state(loaded) == state(model)
    assert loaded.input_names == model.input_names and loaded.output_names == model.output_names
    x, _ = data_of(model)
    assert same_bits(loaded.predict(x), model.predict(x))


@settings(FEW, max_examples=4)
@given(model=networks(), momentum=st.booleans())
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, model: gl.Model, momentum: bool) -> None:
    optimizer = gl.optimizers.SGD(0.01, momentum=0.9) if momentum else gl.optimizers.Adam(0.01, weight_decay=0.01)
    model.compile(optimizer, "mse")
    train(model)
    model.save(tmp_path / "m.gradloom")
    loaded = gl.models.load_model(tmp_path / "m.gradloom")
    train(model)
    train(loaded)
    assert state(loaded) == state(model)


CHILD = """
import sys, numpy as np, gradloom as gl
from test_saving_models import data_of, same_bits, state, train, arrays
folder = sys.argv[1]
for number in range(int(sys.argv[2])):
    model = gl.models.load_model(f"{folder}/{number}.gradloom")
    found = model.predict(data_of(model)[0])
    train(model)
    np.savez(f"{folder}/{number}-child.npz", *arrays(found), *(v.value for v in model.weights))
"""


@settings(FEW, max_examples=1)
@given(models=st.lists(networks(), min_size=3, max_size=3))
def test_another_process_predicts_and_trains_on_the_same(tmp_path: Path, models: list[gl.Model]) -> None:
    for number, model in enumerate(models):
        model.compile("adam", "mse")
        train(model)
        model.save(tmp_path / f"{number}.gradloom")
        found = model.predict(data_of(model)[0])
        train(model)
        np.savez(tmp_path / f"{number}.npz", *arrays(found), *(v.value for v in model.weights))
    run(CHILD, str(tmp_path), str(len(models)))
    for number in range(len(models)):
        with np.load(tmp_path / f"{number}.npz") as here, np.load(tmp_path / f"{number}-child.npz") as there:
            assert same_bits(dict(here), dict(there))


def run(code: str, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# What is kept besides the weights.


def small(*layers: Any, width: int = 3) -> gl.Sequential:
    return gl.Sequential([gl.Input((width,)), *layers])


def saved(model: gl.Model, tmp_path: Path, **options: Any) -> gl.Model:
    model.save(tmp_path / "m.gradloom")
    return gl.models.load_model(tmp_path / "m.gradloom", **options)


def test_what_compile_was_told_is_kept(tmp_path: Path) -> None:
    rate = gl.optimizers.schedules.CosineDecay(0.1, 7, warmup_target=0.2, warmup_steps=3)
    model = small(gl.layers.Dense(4, activation="softmax"), gl.layers.BatchNormalization(name="normalization"))
    model.compile(
        gl.optimizers.Adam(rate, amsgrad=True, weight_decay=0.1),
        gl.losses.SparseCategoricalCrossentropy(ignore_class=2),
        metrics=["accuracy", gl.metrics.SparseTopKCategoricalAccuracy(2, name="top")],
        weighted_metrics=[gl.losses.SparseCategoricalCrossentropy()],
        memory_limit=1 << 30,
    )
    assert model.optimizer is not None
    model.optimizer.exclude_from_weight_decay([model.weights[1]], ["gam+a"])
    model.fit(np.ones((4, 3)), np.zeros(4), verbose=0)
    loaded = saved(model, tmp_path)
    assert loaded.optimizer is not None
    assert loaded.metrics_names == ["loss"]
    loaded.evaluate(np.ones((4, 3)), np.zeros(4), verbose=0)
    assert loaded.metrics_names == model.metrics_names
    assert loaded.get_compile_config()["memory_limit"] == 1 << 30
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.spared == {loaded.weights[1], loaded.get_layer("normalization").weights[0]}
    assert not loaded.optimizer.spared_expressions  # No expression of a file is ever run.
    assert int(loaded.optimizer.iterations) == 1 and state(loaded) == state(model)
    plain = gl.models.load_model(tmp_path / "m.gradloom", compile=False)
    assert not plain.compiled and same_bits(plain.get_weights(), model.get_weights())


def test_losses_of_several_outputs_are_kept(tmp_path: Path) -> None:
    x = gl.Input((2,))
    model = gl.Model(x, {"a": gl.layers.Dense(1)(x), "b": gl.layers.Dense(1)(x)})
    model.compile("sgd", {"a": "mse", "b": "mae"}, loss_weights={"a": 0.5}, metrics={"b": ["mse", squares]})
    loaded = saved(model, tmp_path, custom_objects={"squares": squares})
    data = np.ones((2, 2)), {"a": np.ones(2), "b": np.zeros(2)}
    assert loaded.evaluate(*data, return_dict=True, verbose=0) == model.evaluate(*data, return_dict=True, verbose=0)


def squares(y_true: Any, y_pred: Any) -> Any:
    return gl.ops.square(y_true - y_pred)


def test_a_hyperparameter_that_was_set_is_kept(tmp_path: Path) -> None:
    model = small(gl.layers.Dense(1))
    model.compile(gl.optimizers.SGD(0.5, momentum=0.5), "mse")
    assert model.optimizer is not None
    model.optimizer.learning_rate = 0.1
    loaded = saved(model, tmp_path)
    assert loaded.optimizer is not None and loaded.optimizer.learning_rate.value == np.float32(0.1)


def test_a_model_that_data_built_is_built_again(tmp_path: Path) -> None:
    model = gl.Sequential([gl.layers.Dense(2)])
    model.predict(np.ones((1, 5), np.float32))
    loaded = saved(model, tmp_path)
    assert loaded.input_shape == (None, 5) and same_bits(loaded.get_weights(), model.get_weights())


def test_variables_that_a_model_reads_itself_are_kept(tmp_path: Path) -> None:
    x, factor = gl.Input((2,)), gl.Variable(np.float32([2, 3]), name="factor")
    model = gl.Model(x, x * factor)
    loaded = saved(model, tmp_path)
    assert loaded.predict(np.ones((1, 2)), verbose=0).tolist() == [[2, 3]] and len(loaded.trainable_variables) == 1


def test_a_model_of_a_part_of_another_is_kept(tmp_path: Path) -> None:
    x = gl.Input((2,))
    hidden = gl.layers.Dense(3)(x)
    model = gl.Model(hidden, gl.layers.Dense(1)(hidden))
    assert same_bits(saved(model, tmp_path).predict(np.ones((1, 3))), model.predict(np.ones((1, 3))))


# Configs.


def examples() -> Iterator[Any]:
    """One of each class that files may name, where it can be made without arguments."""
    arguments: dict[str, Any] = {
        "Dense": 3, "Conv2D": (2, 3), "DepthwiseConv2D": 3, "Dropout": 0.5, "Activation": "relu", "Rescaling": 0.5,
        "Reshape": (2, 2), "InputLayer": (3,), "Lambda": squares, "FunctionLoss": squares, "MeanMetricWrapper": squares,
        "PolynomialDecay": (0.1, 5), "ExponentialDecay": (0.1, 5, 0.5), "CosineDecay": (0.1, 5),
        "PiecewiseConstantDecay": ([1, 2], [0.1, 0.2, 0.3]), "LossMetric": gl.losses.BinaryCrossentropy(True),
    }  # fmt: skip
    for module, things in _own_things().items():
        if module in ("gradloom.models", "gradloom.formats.darknet.layers"):
            continue
        for name, thing in things.items():
            if isinstance(thing, type) and not inspect.isabstract(thing):
                given = arguments.get(name, ())
                given = ((3,),) if name == "InputLayer" else ((2, 2),) if name == "Reshape" else given
                yield thing(*(given if isinstance(given, tuple) else (given,)))


@pytest.mark.parametrize("made", list(examples()), ids=lambda made: f"{type(made).__module__}.{type(made).__name__}")
def test_every_class_comes_back_from_json(made: Any) -> None:
    data = json.loads(json.dumps(gl.saving.serialize_keras_object(made)))
    again = gl.saving.deserialize_keras_object(data, {"squares": squares})
    assert type(again) is type(made)
    assert gl.saving.serialize_keras_object(again) == gl.saving.serialize_keras_object(made)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            | st.builds(slice, st.none() | st.integers(), st.none() | st.integers())
            | st.builds(lambda values: np.array(values, np.float32), st.lists(st.integers(0, 9), max_size=3))
        ),
        max_leaves=8,
    )
)
def test_plain_data_comes_back_from_json(thing: Any) -> None:
    again = gl.saving.deserialize_keras_object(json.loads(json.dumps(gl.saving.serialize_keras_object(thing))))
    assert repr(again) == repr(thing)


def test_json_makes_a_model_with_weights_of_its_own() -> None:
    model = small(gl.layers.Dense(2))
    again = gl.models.model_from_json(model.to_json())
    assert again.to_json() == model.to_json() and not same_bits(again.get_weights(), model.get_weights())


# Classes and functions of one's own.


class Scale(gl.Layer):
    """A layer without get_config: the arguments that it was made with are its config."""

    def __init__(self, factor: float, names: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self.factor, self.names = factor, names

    def call(self, x: Any) -> Any:
        return x * self.factor


class Bare(gl.Layer):
    """A layer that takes neither a name nor other options."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = gl.layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.inner(x)


class Wrapped(gl.Layer):
    def __init__(self, layer: gl.Layer, **options: Any) -> None:
        super().__init__(**options)
        self.layer = layer

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"layer": gl.saving.serialize_keras_object(self.layer)}


class Classifier(gl.Model):
    def __init__(self, units: int, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = [gl.layers.Dense(units, activation="relu") for _ in range(blocks)]
        self.head = gl.layers.Dense(1)

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


OWN = {"Scale": Scale, "Bare": Bare, "Wrapped": Wrapped, "Classifier": Classifier, "squares": squares}


def test_layers_of_ones_own_need_custom_objects(tmp_path: Path) -> None:
    bare = Bare(2)
    bare.trainable = False
    model = small(Scale(2.5, ("a", "b"), name="scale"), bare, Wrapped(gl.layers.Dense(3, activation=squashed)))
    with pytest.raises(
        SavedFileError,
        match=r"m\.gradloom: .* classes and functions .*custom_objects=\{'Scale': …, 'Bare': …, 'Wrapped': …, "
        r"'squashed': …\}\. Received: the names 'Scale', 'Bare', 'Wrapped', 'squashed'$",
    ):
        saved(model, tmp_path)
    loaded = saved(model, tmp_path, custom_objects={**OWN, "squashed": squashed})
    assert loaded.layers[0].names == ("a", "b") and [layer.name for layer in loaded.layers] == [
        layer.name for layer in model.layers
    ]
    assert not loaded.layers[1].trainable
    x = np.ones((2, 3), np.float32)
    assert same_bits(loaded.predict(x), model.predict(x))


def squashed(x: Any) -> Any:
    return gl.ops.tanh(x) * 0.5


def test_a_scope_and_registration_make_classes_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(Scale(2.0))
    model.save(tmp_path / "m.gradloom")
    with gl.saving.custom_object_scope({"Scale": Scale}):
        gl.models.load_model(tmp_path / "m.gradloom")
    registered = gl.saving.get_custom_objects()
    monkeypatch.setitem(registered, "unrelated", Bare)
    gl.saving.register_keras_serializable("package")(Scale)
    try:
        assert gl.saving.get_registered_name(Scale) == "package>Scale"
        model.save(tmp_path / "m.gradloom")
        assert type(gl.models.load_model(tmp_path / "m.gradloom").layers[0]) is Scale
    finally:
        del registered["package>Scale"]


def test_a_model_of_ones_own_class_is_made_by_its_arguments(tmp_path: Path) -> None:
    model = Classifier(4, blocks=3)
    model.compile("adam", "mse")
    train_data = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    model.fit(*train_data, verbose=0)
    loaded = saved(model, tmp_path, custom_objects=OWN)
    assert len(loaded.blocks) == 3 and state(loaded) == state(model)


def test_layers_that_are_not_trained_stay_so(tmp_path: Path) -> None:
    model = Classifier(4)
    model.build((None, 2))
    model.blocks[1].trainable = False
    model.compile("sgd", "mse")
    loaded = saved(model, tmp_path, custom_objects=OWN)
    assert [block.trainable for block in loaded.blocks] == [True, False] and loaded.trainable
    assert len(loaded.trainable_weights) == 4


def test_a_model_whose_arguments_are_no_data_is_refused(tmp_path: Path) -> None:
    model = small(Scale(2.0, (object(),)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"'scale[_0-9]*': Expected numbers, .*Received: <object object"):
        model.save(tmp_path / "m.gradloom")
    assert not list(tmp_path.iterdir())


def test_a_lambda_needs_its_function(tmp_path: Path) -> None:
    model = small(gl.layers.Lambda(lambda x: x + 1.0, name="plus"), gl.layers.Lambda(squashed))
    with pytest.raises(SavedFileError, match=r"Expected functions .*custom_objects=\{'plus': …, 'squashed': …\}"):
        saved(model, tmp_path)
    loaded = saved(model, tmp_path, custom_objects={"plus": lambda x: x + 1.0, "squashed": squashed})
    assert same_bits(loaded.predict(np.ones((2, 3))), model.predict(np.ones((2, 3))))


def test_lambdas_of_layers_go_by_the_layers_names_within_the_model(tmp_path: Path) -> None:
    inner = small(gl.layers.Lambda(lambda x: x * 4.0))
    model = small(gl.layers.Lambda(lambda x: x + 1.0), gl.layers.Lambda(lambda x: x * 2.0), inner)
    functions = {
        "lambda": lambda x: x + 1.0,
        "lambda_1": lambda x: x * 2.0,
        "sequential/lambda": lambda x: x * 4.0,
    }
    with pytest.raises(SavedFileError, match="Received: the names 'lambda', 'lambda_1', 'sequential/lambda'$"):
        saved(model, tmp_path)
    loaded = saved(model, tmp_path, custom_objects=functions)
    assert same_bits(loaded.predict(np.ones((2, 3))), model.predict(np.ones((2, 3))))


@pytest.mark.parametrize("place", ["activation", "loss", "metrics"])
def test_other_lambdas_are_refused_when_they_are_saved(place: str, tmp_path: Path) -> None:
    model = small(gl.layers.Dense(2, activation=(lambda x: x * 2.0) if place == "activation" else None))
    loss = (lambda y, p: gl.ops.mean(y - p, axis=-1)) if place == "loss" else "mse"
    model.compile("sgd", loss, metrics=[lambda y, p: gl.ops.mean(y + p, axis=-1)] if place == "metrics" else [])
    with pytest.raises(ConfigError, match=rf"def name.* Received: a lambda  \[.*{Path(__file__).name}:\d+\]"):
        model.save(tmp_path / "m.gradloom")
    assert not list(tmp_path.iterdir())


def powers(exponent: float) -> Callable[..., Any]:
    def power(y_true: Any, y_pred: Any) -> Any:
        return gl.ops.mean(gl.ops.abs(y_true - y_pred) ** exponent, axis=-1)

    return power


def test_functions_of_one_name_are_refused_when_they_are_saved(tmp_path: Path) -> None:
    model, cubic = small(gl.layers.Dense(2)), powers(3.0)
    model.compile("sgd", cubic, metrics=[powers(4.0)])
    with pytest.raises(ConfigError, match=r"def name.* Received: another 'power'  \[.*:\d+\]"):
        model.save(tmp_path / "m.gradloom")
    model.compile("sgd", cubic, metrics=[cubic])
    saved(model, tmp_path, custom_objects={"power": cubic})


@pytest.mark.parametrize("custom_objects", [[Scale], Scale])
def test_custom_objects_are_a_dict(custom_objects: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^Expected custom_objects as a dict .* Received: .*Scale"):
        saved(small(Scale(2.0)), tmp_path, custom_objects=custom_objects)


class Sized(gl.Model):
    """Adds its arguments to what `get_config` returns for every model."""

    def __init__(self, units: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.head = gl.layers.Dense(units)

    def call(self, x: Any) -> Any:
        return self.head(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units}


class Nameless(Sized):
    def __init__(self, units: int = 4) -> None:
        super().__init__(units)


@pytest.mark.parametrize("made", [Sized(3, name="sized"), Sized(2), Nameless(3)], ids=lambda made: made.name)
def test_a_model_that_adds_to_its_config_is_made_by_it(made: Sized, tmp_path: Path) -> None:
    assert type(made).from_config(made.get_config()).units == made.units
    x = np.ones((2, 3), np.float32)
    expected = made.predict(x)
    loaded = saved(made, tmp_path, custom_objects={"Sized": Sized, "Nameless": Nameless})
    assert (type(loaded), loaded.name) == (type(made), made.name)
    assert same_bits(loaded.predict(x), expected)


def test_what_is_no_json_is_no_model() -> None:
    expected = "Expected the JSON of model.to_json. Received: '{'  (Expecting property name enclosed in double quotes: "
    with pytest.raises(ValueError, match=re.escape(f"{expected}line 1 column 2 (char 1))")) as caught:
        gl.models.model_from_json("{")
    assert type(caught.value) is ValueError
