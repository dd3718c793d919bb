"""The compiler: graph IR, ops, gradients, passes, loop IR, kernels, LLVM emission.

The names below are loaded when they are first used, so that importing one part loads no other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradloom.compiler.errors import (
        DTypeError,
        FusionError,
        GradloomError,
        MemoryLimitError,
        NoGradientError,
        ParseError,
        ShapeError,
        VerificationError,
    )
    from gradloom.compiler.ir import Graph, Group, Op, Output, Value
    from gradloom.compiler.ir_parser import parse
    from gradloom.compiler.ir_text import print_graph
    from gradloom.compiler.provenance import Provenance
    from gradloom.compiler.types import DType, TensorType

_HOMES = {
    "gradloom.compiler.errors": (
        "DTypeError",
        "FusionError",
        "GradloomError",
        "MemoryLimitError",
        "NoGradientError",
        "ParseError",
        "ShapeError",
        "VerificationError",
    ),
    "gradloom.compiler.ir": ("Graph", "Group", "Op", "Output", "Value"),
    "gradloom.compiler.ir_parser": ("parse",),
    "gradloom.compiler.ir_text": ("print_graph",),
    "gradloom.compiler.provenance": ("Provenance",),
    "gradloom.compiler.types": ("DType", "TensorType"),
}

__all__ = [
    "DType",
    "DTypeError",
    "FusionError",
    "GradloomError",
    "Graph",
    "Group",
    "MemoryLimitError",
    "NoGradientError",
    "Op",
    "Output",
    "ParseError",
    "Provenance",
    "ShapeError",
    "TensorType",
    "Value",
    "VerificationError",
    "parse",
    "print_graph",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'gradloom.compiler' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
