"""Sequential: structure, shapes, weights, summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler.errors import ShapeError


def small_model() -> gl.Sequential:
    return gl.Sequential(
        [
            gl.layers.Flatten(input_shape=(2, 3)),
            gl.layers.Dense(4, activation="relu", name="hidden"),
            gl.layers.Dense(2, activation="softmax", name="out"),
        ]
    )


def test_weights_are_made_at_once_when_the_input_shape_is_known() -> None:
    for model in (
        small_model(),
        gl.Sequential([gl.Input((2, 3)), gl.layers.Flatten(), gl.layers.Dense(4), gl.layers.Dense(2)]),
    ):
        assert model.built
        assert [weight.shape for weight in model.weights] == [(6, 4), (4,), (4, 2), (2,)]
        assert (model.input_shape, model.output_shape) == ((None, 2, 3), (None, 2))
        assert model.count_params() == 6 * 4 + 4 + 4 * 2 + 2


def test_a_model_without_input_shape_is_built_by_its_first_data() -> None:
    model = gl.Sequential([gl.layers.Dense(4), gl.layers.Dense(2)])
    assert not model.built and model.weights == []
    with pytest.raises(ValueError, match=r"Expected the shape of its input before input_shape: .*not built"):
        _ = model.input_shape
    assert model.predict(np.zeros((5, 3), np.float32)).shape == (5, 2)
    assert [weight.shape for weight in model.weights] == [(3, 4), (4,), (4, 2), (2,)]


def test_build_takes_a_shape_with_an_open_batch() -> None:
    model = gl.Sequential([gl.layers.Dense(4)])
    model.build((None, 7))
    assert (model.input_shape, model.output_shape) == ((None, 7), (None, 4))


def test_add_and_pop_keep_shapes_and_weights_in_step() -> None:
    model = small_model()
    kernel = model.get_layer("hidden").weights[0]
    assert model.pop().name == "out"
    assert model.output_shape == (None, 4)
    assert model.predict(np.zeros((1, 2, 3))).shape == (1, 4)
    model.add(gl.layers.Dense(3))
    assert model.output_shape == (None, 3)
    assert model.predict(np.zeros((1, 2, 3))).shape == (1, 3)
    assert model.weights[0] is kernel


def test_layers_are_found_by_name_and_index() -> None:
    model = small_model()
    assert model.get_layer("hidden") is model.layers[1] is model.get_layer(index=1) is model.get_layer(index=-2)
    with pytest.raises(
        ValueError, match="Expected one of its 3 layers: 'flatten', 'hidden', 'out'. Received: name='x'"
    ):
        model.get_layer("x")
    with pytest.raises(ValueError, match="Received: index=3"):
        model.get_layer(index=3)
    with pytest.raises(ValueError, match="Expected either name or index"):
        model.get_layer()


def test_what_is_no_layer_and_names_that_are_taken_are_refused() -> None:
    model = small_model()
    with pytest.raises(TypeError, match="Expected an instance of a layer. Received: 'relu'"):
        model.add("relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected layers of different names. Received: another 'out'"):
        model.add(gl.layers.Dense(3, name="out"))
    with pytest.raises(ValueError, match="Expected Input before all layers"):
        model.add(gl.Input((2,)))
    with pytest.raises(ValueError, match="Expected a layer to pop"):
        gl.Sequential().pop()
    assert len(model.layers) == 3


def test_a_layer_that_does_not_fit_is_named_and_not_added() -> None:
    model = gl.Sequential([gl.Input((2, 3)), gl.layers.Flatten()])
    with pytest.raises(ShapeError, match=r"'narrow'.*Expected an input of shape \(None, 5\).*\(None, 6\)"):
        model.add(gl.layers.Dense(1, input_shape=(5,), name="narrow"))
    assert [layer.name for layer in model.layers] == ["flatten"]


def test_set_weights_changes_all_or_nothing() -> None:
    model = small_model()
    before = model.get_weights()
    wrong = [weight + 1 for weight in before]
    wrong[3] = np.zeros(5, np.float32)
    with pytest.raises(ShapeError, match=r"Expected shape \(2,\). Received: \(5,\)"):
        model.set_weights(wrong)
    with pytest.raises(ShapeError, match="Expected 4 weight arrays. Received: 3"):
        model.set_weights(wrong[:3])
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    model.set_weights([weight + 1 for weight in before])
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old + 1, now)


def test_predictions_follow_set_weights() -> None:
    model, x = small_model(), np.ones((3, 2, 3), np.float32)
    first = model.predict(x)
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(weight.shape) for weight in model.get_weights()])
    second = model.predict(x)
    w1, b1, w2, b2 = model.get_weights()
    logits = np.maximum(x.reshape(3, 6) @ w1 + b1, 0) @ w2 + b2
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, expected, rtol=1e-5)


def test_trainable_reaches_the_layers() -> None:
    model = small_model()
    model.get_layer("hidden").trainable = False
    assert [variable.path for variable in model.trainable_variables] == ["out/kernel", "out/bias"]
    model.trainable = False
    assert model.trainable_variables == [] and not model.get_layer("out").trainable
    assert len(model.non_trainable_weights) == 4


def test_summary_shows_layers_shapes_and_parameters() -> None:
    model = small_model()
    model.get_layer("out").trainable = False
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["Layer (type)", "Output Shape", "Param #"],
        ["flatten (Flatten)", "(None, 6)", "0"],
        ["hidden (Dense)", "(None, 4)", "28"],
        ["out (Dense)", "(None, 2)", "10"],
    ]
    assert 'Model: "sequential"' in text
    assert " Total params: 38 (152.00 B)" in text
    assert " Trainable params: 28 (112.00 B)" in text
    assert " Non-trainable params: 10 (40.00 B)" in text


def test_summary_of_a_model_that_is_not_built(capsys: pytest.CaptureFixture[str]) -> None:
    gl.Sequential([gl.layers.Dense(4)], name="early").summary()
    text = capsys.readouterr().out
    assert 'Model: "early"' in text and "0 (unbuilt)" in text and "?" in text


def test_models_nest() -> None:
    inner = gl.Sequential([gl.layers.Dense(4, activation="relu"), gl.layers.Dense(3)], name="inner")
    model = gl.Sequential([gl.Input((5,)), inner, gl.layers.Dense(2)])
    assert model.output_shape == (None, 2)
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    w1, b1, w2, b2, w3, b3 = model.get_weights()
    expected = (np.maximum(x @ w1 + b1, 0) @ w2 + b2) @ w3 + b3
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)


def test_the_config_makes_a_model_of_the_same_structure() -> None:
    model = small_model()
    copy = gl.Sequential.from_config(model.get_config())
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    copy.set_weights(model.get_weights())
    x = np.ones((3, 2, 3), np.float32)
    np.testing.assert_array_equal(copy.predict(x), model.predict(x))


def test_calling_a_model_with_an_array_gives_an_array() -> None:
    model, x = small_model(), np.ones((3, 2, 3), np.float32)
    np.testing.assert_array_equal(model(x), model.predict(x, batch_size=3))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64", "float16", "bool", ">f4"])
def test_predict_takes_any_real_dtype(dtype: str) -> None:
    model = small_model()
    x = np.random.default_rng(0).integers(0, 2, (4, 2, 3))
    np.testing.assert_allclose(model.predict(x.astype(dtype)), model.predict(x.astype("float32")), rtol=1e-6)


def test_predict_takes_strided_and_read_only_data_and_any_batch_size() -> None:
    model = small_model()
    x = np.random.default_rng(0).standard_normal((14, 2, 3)).astype(np.float32)
    expected = model.predict(x)
    strided = np.repeat(x, 2, axis=0)[::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(model.predict(strided), expected)
    np.testing.assert_array_equal(model.predict(x.tolist()), expected)
    for batch_size in (1, 5, 14, 100):
        np.testing.assert_allclose(model.predict(x, batch_size=batch_size), expected, rtol=1e-5, atol=1e-6)


def test_a_model_does_not_contain_itself() -> None:
    outer, middle, inner = (gl.Sequential(name=name) for name in ("outer", "middle", "inner"))
    outer.add(middle)
    middle.add(inner)
    for model in (outer, middle, inner):
        with pytest.raises(ValueError, match=f"'{model.name}': Expected a layer that does not contain this model"):
            model.add(middle if model is middle else outer)
    assert inner.layers == [] and outer.layers == [middle]


@pytest.mark.parametrize("begin", [[], [gl.Input((4,))]])
def test_a_model_without_layers_is_asked_for_one(begin: list[Any], tmp_path: Path) -> None:
    model = gl.Sequential(begin, name="bare")
    model.compile("sgd", "mse")
    x = np.ones((2, 4), np.float32)
    for use in (
        lambda: model.fit(x, x),
        lambda: model.predict(x),
        lambda: model.inspect(),
        lambda: model.save(tmp_path / "m.gradloom"),
        lambda: model.save_weights(tmp_path / "m.safetensors"),
        lambda: gl.utils.plot_model(model, tmp_path / "m.svg"),
        lambda: model.output_shape,
    ):
        with pytest.raises(ValueError, match="^Sequential 'bare': Expected at least one layer. Received: a model with"):
            use()
