"""Weights in files: found by name, checked before anything changes, whatever the session counted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from random_networks import networks

import gradloom as gl
from gradloom.saving import SavedFileError, read_tensors, write_tensors
from gradloom.saving.names import weight_names

SUFFIXES = [".safetensors", ".gradloom", ".weights.h5"]


def save(model: gl.Model, path: Path) -> None:
    """Write a file that `load_weights` reads."""
    (model.save if path.suffix == ".gradloom" else model.save_weights)(path)


def small(units: int = 4, **options: Any) -> gl.Sequential:
    return gl.Sequential([gl.Input((3,)), gl.layers.Dense(units, **options), gl.layers.Dense(2)])


def weights(model: gl.Model) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=networks())
def test_a_copy_of_other_weights_gets_the_saved_ones(tmp_path: Path, model: gl.Model) -> None:
    again = gl.models.model_from_json(model.to_json())
    for variable in again.weights:
        variable.assign(np.full(variable.shape, 7, variable.dtype.numpy))
    model.save_weights(tmp_path / "m.safetensors")
    again.load_weights(tmp_path / "m.safetensors")
    assert weights(again) == weights(model)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_numbers_of_automatic_names_mean_nothing(suffix: str, tmp_path: Path) -> None:
    first, second = small(), small()
    assert [layer.name for layer in first.layers] != [layer.name for layer in second.layers]
    save(first, tmp_path / f"m{suffix}")
    second.load_weights(tmp_path / f"m{suffix}")
    assert weights(second) == weights(first)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_paths_may_be_bytes(suffix: str, tmp_path: Path) -> None:
    """As Python's own functions take them, where a name is no text."""
    first, second = small(), small()
    path: Any = os.fsencode(tmp_path / f"m{suffix}")
    (first.save if suffix == ".gradloom" else first.save_weights)(path)
    second.load_weights(path)
    assert weights(second) == weights(first)
    if suffix == ".gradloom":
        assert weights(gl.models.load_model(path)) == weights(first)


