"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from gradloom import activations, initializers, ops
from gradloom.activations import Activation
from gradloom.compiler.errors import ShapeError
from gradloom.initializers import InitializerLike
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import InputSpec, Shape
from gradloom.variables import Variable


class Dense(Layer):
    """activation(x @ kernel + bias) along the last axis.

    Shapes: x (batch, …, features), kernel (features, units), bias (units,), result (batch, …, units). Integers, such as
    the bytes of an image, are converted to the layer's dtype.
    """

    input_spec = InputSpec(min_ndim=2)
    bias: Variable | None = None
    kernel: Variable

    def __init__(
        self,
        units: int,
        activation: str | Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if not isinstance(units, (int, np.integer)) or isinstance(units, bool) or units <= 0:
            raise ValueError(f"Layer {self.name!r}: Expected units as a positive integer. Received: units={units!r}")
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1]
        if features is None:
            raise ShapeError(f"Layer {self.name!r}: Expected a last axis of known size. Received: {input_shape}")
        self.kernel = self.add_weight((features, self.units), self.kernel_initializer, name="kernel")
        if self.use_bias:
            self.bias = self.add_weight((self.units,), self.bias_initializer, name="bias")
        self.input_spec = InputSpec(min_ndim=2, axes={-1: features})

    def call(self, x: Any) -> Any:
        y = ops.matmul(ops.cast(x, self.compute_dtype), ops.cast(self.kernel, self.compute_dtype))
        if self.bias is not None:
            y = ops.add(y, self.bias)
        return self.activation(y)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        self._check_shape(tuple(input_shape))
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
        }
