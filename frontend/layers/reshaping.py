"""Layers that move elements and compute nothing: Flatten and Reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

from gradloom import ops
from gradloom.compiler.errors import ShapeError
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import InputSpec


class Flatten(Layer):
    """Makes one axis of all but the batch: (batch, 28, 28) becomes (batch, 784), (batch,) becomes (batch, 1)."""

    input_spec = InputSpec(min_ndim=1)

    def call(self, x: Any) -> Any:
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


class Reshape(Layer):
    """Gives each example the shape `target_shape`, in which one size may be -1: what is left over."""

    def __init__(self, target_shape: Sequence[int], **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.target_shape = tuple(int(size) for size in target_shape)
        if self.target_shape.count(-1) > 1 or any(size < -1 or size == 0 for size in self.target_shape):
            raise ValueError(
                f"Layer {self.name!r}: Expected positive sizes and at most one -1. "
                f"Received: target_shape={self.target_shape}"
            )

    def call(self, x: Any) -> Any:
        size, known = math.prod(x.shape[1:]), math.prod(size for size in self.target_shape if size > 0)
        fits = size % known == 0 if -1 in self.target_shape else size == known
        if not fits:
            raise ShapeError(
                f"Layer {self.name!r} (Reshape): Expected examples whose size fits {self.target_shape}. "
                f"Received: shape {x.shape}, of {size} elements an example"
            )
        return ops.reshape(x, (x.shape[0], *(size // known if s == -1 else s for s in self.target_shape)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"target_shape": self.target_shape}
