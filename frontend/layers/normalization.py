"""Batch normalization, whose moving statistics are state that training changes."""

from __future__ import annotations

from typing import Any, Unpack

from gradloom import initializers, ops
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.initializers import InitializerLike
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import InputSpec, Shape, is_integer
from gradloom.variables import Variable


class BatchNormalization(Layer):
    """(x − mean) / √(variance + epsilon) · gamma + beta, of each channel (Ioffe & Szegedy 2015).

    In training mean and variance are those of the batch, and the moving ones, which are used otherwise, become
    moving · momentum + batch's · (1 − momentum). A layer that is not `trainable` does the same in training as
    otherwise, as in Keras. axis: that of the channels.
    """

    autocast = False
    gamma: Variable | None = None
    beta: Variable | None = None
    moving_mean: Variable
    moving_variance: Variable

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if not is_integer(axis):
            raise ValueError(f"Layer {self.name!r}: Expected axis as an integer. Received: axis={axis!r}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"Layer {self.name!r}: Expected momentum in [0, 1]. Received: momentum={momentum!r}")
        if epsilon < 0:
            raise ValueError(f"Layer {self.name!r}: Expected epsilon ≥ 0. Received: epsilon={epsilon!r}")
        self.axis = int(axis)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.center = bool(center)
        self.scale = bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def build(self, input_shape: Shape) -> None:
        rank = len(input_shape)
        if not -rank <= self.axis < rank:
            raise ShapeError(
                f"Layer {self.name!r} (BatchNormalization): Expected an input that has axis {self.axis}. "
                f"Received: shape {input_shape}"
            )
        channels = input_shape[self.axis]
        if channels is None:
            raise ShapeError(
                f"Layer {self.name!r} (BatchNormalization): Expected a known size of axis {self.axis}. "
                f"Received: shape {input_shape}"
            )
        self.input_spec = InputSpec(ndim=rank, axes={self.axis: channels})
        if self.scale:
            self.gamma = self.add_weight((channels,), self.gamma_initializer, name="gamma")
        if self.center:
            self.beta = self.add_weight((channels,), self.beta_initializer, name="beta")
        self.moving_mean = self.add_weight(
            (channels,), self.moving_mean_initializer, trainable=False, name="moving_mean"
        )
        self.moving_variance = self.add_weight(
            (channels,), self.moving_variance_initializer, trainable=False, name="moving_variance"
        )

    def call(self, x: Any, training: bool = False) -> Any:
        x = ops.cast(x, self.dtype)
        mean, variance = (
            self._statistics(x) if training and self.trainable else (self.moving_mean, self.moving_variance)
        )
        return ops.batch_normalization(x, mean, variance, self.axis, self.beta, self.gamma, self.epsilon)

    def _statistics(self, x: Value) -> tuple[Value, Value]:
        """Mean and variance of the batch, which the moving ones take in."""
        kept = self.axis % x.ndim
        mean, variance = ops.moments(x, tuple(axis for axis in range(x.ndim) if axis != kept))
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.stop_gradient(now) * (1.0 - self.momentum))
        return mean, variance

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
        }
