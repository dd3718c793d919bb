"""Checkpoints of a training: everything a later run needs to go on as if it had not stopped, in one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradloom as gl
from gradloom.compiler.errors import GradloomError
from gradloom.runtime.files import published

Epochs = list[dict[str, float]]


def save(file: Path, model: gl.Model, settings: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> None:
    """Write weights, the optimizer's state, the settings and what was reached, in one piece or not at all."""
    arrays = {f"weight_{n}": variable.value for n, variable in enumerate(model.weights)}
    arrays |= {f"optimizer_{n}": variable.value for n, variable in enumerate(_optimizer_state(model))}
    note = json.dumps({"settings": settings, "history": history})
    with published(file) as stream:
        np.savez(stream, note=np.array(note), **arrays)


def restore(file: Path, model: gl.Model, settings: Mapping[str, Any], reasons: Mapping[str, str]) -> Epochs:
    """Give the model the state in `file`; return the figures of the epochs that led there.

    reasons: why a setting must be the same, where that does not go without saying.
    Raises GradloomError when there is none, or it belongs to a training with other settings.
    """
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            note = json.loads(str(stored["note"]))
            _check_settings(file, note["settings"], settings, reasons)
            pairs = [
                *((variable, stored[f"weight_{n}"]) for n, variable in enumerate(model.weights)),
                *((variable, stored[f"optimizer_{n}"]) for n, variable in enumerate(_optimizer_state(model))),
            ]
    except FileNotFoundError as error:
        raise GradloomError(f"Expected a checkpoint to resume from. Received: no file {file}") from error
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise GradloomError(f"{file}: Expected a checkpoint of this training. Received: {error}") from error
    for variable, array in pairs:
        variable.assign(array)
    history: Epochs = note["history"]
    return history


def _optimizer_state(model: gl.Model) -> list[gl.Variable]:
    optimizer = model.optimizer
    assert optimizer is not None
    optimizer.build(model.trainable_variables)
    return list(optimizer.variables)


def _check_settings(
    file: Path, stored: Mapping[str, Any], expected: Mapping[str, Any], reasons: Mapping[str, str]
) -> None:
    differing = [key for key in expected if stored.get(key) != expected[key]]
    if differing:
        listed = "; ".join(f"{key}: {stored.get(key)} there, {expected[key]} now" for key in differing)
        why = "".join(f". {reasons[key]}" for key in differing if key in reasons)
        raise GradloomError(f"{file}: Expected a checkpoint with the same settings. Received: {listed}{why}")
