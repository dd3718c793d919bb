"""Callbacks' states, as they come back from a file that anyone may have written."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any


def entry(state: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """What a state has under a name; raises KeyError if there is nothing, TypeError if it is of none of these types."""
    value = state[name]
    if not isinstance(value, kinds):
        known = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"Expected {name} as {known}. Received: {reprlib.repr(value)}")
    return value
