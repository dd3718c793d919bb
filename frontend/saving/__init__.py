"""Saving and loading under the names of `keras.saving`: models and weights in files, and objects as data.

A weight's name in a file is that of its layers, one inside another, and its own: "encoder/dense_1/kernel". A layer has
the name that it was given; automatic ones ("dense_7") are counted anew in each model. In a model of a class of one's
own, and in a layer that contains layers, they have the names of the attributes that they are: "blocks/0/kernel".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom.saving.model_file import load_model, save_model
    from gradloom.saving.objects import (
        ConfigError,
        custom_object_scope,
        deserialize_keras_object,
        get_custom_objects,
        get_registered_name,
        register_keras_serializable,
        serialize_keras_object,
    )
    from gradloom.saving.tensor_file import SavedFileError, read_tensors, write_tensors

_HOMES = {
    "ConfigError": "objects",
    "SavedFileError": "tensor_file",
    "custom_object_scope": "objects",
    "deserialize_keras_object": "objects",
    "get_custom_objects": "objects",
    "get_registered_name": "objects",
    "load_model": "model_file",
    "read_tensors": "tensor_file",
    "register_keras_serializable": "objects",
    "save_model": "model_file",
    "serialize_keras_object": "objects",
    "write_tensors": "tensor_file",
}

__all__ = [
    "ConfigError",
    "SavedFileError",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "load_model",
    "read_tensors",
    "register_keras_serializable",
    "save_model",
    "serialize_keras_object",
    "write_tensors",
]


def __getattr__(name: str) -> Any:
    # The modules of models write checkpoints with a part of this package, and must not be needed for it.
    if name in _HOMES:
        return getattr(import_module(f"gradloom.saving.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gradloom.saving' has no attribute {name!r}")
