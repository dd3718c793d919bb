"""Nested tuples, lists and dicts of arrays ("trees"): taken apart into leaves and put together again."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Structure = Any
"""What is left of a tree without its leaves: hashable, so that compiled functions are kept by it."""


@dataclass(frozen=True)
class _Leaf:
    """The place of an array."""


@dataclass(frozen=True)
class _Nothing:
    """The place of a None, which is no array."""


@dataclass(frozen=True)
class _Node:
    """A container: how it is made anew, the keys of a dict, and what is inside."""

    make: type
    keys: tuple[Any, ...]
    children: tuple[Structure, ...]


LEAF = _Leaf()


def is_literal(tree: Any) -> bool:
    """Whether `tree` is a number, or a list (of lists) of nothing but numbers: an array that is written out."""
    if isinstance(tree, list):
        return bool(tree) and all(is_literal(item) for item in tree)
    return isinstance(tree, numbers.Number)


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """Return the leaves of a tree, in order (dicts by sorted keys), and its structure.

    A list of numbers is one leaf: `[[1.0, 2.0]]` is an array of shape (1, 2); a tuple is always a container.
    """
    leaves: list[Any] = []

    def visit(node: Any) -> Structure:
        if node is None:
            return _Nothing()
        if isinstance(node, dict):
            keys = tuple(sorted(node, key=str))
            return _Node(dict, keys, tuple(visit(node[key]) for key in keys))
        if isinstance(node, tuple) or (isinstance(node, list) and not is_literal(node)):
            return _Node(type(node), (), tuple(visit(item) for item in node))
        leaves.append(node)
        return LEAF

    return leaves, visit(tree)


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """Put `leaves` into the places that `structure` keeps for them."""
    remaining: Iterator[Any] = iter(leaves)

    def visit(node: Structure) -> Any:
        if isinstance(node, _Leaf):
            return next(remaining)
        if isinstance(node, _Nothing):
            return None
        children = [visit(child) for child in node.children]
        if node.make is dict:
            return dict(zip(node.keys, children, strict=True))
        if hasattr(node.make, "_fields"):  # a named tuple takes its fields one by one
            return node.make(*children)
        return node.make(children)

    return visit(structure)


def leaf_names(structure: Structure, root: str) -> list[str]:
    """Name each leaf by the way to it: `x`, `x.0`, `x.weights.1`; different ways may have one name."""
    names: list[str] = []

    def visit(node: Structure, path: str) -> None:
        if isinstance(node, _Leaf):
            names.append(path)
        elif isinstance(node, _Node):
            for key, child in zip(node.keys or range(len(node.children)), node.children, strict=True):
                visit(child, f"{path}.{key}")

    visit(structure, root)
    return names


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply `function` to each leaf of a tree."""
    leaves, structure = flatten(tree)
    return unflatten(structure, [function(leaf) for leaf in leaves])


def as_array(leaf: Any, where: str) -> np.ndarray:
    """Return a leaf as a C-contiguous native-endian array of a dtype that programs know, copying only when it must.

    Floats written in Python become float32 and ints int32, as in Keras; arrays keep float64 and int64. Narrower dtypes
    widen (float16 to float32, int16 to int32). Raises `TypeError` naming `where` for anything that is no array,
    `ValueError` for lists whose rows differ in length and for arrays with masked elements.
    """
    if type(leaf) is np.ndarray and leaf.dtype in _KNOWN and leaf.flags.c_contiguous and leaf.flags.aligned:
        return leaf
    try:
        array = np.asarray(leaf)
    except ValueError:
        if not isinstance(leaf, (list, tuple)):
            raise
        raise ValueError(
            f"Expected an array, a number or a (nested) list of numbers for {where}, with rows of equal length. "
            f"Received: {type(leaf).__name__} whose parts differ in shape: {_shapes(leaf)}"
        ) from None
    if isinstance(leaf, np.ma.MaskedArray) and (count := np.count_nonzero(leaf.mask)):
        raise ValueError(
            f"Expected an array for {where} in which nothing is masked, for programs know no masks: say what masked "
            f"elements count as, for example with filled(0). Received: one with {count} masked elements"
        )
    if is_literal(leaf) and not isinstance(leaf, np.generic):
        array = _narrowed(array, where)
    name = array.dtype.newbyteorder("=").name
    target = _ACCEPTED.get(name)
    if target is None:
        raise TypeError(
            f"Expected an array, a number or a (nested) list of numbers for {where}, with dtype bool, uint8, int32, "
            f"int64, bfloat16, float32 or float64. Received: {type(leaf).__name__} of dtype {array.dtype}"
        )
    return np.require(array, np.dtype(target), ("C", "A"))


def _shapes(ragged: Any) -> str:
    """The shapes of the first parts that differ, or the first such parts inside of one that has none itself."""
    seen: dict[str, int] = {}
    for position, part in enumerate(ragged):
        try:
            shape = str(np.shape(part))
        except ValueError:
            return f"in part {position}, {_shapes(part)}"
        seen.setdefault(shape, position)
        if len(seen) == 2:
            break
    return " and ".join(f"{shape} at {position}" for shape, position in seen.items())


def as_float32(array: np.ndarray, where: str) -> np.ndarray:
    """Cast to float32; raises `ValueError` naming `where` for finite numbers that would be infinite."""
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError:
        beyond = array[np.isfinite(array) & (np.abs(array) > np.finfo(np.float32).max)]
        raise ValueError(
            f"Expected numbers that float32 has, up to {np.finfo(np.float32).max:.4g}, for {where}. "
            f"Received: {beyond.flat[0]:.4g}"
        ) from None


def _narrowed(literal: np.ndarray, where: str) -> np.ndarray:
    """Give Python numbers their default dtypes; an int that does not fit 32 bits stays int64."""
    if literal.dtype == np.float64:
        return as_float32(literal, where)
    # Not by the absolute value: that of -2**63 is negative.
    if literal.dtype == np.int64 and literal.size and literal.min() >= -(2**31) and literal.max() < 2**31:
        return literal.astype(np.int32)
    return literal


_ACCEPTED = {
    "bool": "bool",
    "uint8": "uint8",
    "int8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "int32": "int32",
    "uint32": "int64",
    "int64": "int64",
    "float16": "float32",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
}

# NumPy knows bfloat16 once ml_dtypes is loaded: whoever has such an array has loaded it.
_KNOWN = frozenset(np.dtype(name) for name in _ACCEPTED.values() if name != "bfloat16")
"""The dtypes that programs know: an array of one is taken as it is."""
