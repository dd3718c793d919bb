"""Dropout: random zeros in training, the same for any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from gradloom import ops
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ops.random_bits import RandomUniform
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.random_seed import new_stream
from gradloom.variables import Variable


class Dropout(Layer):
    """In training each element is 0 with probability `rate`, and 1 / (1 − rate) times itself otherwise.

    noise_shape: the shape of the decisions, with 1 where they are shared along an axis and None for the input's size.
    seed: for decisions of its own, whatever seed is set. What is dropped depends on the seed and on how often the layer
    was applied in training, and not on the number of threads.
    """

    autocast = False

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 0 <= rate <= 1:
            raise ValueError(f"Layer {self.name!r}: Expected rate in [0, 1]. Received: rate={rate!r}")
        self.rate = float(rate)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.seed = seed
        # The counter begins at a number that the seed draws, so that layers differ, and counts applications.
        start = new_stream(seed).generator().integers(0, 2**62)
        self._counter = Variable(
            np.int64(start),
            dtype="int64",
            trainable=False,
            name="counter",
            role="state",
            path=f"{self._path()}/counter",
        )

    @property
    def _own_variables(self) -> list[Variable]:
        # How often it was applied is no weight: models that differ in dropout alone have the same ones.
        return [variable for variable in super()._own_variables if variable is not self._counter]

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return x
        if self.rate == 1:
            return ops.zeros_like(x)
        count = ops.convert_to_tensor(self._counter)
        self._counter.assign(count + 1)
        uniform = x.graph.apply(RandomUniform(self._decisions(x.shape), 0), count)
        return ops.where(ops.greater_equal(uniform, self.rate), x * (1.0 / (1.0 - self.rate)), 0.0)

    def _decisions(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is decided at random for an input of this shape."""
        if self.noise_shape is None:
            return shape
        sizes = tuple(size if given is None else given for given, size in zip(self.noise_shape, shape, strict=False))
        if len(self.noise_shape) != len(shape) or any(s not in (1, size) for s, size in zip(sizes, shape, strict=True)):
            raise ShapeError(
                f"Layer {self.name!r} (Dropout): Expected an input that noise_shape={self.noise_shape} broadcasts to. "
                f"Received: shape {shape}"
            )
        return sizes

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "noise_shape": self.noise_shape, "seed": self.seed}
