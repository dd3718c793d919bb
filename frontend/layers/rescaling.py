"""The layer that brings raw data, such as bytes, into a network's range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from gradloom import ops
from gradloom.layers.layer import Layer, LayerOptions

Factors = float | Sequence[Any] | np.ndarray
"""A number, or an array of numbers that broadcasts against the layer's input: one for each channel, say."""


class Rescaling(Layer):
    """x · scale + offset, in the layer's dtype: `Rescaling(1 / 255)` for images of bytes.

    scale, offset: numbers, or arrays (lists) that broadcast against x: of shape (3,) for the colours of an image.
    """

    autocast = False

    def __init__(self, scale: Factors, offset: Factors = 0.0, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.scale = self._constant(scale, "scale")
        self.offset = self._constant(offset, "offset")

    def _constant(self, value: Factors, name: str) -> float | np.ndarray:
        """A number, or a copy of an array in the layer's dtype."""
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different length
            array = np.empty(0, object)
        if array.dtype.kind not in "biuf":
            raise TypeError(
                f"Layer {self.name!r}: Expected {name} as a number or an array of numbers. Received: {name}={value!r}"
            )
        return float(array) if array.ndim == 0 else array.astype(self.dtype.numpy)

    def call(self, x: Any) -> Any:
        y = ops.multiply(ops.cast(x, self.dtype), self.scale)
        return ops.add(y, self.offset) if np.any(self.offset) else y

    def get_config(self) -> dict[str, Any]:
        own = {"scale": self.scale, "offset": self.offset}
        return super().get_config() | {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in own.items()
        }
