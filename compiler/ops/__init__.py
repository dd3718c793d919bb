"""Ops: one class each in a registry, and the functions with the names of `keras.ops` that compose them."""

from gradloom.compiler.ops import (
    arithmetic,
    comparison,
    contractions,
    elementwise,
    indexing,
    markers,
    movement,
    reductions,
)

__all__ = [
    "arithmetic",
    "comparison",
    "contractions",
    "elementwise",
    "indexing",
    "markers",
    "movement",
    "reductions",
]
