"""The layer that brings raw data, such as bytes, into a network's range."""

from __future__ import annotations

from typing import Any, Unpack

from gradloom import ops
from gradloom.layers.layer import Layer, LayerOptions


class Rescaling(Layer):
    """x · scale + offset, in the layer's dtype: `Rescaling(1 / 255)` for images of bytes."""

    def __init__(self, scale: float, offset: float = 0.0, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.scale = float(scale)
        self.offset = float(offset)

    def call(self, x: Any) -> Any:
        y = ops.multiply(ops.cast(x, self.dtype), self.scale)
        return ops.add(y, self.offset) if self.offset else y

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale, "offset": self.offset}
