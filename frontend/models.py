"""Models under the names of `keras.models`: classes of models, and what makes one of a file."""

from gradloom.model import Model
from gradloom.saving.model_file import load_model, model_from_json, save_model
from gradloom.sequential import Sequential

__all__ = ["Model", "Sequential", "load_model", "model_from_json", "save_model"]
