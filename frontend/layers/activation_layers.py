"""Layers that apply an activation function and have no weights."""

from __future__ import annotations

from typing import Any, Unpack

from gradloom import activations
from gradloom.activations import Activation as ActivationFunction
from gradloom.layers.layer import Layer, LayerOptions


class Activation(Layer):
    """Applies the activation of a name, or a function of a symbolic tensor."""

    autocast = False

    def __init__(self, activation: str | ActivationFunction | None, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.activation = activations.get(activation)

    def call(self, x: Any) -> Any:
        return self.activation(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"activation": activations.serialize(self.activation)}


class ReLU(Layer):
    """x where x ≥ threshold, negative_slope · (x − threshold) below, at most `max_value`."""

    autocast = False

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if max_value is not None and max_value < 0:
            raise ValueError(f"Layer {self.name!r}: Expected max_value ≥ 0 or None. Received: {max_value}")
        if negative_slope < 0:
            raise ValueError(f"Layer {self.name!r}: Expected negative_slope ≥ 0. Received: {negative_slope}")
        if threshold < 0:
            raise ValueError(f"Layer {self.name!r}: Expected threshold ≥ 0. Received: {threshold}")
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, x: Any) -> Any:
        return activations.relu(x, self.negative_slope, self.max_value, self.threshold)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }


class LeakyReLU(Layer):
    """x where x > 0, negative_slope · x elsewhere; the slope is 0.3 by default, as Keras has it for the layer."""

    autocast = False

    def __init__(self, negative_slope: float = 0.3, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        if negative_slope < 0:
            raise ValueError(f"Layer {self.name!r}: Expected negative_slope ≥ 0. Received: {negative_slope}")
        self.negative_slope = negative_slope

    def call(self, x: Any) -> Any:
        return activations.leaky_relu(x, self.negative_slope)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"negative_slope": self.negative_slope}


class Softmax(Layer):
    """eˣ / Σ eˣ along `axis`."""

    autocast = False

    def __init__(self, axis: int = -1, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.axis = axis

    def call(self, x: Any) -> Any:
        return activations.softmax(x, self.axis)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}