class Ranks(gl.Layer):
    """Has a weight of each rank, of none as well."""

    def build(self, input_shape: Any) -> None:
        self.ranks = [self.add_weight((2,) * rank, name=f"rank_{rank}") for rank in range(5)]

    def call(self, x: Any) -> Any:
        return x * self.ranks[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_of_every_rank_come_back(suffix: str, tmp_path: Path) -> None:
    first, second = (gl.Sequential([gl.Input((3,)), Ranks()]) for _ in range(2))
    save(first, tmp_path / f"m{suffix}")
    second.load_weights(tmp_path / f"m{suffix}")
    assert [array.shape for array in second.get_weights()] == [(2,) * rank for rank in range(5)]
    assert weights(second) == weights(first)


class Block(gl.Layer):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.inner = {"left": gl.layers.Dense(units), "right": gl.layers.Dense(units, use_bias=False)}

    def call(self, x: Any) -> Any:
        return self.inner["left"](x) + self.inner["right"](x)


class Tower(gl.Model):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [Block(3), Block(2)]
        self.again = self.blocks[0]
        self.scale = self.add_weight((2,), "ones", name="scale")

    def call(self, x: Any) -> Any:
        return self.blocks[1](self.blocks[0](x)) * self.scale


def test_names_are_those_of_layers_or_attributes(tmp_path: Path) -> None:
    tower = Tower()
    tower.build((None, 3))
    parts = ("left/kernel", "left/bias", "right/kernel")
    assert list(weight_names(tower)) == [
        "scale",
        *(f"blocks/{block}/inner/{part}" for block in (0, 1) for part in parts),
    ]
    x = gl.Input((3,))
    encoder = gl.Sequential([gl.Input((3,)), gl.layers.Dense(3), gl.layers.Dense(3)], name="encoder")
    model = gl.Model(x, gl.layers.Dense(1)(encoder(encoder(x))))
    expected = [f"encoder/{layer}/{part}" for layer in ("dense", "dense_1") for part in ("kernel", "bias")]
    assert list(weight_names(model)) == [*expected, "dense/kernel", "dense/bias"]
    model.save_weights(tmp_path / "m.safetensors")
    assert set(safetensors.numpy.load_file(tmp_path / "m.safetensors")) == set(weight_names(model))


def test_models_of_ones_own_class_load_by_attributes(tmp_path: Path) -> None:
    first, second = Tower(), Tower()
    for model in (first, second):
        model.build((None, 3))
    first.save_weights(tmp_path / "m.safetensors")
    second.load_weights(tmp_path / "m.safetensors")
    assert weights(first) == weights(second)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mismatches_are_listed_and_nothing_is_changed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    save(small(5), path)
    model = small(4)
    before = weights(model)
    with pytest.raises(SavedFileError) as caught:
        model.load_weights(path)
    lines = str(caught.value).splitlines()
    expected = f"{path}: Expected the weights of model {model.name!r}. Received: 1 of 4 that fit, 3 mismatches:"
    assert lines[0] == expected and len(lines) == 4
    assert re.fullmatch(r"  .*dense.*(kernel|0): Expected float32\[3, 4\]\. Received: float32\[3, 5\]", lines[1])
    assert weights(model) == before
    with pytest.warns(UserWarning, match="1 of 4 that fit, 3 mismatches") as warned:
        model.load_weights(path, skip_mismatch=True)
    assert warned[0].filename == __file__
    after = weights(model)
    assert after[:3] == before[:3] and len(after) == 4


def test_missing_and_unknown_weights_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    small().save_weights(path)
    model = small(use_bias=False, name="first")
    with pytest.raises(SavedFileError) as caught:
        model.load_weights(path)
    text = str(caught.value)
    assert "first/kernel: Expected float32[3, 4]. Received: nothing of this name" in text
    assert "dense_1/bias: Expected no such weight. Received: float32[2]" in text


def test_a_long_list_is_cut_short(tmp_path: Path) -> None:
    write_tensors(tmp_path / "m.safetensors", {f"w{number}": np.zeros(1) for number in range(50)})
    with pytest.raises(SavedFileError, match="54 mismatches") as caught:
        small().load_weights(tmp_path / "m.safetensors")
    assert str(caught.value).endswith("\n  … and 46 more") and len(str(caught.value).splitlines()) == 10


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_widths_of_floats_are_converted(dtype: Any, tmp_path: Path) -> None:
    model = small()
    values = {name: np.full(variable.shape, 1.5, dtype) for name, variable in weight_names(model).items()}
    write_tensors(tmp_path / "m.safetensors", values)
    model.load_weights(tmp_path / "m.safetensors")
    assert all(variable.value.dtype == np.float32 and (variable.value == 1.5).all() for variable in model.weights)


def test_complex_or_integer_kinds_that_would_lose_are_refused(tmp_path: Path) -> None:
    model = gl.Sequential([gl.Input((2,)), gl.layers.BatchNormalization()])
    count = gl.Variable(np.int32(3), dtype="int32", trainable=False, name="count")
    model.layers[0].count = count  # type: ignore[attr-defined]
    values = {name: np.full(variable.shape, 1.5) for name, variable in weight_names(model).items()}
    write_tensors(tmp_path / "m.safetensors", values)
    with pytest.raises(SavedFileError, match=r"count: Expected int32\[\]\. Received: float64\[\]"):
        model.load_weights(tmp_path / "m.safetensors")
    assert int(count) == 3


def test_a_whole_models_file_gives_its_weights(tmp_path: Path) -> None:
    model, again = small(), small()
    model.compile("adam", "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / "m.gradloom")
    assert any(name.startswith("@optimizer/") for name in read_tensors(tmp_path / "m.gradloom")[0])
    again.load_weights(tmp_path / "m.gradloom")
    assert weights(again) == weights(model)


def test_weights_do_not_replace_a_whole_model(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "m.gradloom")
    with pytest.raises(ValueError, match=r"ends with \.safetensors or \.weights\.h5; .*whole models.* '.*m\.gradloom'"):
        model.save_weights(tmp_path / "m.gradloom")
    gl.models.load_model(tmp_path / "m.gradloom")


def test_programs_hear_of_loaded_weights(tmp_path: Path) -> None:
    model, other = small(), small()
    x = np.ones((2, 3), np.float32)
    assert (model.predict(x) != other.predict(x)).any()
    other.save_weights(tmp_path / "m.safetensors")
    model.load_weights(tmp_path / "m.safetensors")
    assert (model.predict(x) == other.predict(x)).all()


@pytest.mark.parametrize("act", [gl.Model.save_weights, gl.Model.load_weights])
def test_suffixes_and_models_without_weights_are_refused(act: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"ends with one of \.safetensors, \.gradloom, \.weights\.h5\. Received: '.*m\.npz'"
    ):
        act(small(), tmp_path / "m.npz")
    with pytest.raises(ValueError, match="Expected the shape of its input before (save|load)_weights"):
        act(gl.Sequential([gl.layers.Dense(1)]), tmp_path / "m.safetensors")


def test_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    model, path = small(), tmp_path / "m.safetensors"
    model.save_weights(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = weights(model)
    with pytest.raises(SavedFileError, match=r"m\.safetensors: damaged\. Expected the checksum"):
        model.load_weights(path, skip_mismatch=True)
    assert weights(model) == before
