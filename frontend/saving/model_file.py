"""Whole models in files: a `.gradloom` file is a safetensors file whose header has the model's config as JSON.

The config says class, layers and calls, what `compile` was told, and for which shapes a model was built that does not
know it by itself; the tensors are weights, other state of layers, and the optimizer's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradloom.compiler.types import as_dtype
from gradloom.saving.objects import (
    custom_object_scope,
    deserialize_keras_object,
    one_file,
    require_names,
    serialize_keras_object,
)
from gradloom.saving.state import freeze, frozen_names, model_variables, restore, spare, spared_names
from gradloom.saving.suffixes import KERAS_WEIGHTS, MODEL, WEIGHTS
from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors
from gradloom.trees import map_leaves

if TYPE_CHECKING:
    from gradloom.model import Model
    from gradloom.network import Network

CONFIG = "gradloom.model"
"""The key of the config in a file's metadata."""
FORMAT = 2
"""Files of another format are refused."""
_SHOWN = 60
"""Characters of a text that are shown in an error."""


def save_model(model: Network, path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """Write a model into a `.gradloom` file (see `Network.save`)."""
    from gradloom.model import Model

    assert isinstance(model, Model)
    path = _suffixed(path, "model.save")
    if not overwrite and Path(path).exists():
        raise FileExistsError(f"{path}: Expected no such file, as overwrite=False. Received: a file")
    metadata = {CONFIG: json.dumps(saved_config(model))}
    write_tensors(path, {name: variable.value for name, variable in model_variables(model).items()}, metadata)


def saved_config(model: Model) -> dict[str, Any]:
    """All that a file has of a model besides tensors; raises what `Network.save` raises for what is no data."""
    model.require_built("save")
    with one_file(model):
        config = {"format": FORMAT, "model": serialize_keras_object(model), "build": _build_config(model)}
        config["frozen"] = frozen_names(model)
        if model.compiled:
            config["compile"] = serialize_keras_object(model.get_compile_config())
            config["spared"] = spared_names(model)
    return config


def load_model(
    path: str | os.PathLike[str], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Model:
    """Return the model of a `.gradloom` file, compiled as it was, with the optimizer's state.

    custom_objects: classes and functions of one's own by name, `{"Twice": Twice}`; other names than these, registered
    ones (`gl.saving.register_keras_serializable`) and Gradloom's own mean nothing, and nothing is imported.
    compile: whether to compile the model if it was.
    Raises SavedFileError, a ValueError, naming the file and what is wrong with it, or all names that are not known;
    ValueError for another suffix; OSError when the file cannot be opened.
    """
    path = _suffixed(path, "load_model")
    arrays, metadata = read_tensors(path, checksum=True)
    if CONFIG not in metadata:
        raise SavedFileError(f"{path}: Expected a file of model.save. Received: weights alone; load_weights reads them")
    with custom_object_scope(custom_objects), _explained(path):
        config = json.loads(metadata[CONFIG])
        if config["format"] != FORMAT:
            raise ValueError(f"Expected a file of format {FORMAT}. Received: format {config['format']!r}")
        told = config["compile"] if compile and "compile" in config else None
        require_names([config["model"], told])
        model = _model(config["model"])
        if not model.built:
            _build(model, config["build"])
        freeze(model, config["frozen"])
        if told is not None:
            model.compile(**deserialize_keras_object(told))
            spare(model, config["spared"])
        restore(model, arrays, f"Expected the weights of model {model.name!r}")
    return model


def model_to_json(model: Network, **options: Any) -> str:
    """A model's class and config as JSON."""
    return json.dumps(serialize_keras_object(model), **options)


def model_from_json(text: str, custom_objects: Mapping[str, Any] | None = None) -> Model:
    """Return a model of the class and config that `model.to_json` wrote, with weights of its own.

    Raises `ValueError` for other text, and `ConfigError`, a ValueError, for names that are not known.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        raise ValueError(f"Expected the JSON of model.to_json. Received: {shown!r}  ({error})") from None
    with custom_object_scope(custom_objects):
        return _model(data)


def _model(data: Any) -> Model:
    from gradloom.model import Model

    model = deserialize_keras_object(data)
    if not isinstance(model, Model):
        raise ValueError(f"Expected the config of a model. Received: that of {model!r}")
    return model


def _build_config(model: Model) -> dict[str, Any]:
    """Shapes and dtypes of the inputs that a model was built for."""
    shapes = map_leaves(lambda tensor: {"shape": list(tensor.shape)}, model.input)
    data: dict[str, Any] = serialize_keras_object(
        {"inputs": shapes, "dtypes": [tensor.dtype.numpy_name for tensor in model.inputs]}
    )
    return data


def _build(model: Model, config: Any) -> None:
    def shapes(tree: Any) -> Any:
        if isinstance(tree, dict) and set(tree) == {"shape"} and isinstance(tree["shape"], list):
            return tuple(tree["shape"])
        if isinstance(tree, dict):
            return {key: shapes(item) for key, item in tree.items()}
        return type(tree)(shapes(item) for item in tree)

    built = deserialize_keras_object(config)
    model.build_layers(shapes(built["inputs"]), [as_dtype(dtype) for dtype in built["dtypes"]])


def _suffixed(path: str | os.PathLike[str], caller: str) -> str:
    """The path as text, as which bytes are read, too; raises ValueError unless it is that of a model."""
    text = os.fsdecode(path)
    if text.endswith(MODEL):
        return text
    raise ValueError(
        f"Expected a path that ends with {MODEL} for {caller}; weights alone go into {WEIGHTS} and, for Keras, "
        f"{KERAS_WEIGHTS} files with save_weights and load_weights. Received: {text!r}"
    )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Let whatever goes wrong with a file's content be an error that names the file."""
    try:
        yield
    except Exception as error:
        # A config may ask for anything, also of the caller's own classes.
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise SavedFileError(f"{path}: cannot be made a model of: {text}") from error
