"""Files of models that are wrong: told with the file, before anything changes, and never run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gradloom as gl
from gradloom.saving import SavedFileError, read_tensors, write_tensors
from gradloom.saving.model_file import CONFIG
from gradloom.saving.names import state_names, weight_names
from gradloom.saving.tensor_file import CHECKSUM


def small(*layers: Any, width: int = 3) -> gl.Sequential:
    return gl.Sequential([gl.Input((width,)), *layers])


@pytest.mark.parametrize("path", ["m.keras", "m.h5", "m", "m.weights.h5"])
def test_other_suffixes_are_refused(path: str, tmp_path: Path) -> None:
    model = small(gl.layers.Dense(1))
    with pytest.raises(ValueError, match=r"Expected a path that ends with \.gradloom .*\.weights\.h5 files"):
        model.save(tmp_path / path)
    with pytest.raises(ValueError, match=r"Expected a path that ends with \.gradloom"):
        gl.models.load_model(tmp_path / path)
    assert not list(tmp_path.iterdir())


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object], model: gl.Model | None = None) -> Path:
    """A file with a changed config, whose checksum is right."""
    path = tmp_path / "m.gradloom"
    model = small(gl.layers.Dense(2)) if model is None else model
    model.save(path)
    tensors, metadata = read_tensors(path)
    config = json.loads(metadata[CONFIG])
    change(config)
    write_tensors(path, tensors, {CONFIG: json.dumps(config)})
    return path


@pytest.mark.parametrize("module", ["os", "builtins", "subprocess", "gradloom.layers", "gradloom.saving.objects", None])
@pytest.mark.parametrize("name", ["system", "os.system", "eval", "__import__", "custom_object_scope", "annotations"])
def test_no_name_in_a_file_is_imported_or_called(
    name: str, module: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("os.system was called"))

    def plant(config: dict[str, Any]) -> None:
        dense = config["model"]["config"]["layers"][1]
        dense |= {"module": module, "class_name": name, "config": {"command": "true"}}

    def plant_function(config: dict[str, Any]) -> None:
        dense = config["model"]["config"]["layers"][1]["config"]
        dense["activation"] = {"module": module, "class_name": "function", "config": name}

    before = set(sys.modules)
    for change in (plant, plant_function):
        with pytest.raises(SavedFileError, match=r"m\.gradloom: .*Received: the name"):
            gl.models.load_model(changed(tmp_path, change))
    assert {loaded.partition(".")[0] for loaded in set(sys.modules) - before} <= {"gradloom", "safetensors"}


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(format=99),
        lambda config: config.pop("model"),
        lambda config: config.update(model=[1]),
        lambda config: config["model"].update(config=None),
        lambda config: config["model"]["config"].pop("layers"),
        lambda config: config["model"]["config"]["layers"][1]["config"].update(units="many"),
        lambda config: config["model"]["config"]["layers"][1]["config"].update(units=1 << 40),
        lambda config: config["model"]["config"]["layers"][1]["config"].update(unit=3),
        lambda config: config["model"]["config"]["layers"][1].update(class_name="Adam"),
        lambda config: config["model"]["config"]["layers"][1].update(class_name=7),
        lambda config: config["model"].update(module="gradloom.layers", class_name="Dense", config={"units": 3}),
        lambda config: config.update(build=[[[[[[]]]]]]),
    ],
)
def test_a_wrong_config_is_told_with_the_file(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    try:
        gl.models.load_model(changed(tmp_path, change))
    except SavedFileError as error:
        assert "m.gradloom: " in str(error)  # noqa: PT017
    else:
        config = json.loads(read_tensors(tmp_path / "m.gradloom")[1][CONFIG])
        assert config["build"] == [[[[[[]]]]]]  # A model that knows its input's shape does not ask.


def test_what_a_file_spares_from_decay_are_names_of_weights(tmp_path: Path) -> None:
    model = small(gl.layers.Dense(2))
    model.compile("sgd", "mse")
    path = changed(tmp_path, lambda config: config["spared"].append("k.*l$"), model)
    with pytest.raises(SavedFileError, match=r"m\.gradloom: cannot be made a model of: KeyError: 'k\.\*l\$'"):
        gl.models.load_model(path)


def test_a_config_nested_without_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.gradloom"
    write_tensors(path, {}, {CONFIG: "[" * 100_000})
    with pytest.raises(SavedFileError, match=r"m\.gradloom: cannot be made a model of: RecursionError"):
        gl.models.load_model(path)


def test_a_file_without_a_checksum_is_refused(tmp_path: Path) -> None:
    """A bit of the checksum's name is enough for there to be none."""
    path, model = tmp_path / "m.gradloom", small(gl.layers.Dense(1))
    model.save(path)
    path.write_bytes(path.read_bytes().replace(CHECKSUM.encode(), b"gradloom.sha257"))
    for load in (gl.models.load_model, model.load_weights):
        with pytest.raises(SavedFileError, match=r"m\.gradloom: damaged\. Expected a checksum"):
            load(path)


def test_files_of_weights_alone_are_no_models(tmp_path: Path) -> None:
    model = small(gl.layers.Dense(1))
    write_tensors(tmp_path / "m.gradloom", {name: weight.numpy() for name, weight in weight_names(model).items()})
    with pytest.raises(SavedFileError, match=r"m\.gradloom: Expected a file of model\.save\. Received: weights alone"):
        gl.models.load_model(tmp_path / "m.gradloom")


def test_missing_weights_are_told(tmp_path: Path) -> None:
    path = tmp_path / "m.gradloom"
    small(gl.layers.Dense(2)).save(path)
    tensors, metadata = read_tensors(path)
    del tensors["dense/bias"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(SavedFileError, match=r"dense/bias: Expected float32\[2\]\. Received: nothing of this name"):
        gl.models.load_model(path)


def test_a_file_is_not_replaced_against_the_callers_will(tmp_path: Path) -> None:
    model = small(gl.layers.Dense(1))
    model.save(tmp_path / "m.gradloom")
    with pytest.raises(FileExistsError, match=r"m\.gradloom: Expected no such file"):
        model.save(tmp_path / "m.gradloom", overwrite=False)


def test_a_model_that_is_not_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected the shape of its input before save"):
        gl.Sequential([gl.layers.Dense(1)]).save(tmp_path / "m.gradloom")


def test_counters_of_dropout_are_state_and_no_weights() -> None:
    model = small(gl.layers.Dropout(0.5), gl.layers.Dense(1))
    assert list(weight_names(model)) == ["dense/kernel", "dense/bias"] and list(state_names(model)) == [
        "dropout/counter"
    ]
