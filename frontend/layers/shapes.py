"""Shapes with an unknown batch size, and what a layer demands of its input's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int | None, ...]
"""Sizes along the axes; None is a size not known yet: the batch."""


ShapeTree = Any
"""A shape, or a list, tuple or dict of shapes: of a layer with several inputs."""


@dataclass(frozen=True)
class InputSpec:
    """What a layer's input must look like: all its sizes, or its rank, its least rank, and the sizes of some axes."""

    shape: Shape | None = None
    ndim: int | None = None
    min_ndim: int | None = None
    axes: Mapping[int, int] = field(default_factory=dict)

    def mismatch(self, received: Sequence[int | None]) -> str | None:
        """Say what was expected if a tensor of shape `received` does not fit, else None."""
        if self.shape is not None:
            fits = len(received) == len(self.shape) and all(map(_sizes_fit, self.shape, received))
            return None if fits else f"an input of shape {self.shape}"
        if self.ndim is not None and len(received) != self.ndim:
            return f"an input of rank {self.ndim}"
        if self.min_ndim is not None and len(received) < self.min_ndim:
            example = (None,) * (self.min_ndim - 1) + (self.axes.get(-1, "features"),)
            return f"an input of rank {self.min_ndim} or more, like {_printed(example)}"
        for axis, size in self.axes.items():
            if not _sizes_fit(size, received[axis]):
                example = (*(received[:axis] if axis == -1 else (...,)), size)
                return f"an input of shape {_printed(example)}: axis {axis} must have size {size}"
        return None


def normalized(shape: Sequence[int | None], what: str) -> Shape:
    """Return `shape` as a tuple of ints and None; raise `ValueError` naming `what` for anything else."""
    if is_integer(shape):
        shape = (int(shape),)  # type: ignore[call-overload]
    try:
        sizes = tuple(None if size is None else int(size) for size in shape)
    except (TypeError, ValueError):
        raise ValueError(f"Expected {what} as a tuple of integers and None. Received: {shape!r}") from None
    if any(size is not None and size < 0 for size in sizes):
        raise ValueError(f"Expected {what} with sizes ≥ 0. Received: {sizes}")
    return sizes


def is_integer(value: Any, least: int | None = None) -> bool:
    """Whether `value` is an integer, Python's or NumPy's, from `least` on; truth values are none."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    return whole and (least is None or bool(value >= least))


def is_shape(tree: ShapeTree) -> bool:
    """Whether this is one shape rather than several."""
    return is_integer(tree) or (
        isinstance(tree, (tuple, list))
        and all(size is None or not isinstance(size, (tuple, list, dict)) for size in tree)
    )


def map_shapes(function: Callable[[Any], Any], tree: ShapeTree) -> Any:
    """Apply `function` to each of the shapes."""
    if is_shape(tree):
        return function(tree)
    if isinstance(tree, Mapping):
        return {name: map_shapes(function, shape) for name, shape in tree.items()}
    return type(tree)(map_shapes(function, shape) for shape in tree)


def _sizes_fit(expected: int | None, received: int | None) -> bool:
    return expected is None or received is None or expected == received


def _printed(shape: Sequence[object]) -> str:
    return "(" + ", ".join("…" if size is ... else str(size) for size in shape) + ")"
