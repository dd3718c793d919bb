"""Arguments of a checked function: its arrays taken out of tuples, dicts and dataclasses, and put back in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradloom.trees import as_array, is_literal

STATIC = "static"
"""Metadata of a dataclass's field that says that it holds no arrays, but numbers that are attributes."""

Rebuild = Callable[[Sequence[Any]], Any]


def is_array(leaf: Any) -> bool:
    """Whether a part of an argument is an array: a Python int or bool is none, but a stride, an axis or a flag."""
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind in "fiub" or leaf.dtype.name == "bfloat16"
    return isinstance(leaf, float) or (isinstance(leaf, list) and is_literal(leaf))


def taken_apart(tree: Any, root: str) -> tuple[list[np.ndarray], list[str], Rebuild]:
    """Return the arrays in a tree, their names ("x", "x.0", "call.weights.1"), and how to put others in their places.

    What is no array, a number of strides for example, stays where it is.
    """
    if is_array(tree):
        return [as_array(tree, f"argument {root}")], [root], lambda leaves: leaves[0]
    keys, children, make = _opened(tree)
    arrays: list[np.ndarray] = []
    names: list[str] = []
    parts: list[tuple[int, int, Rebuild]] = []
    for key, child in zip(keys, children, strict=True):
        inside, inner_names, rebuild = taken_apart(child, f"{root}.{key}")
        parts.append((len(arrays), len(arrays) + len(inside), rebuild))
        arrays += inside
        names += inner_names
    return arrays, names, lambda leaves: make([rebuild(leaves[low:high]) for low, high, rebuild in parts])


def _opened(tree: Any) -> tuple[list[Any], list[Any], Callable[[list[Any]], Any]]:
    """The keys and the parts of a container, and how to make one like it of other parts."""
    if isinstance(tree, dict):
        keys = sorted(tree, key=str)
        return keys, [tree[key] for key in keys], lambda parts: dict(zip(keys, parts, strict=True))
    if isinstance(tree, tuple | list):
        make: Callable[[list[Any]], Any] = type(tree)
        if hasattr(tree, "_fields"):
            make = lambda parts: type(tree)(*parts)  # noqa: E731
        return list(range(len(tree))), list(tree), make
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [f.name for f in dataclasses.fields(tree) if f.init and not f.metadata.get(STATIC)]
        values = [getattr(tree, name) for name in fields]
        return fields, values, lambda parts: dataclasses.replace(tree, **dict(zip(fields, parts, strict=True)))
    return [], [], lambda parts: tree
