"""The values that a random graph has so far, and the numbers by which steps choose among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from gradloom.compiler import ops
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.elementwise import Convert
from gradloom.compiler.ops.windows import Pair
from gradloom.compiler.types import BF16, BOOL, I32, DType

T = TypeVar("T")

MOST_ELEMENTS = 4096
"""Elements of a tensor at most: graphs are many, and interpreted too."""

MOST_FACTORS = 1024
"""Elements of an operand of a product or convolution at most."""

RECENT = 6
"""From how many of the latest fitting values an operand is taken."""


@dataclass
class Pool:
    """The values that a graph has so far, and the numbers that decide which of them a step takes, and how.

    `floats` are the dtypes of floats that there may be.
    """

    graph: Graph
    floats: tuple[DType, ...]
    values: list[Value] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def one_of(self, options: Sequence[T]) -> T:
        """An option, by the next number: the first one when there are no more numbers."""
        return options[(self.numbers.pop(0) if self.numbers else 0) % len(options)]

    def between(self, low: int, high: int) -> int:
        """An integer from low to high."""
        return self.one_of(range(low, high + 1))

    def value(self, fits: Callable[[Value], bool], otherwise: Callable[[], Value]) -> Value:
        """One of the latest values that fit; without any, what `otherwise` makes."""
        options = [value for value in reversed(self.values) if fits(value)][:RECENT]
        return self.one_of(options) if options else otherwise()

    def any(self) -> Value:
        """A value of any dtype."""
        return self.one_of(self.values[: -RECENT - 1 : -1])

    def floating(self, stored: bool = False) -> Value:
        """A float to compute with, or with `stored` perhaps one of bf16."""
        return self.value(
            lambda value: value.dtype.is_float and (stored or value.dtype != BF16),
            lambda: converted(self.any(), self.floats[0].arithmetic),
        )

    def number(self) -> Value:
        """An integer or a float to compute with."""
        return self.value(is_number, self.floating)

    def integer(self) -> Value:
        """Integers."""
        return self.value(lambda value: value.dtype.is_integer, lambda: converted(self.floating(), I32))

    def boolean(self) -> Value:
        """Bools."""
        return self.value(lambda value: value.dtype == BOOL, lambda: ops.greater(self.floating(), 0.25))

    def beside(self, x: Value) -> Value:
        """A second operand for an elementwise op on x, of its dtype: perhaps x itself."""
        found = self.value(
            lambda y: (
                (y.dtype.kind == x.dtype.kind or (is_number(x) and is_number(y)))
                and broadcast_size(x.shape, y.shape) <= MOST_ELEMENTS
            ),
            lambda: x,
        )
        return converted(found, x.dtype)

    def images(self, x: Value, most: int = MOST_FACTORS) -> Value:
        """x, or a part of it, as images [batch, height, width, channels]."""
        x = x if x.ndim else ops.reshape(x, (1,))
        while x.type.size > most:
            axis = max(range(x.ndim), key=lambda axis: x.shape[axis])
            x = x[(slice(None),) * axis + (slice(0, x.shape[axis] // 2),)]
        return ops.reshape(x, (-1, *x.shape[-3:]) if x.ndim > 3 else (*(1,) * (4 - x.ndim), *x.shape))

    def window(self, images: Value) -> Pair:
        """A window that fits into images."""
        return self.between(1, min(3, images.shape[1])), self.between(1, min(3, images.shape[2]))

    def constant(self, x: Value, shape: tuple[int, ...]) -> Value:
        """Weights of the dtype of x, the same in every graph."""
        weights = np.cos(np.arange(math.prod(shape))).reshape(shape)
        return converted(x.graph.constant(weights.astype(x.dtype.arithmetic.numpy)), x.dtype)


def is_number(value: Value) -> bool:
    """Whether there is arithmetic on a value."""
    return value.dtype not in (BOOL, BF16)


def converted(value: Value, dtype: DType) -> Value:
    """The value in a dtype."""
    return value if value.dtype == dtype else value.graph.apply(Convert(dtype), value)


def broadcast_size(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Elements of the broadcast shape; infinitely many where shapes do not broadcast."""
    try:
        return math.prod(np.broadcast_shapes(a, b))
    except ValueError:
        return math.inf


def with_axis(x: Value) -> Value:
    """The value, a scalar as one of a single axis."""
    return x if x.ndim else ops.reshape(x, (1,))
