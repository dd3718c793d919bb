"""Strategies for arguments: tensors whose sizes are shared by name, and windows with strides and paddings that fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradloom.compiler.types import as_dtype
from gradloom.testing.profiles import import_hypothesis

Draw = Callable[[Any], Any]

LARGEST = 4
"""The largest size that a name gets by itself."""

GRID = 64
"""Elements are drawn as multiples of 1/64: exact in every dtype, and simple when they are shrunk."""

MAGNITUDE = 3
"""Elements are drawn up to this."""


@dataclass(frozen=True)
class Tensor:
    """An array to be drawn: see `tensor`."""

    dims: tuple[str | int, ...]
    dtype: str = "float32"
    elements: Any = None
    broadcastable: bool = False
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def draw_shape(self, draw: Draw, known: dict[str, int]) -> tuple[int, ...]:
        """Draw the sizes that are not known yet; broadcast some axes, if that was asked for."""
        st = import_hypothesis().strategies
        for dim in self.dims:
            if isinstance(dim, str) and dim not in known:
                known[dim] = draw(st.integers(*self.sizes.get(dim, (0, LARGEST))))
        shape = [known[dim] if isinstance(dim, str) else dim for dim in self.dims]
        if self.broadcastable:
            shape = [size if draw(st.booleans()) else 1 for size in shape]
            del shape[: draw(st.integers(0, _leading_ones(shape)))]
        return tuple(shape)

    def draw_array(self, draw: Draw, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the elements."""
        st = import_hypothesis().strategies
        dtype = as_dtype(self.dtype)
        elements = self.elements
        if elements is None:
            if dtype.is_float:
                elements = st.integers(-MAGNITUDE * GRID, MAGNITUDE * GRID).map(lambda n: n / GRID)
            elif dtype.kind == "bool":
                elements = st.booleans()
            else:
                elements = st.integers(0 if dtype.kind == "unsigned" else -LARGEST, LARGEST)
        elif isinstance(elements, tuple):
            elements = _between(*elements)
        size = math.prod(shape)
        drawn = draw(st.lists(elements, min_size=size, max_size=size))
        return np.array(drawn, dtype.numpy).reshape(shape)


def tensor(
    *dims: str | int,
    dtype: str = "float32",
    elements: Any = None,
    broadcastable: bool = False,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Tensor:
    """Return the strategy of an array of shape `dims`, for `gradient_property`.

    dims: names and numbers. A name has one size in all arguments of a function, from 0 to 4, so 0 and 1 too.
    elements: a strategy, or the range that they are drawn from; by default from −3 to 3. Steps are 1/64, in narrow
        ranges finer.
    broadcastable: some axes get size 1 instead, and leading ones of size 1 may be missing.
    sizes: other bounds for names: `sizes={"N": (1, 8)}`; they hold if this argument is the first to have the name.
    """
    if any(not isinstance(dim, str | int) or (isinstance(dim, int) and dim < 0) for dim in dims):
        raise ValueError(f"tensor: Expected sizes as names or non-negative integers. Received: {dims}")
    for name, bounds in (sizes or {}).items():
        if name not in dims:
            names = ", ".join(dim for dim in dims if isinstance(dim, str)) or "none"
            raise ValueError(f"tensor: Expected sizes of names among {names}. Received: {name}")
        if not _is_range(bounds) or bounds[0] < 0:
            raise ValueError(f"tensor: Expected sizes as (least, most), {{{name!r}: (1, 8)}}. Received: {bounds!r}")
    if elements is not None and not hasattr(elements, "flatmap") and not _is_range(elements):
        raise ValueError(f"tensor: Expected elements as a strategy or (least, most). Received: {elements!r}")
    as_dtype(dtype)
    return Tensor(dims, dtype, elements, broadcastable, dict(sizes or {}))


def _is_range(bounds: Any) -> bool:
    return isinstance(bounds, tuple) and len(bounds) == 2 and bounds[0] <= bounds[1]


def _between(low: float, high: float) -> Any:
    """The strategy of numbers in a range, of which a grid fine enough has a few."""
    st = import_hypothesis().strategies
    if low == high:
        return st.just(low)
    grid = GRID
    while (high - low) * grid < 4:
        grid *= 2
    return st.integers(math.ceil(low * grid), math.floor(high * grid)).map(lambda n: n / grid)


def _leading_ones(shape: Sequence[int]) -> int:
    return next((place for place, size in enumerate(shape) if size != 1), len(shape))


@dataclass(frozen=True)
class Convolution:
    """Images and a kernel with attributes that fit, under the names of `gl.ops.conv`."""

    x: Any
    kernel: Any
    strides: tuple[int, int]
    padding: str
    dilation_rate: tuple[int, int]


@dataclass(frozen=True)
class Pooling:
    """Images and windows that fit, under the names of `gl.ops.max_pool`."""

    x: Any
    pool_size: tuple[int, int]
    strides: tuple[int, int]
    padding: str


def convolution(dtype: str = "float32", groups: bool = True) -> Any:
    """Return the strategy of `Convolution`: x [batch, height, width, channels], kernel, strides, padding, dilation.

    Without padding the kernel fits into the images; strides and dilation are not both above 1, as in Keras. With
    `groups` the kernel may have a part of the images' channels.
    """

    def build(draw: Draw) -> Convolution:
        st = import_hypothesis().strategies
        padding = draw(st.sampled_from(["valid", "same"]))
        window = draw(_pairs(1, 3))
        strides = draw(_pairs(1, 2))
        dilation = draw(_pairs(1, 2)) if strides == (1, 1) else (1, 1)
        least = [(k - 1) * d + 1 if padding == "valid" else 1 for k, d in zip(window, dilation, strict=True)]
        height, width = (low + draw(st.integers(0, 3)) for low in least)
        divided = draw(st.sampled_from([1, 2])) if groups else 1
        channels = draw(st.integers(1, 2))
        filters = divided * draw(st.integers(1, 2))
        x = tensor(draw(st.integers(1, 2)), height, width, divided * channels, dtype=dtype)
        kernel = tensor(*window, channels, filters, dtype=dtype)
        return Convolution(_array(draw, x), _array(draw, kernel), strides, padding, dilation)

    return import_hypothesis().strategies.composite(build)()


def pooling(dtype: str = "float32") -> Any:
    """Return the strategy of `Pooling`: x [batch, height, width, channels], windows, strides, padding."""

    def build(draw: Draw) -> Pooling:
        st = import_hypothesis().strategies
        padding = draw(st.sampled_from(["valid", "same"]))
        window, strides = draw(_pairs(1, 3)), draw(_pairs(1, 3))
        height, width = (draw(st.integers(k if padding == "valid" else 1, 5)) for k in window)
        x = tensor(draw(st.integers(1, 2)), height, width, draw(st.integers(1, 2)), dtype=dtype)
        return Pooling(_array(draw, x), window, strides, padding)

    return import_hypothesis().strategies.composite(build)()


def _pairs(low: int, high: int) -> Any:
    st = import_hypothesis().strategies
    return st.tuples(st.integers(low, high), st.integers(low, high))


def _array(draw: Draw, wanted: Tensor) -> np.ndarray:
    return wanted.draw_array(draw, wanted.draw_shape(draw, {}))
