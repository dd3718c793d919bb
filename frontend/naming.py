"""Automatic names of layers, metrics and optimizers: "dense", "dense_1", … as Keras counts them."""

from __future__ import annotations

import re
from collections import Counter

_taken: Counter[str] = Counter()


def snake_case(name: str) -> str:
    """Return a class name in snake case: "LeakyReLU" → "leaky_re_lu", "GlorotUniform" → "glorot_uniform"."""
    words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def unique_name(prefix: str) -> str:
    """Return `prefix` the first time, then `prefix_1`, `prefix_2`, …"""
    count = _taken[prefix]
    _taken[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def clear_session() -> None:
    """Begin the automatic names anew: the next Dense layer is called "dense" again."""
    _taken.clear()
