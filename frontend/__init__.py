"""Gradloom: a graph compiler for neural networks.

Names are loaded when they are first used: importing the package is quick, and loads no LLVM.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom import (
        activations,
        applications,
        callbacks,
        compiler,
        datasets,
        formats,
        initializers,
        layers,
        losses,
        metrics,
        mixed_precision,
        models,
        ops,
        optimizers,
        runtime,
        saving,
        utils,
    )
    from gradloom.functions import function, grad, trace, value_and_grad
    from gradloom.inspection import inspect
    from gradloom.layers import Input, Layer
    from gradloom.model import Model
    from gradloom.runtime.threads import get_num_threads, set_num_threads
    from gradloom.sequential import Sequential
    from gradloom.symbolic import KerasTensor
    from gradloom.tracing import TensorSpec
    from gradloom.variables import Variable

__version__ = "0.1.0"

_MODULES = (
    "activations",
    "applications",
    "callbacks",
    "compiler",
    "datasets",
    "formats",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "runtime",
    "saving",
    "utils",
)
_HOMES = {
    "Input": "gradloom.layers",
    "KerasTensor": "gradloom.symbolic",
    "Layer": "gradloom.layers",
    "Model": "gradloom.model",
    "Sequential": "gradloom.sequential",
    "TensorSpec": "gradloom.tracing",
    "Variable": "gradloom.variables",
    "function": "gradloom.functions",
    "get_num_threads": "gradloom.runtime.threads",
    "grad": "gradloom.functions",
    "inspect": "gradloom.inspection",
    "set_num_threads": "gradloom.runtime.threads",
    "trace": "gradloom.functions",
    "value_and_grad": "gradloom.functions",
}

__all__ = [
    "Input",
    "KerasTensor",
    "Layer",
    "Model",
    "Sequential",
    "TensorSpec",
    "Variable",
    "activations",
    "applications",
    "callbacks",
    "compiler",
    "datasets",
    "formats",
    "function",
    "get_num_threads",
    "grad",
    "initializers",
    "inspect",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "runtime",
    "saving",
    "set_num_threads",
    "trace",
    "utils",
    "value_and_grad",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"gradloom.{name}")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gradloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
