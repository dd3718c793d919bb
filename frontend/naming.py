"""Names that tell things apart: automatic ones as Keras counts them ("dense", "dense_1"), numbers for equal ones."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from itertools import count

_taken: dict[str, count[int]] = {}


def snake_case(name: str) -> str:
    """Return a class name in snake case: "LeakyReLU" → "leaky_re_lu", "GlorotUniform" → "glorot_uniform"."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def unique_name(prefix: str) -> str:
    """Return `prefix` the first time, then `prefix_1`, `prefix_2`, …"""
    # In one step each, for threads that build models beside each other.
    number = next(_taken.setdefault(prefix, count()))
    return f"{prefix}_{number}" if number else prefix


def numbered(name: str, taken: Container[str]) -> str:
    """Return `name`, or the first of `name_1`, `name_2`, … that is not taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def distinct(names: Iterable[str]) -> list[str]:
    """Number what would be equal: x, y, x → x, y, x_1."""
    result: dict[str, None] = {}
    for name in names:
        result[numbered(name, result)] = None
    return list(result)


def clear_session() -> None:
    """Begin the automatic names anew: the next Dense layer is called "dense" again."""
    _taken.clear()
