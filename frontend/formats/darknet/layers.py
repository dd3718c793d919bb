"""Darknet's layers where they differ from Keras's: padding, normalizations, unequal maps, channel-first order.

Maps are [batch, height, width, channels], as everywhere in Gradloom.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from gradloom import ops
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.movement import Pad
from gradloom.layers import Layer
from gradloom.layers.layer import LayerOptions
from gradloom.layers.shapes import InputSpec, Shape
from gradloom.variables import Variable

EPSILON = 1e-6
"""What Darknet adds to a standard deviation, where others add something to the variance."""

ROLLING = 0.99
"""How much of the rolling mean and variance a training step leaves."""


class Convolution(Layer):
    """Convolution with the same padding on all sides, whatever the stride.

    Weights: kernel (size, size, channels / groups, filters), bias (filters,).
    """

    bias: Variable | None = None
    kernel: Variable

    def __init__(
        self,
        filters: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        use_bias: bool = True,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        self.filters = filters
        self.size = size
        self.stride = stride
        self.padding = padding
        self.groups = groups
        self.use_bias = use_bias

    def build(self, input_shape: Shape) -> None:
        channels = _known(self, input_shape)[-1] // self.groups
        self.kernel = self.add_weight((self.size, self.size, channels, self.filters), "he_normal", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def call(self, x: Any) -> Any:
        sides = (self.padding, self.padding)
        dtype = self.compute_dtype
        y = ops.conv(ops.cast(x, dtype), ops.cast(self.kernel, dtype), self.stride, (sides, sides))
        return y if self.bias is None else y + self.bias

    def get_config(self) -> dict[str, Any]:
        names = ("filters", "size", "stride", "padding", "groups", "use_bias")
        return super().get_config() | {name: getattr(self, name) for name in names}


class Connected(Layer):
    """Each of `units` numbers from all of a map: (batch, height, width, channels) becomes (batch, 1, 1, units).

    Weights: kernel (height, width, channels, units), bias (units,).
    """

    bias: Variable | None = None
    kernel: Variable

    def __init__(self, units: int, use_bias: bool = True, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.units = units
        self.use_bias = use_bias

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight((*_known(self, input_shape), self.units), "he_normal", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight((self.units,), "zeros", name="bias")

    def call(self, x: Any) -> Any:
        batch, features = x.shape[0], int(np.prod(x.shape[1:]))
        x, kernel = ops.cast(x, self.compute_dtype), ops.cast(self.kernel, self.compute_dtype)
        y = ops.matmul(ops.reshape(x, (batch, features)), ops.reshape(kernel, (features, self.units)))
        if self.bias is not None:
            y = y + self.bias
        return ops.reshape(y, (batch, 1, 1, self.units))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"units": self.units, "use_bias": self.use_bias}


class BatchNormalization(Layer):
    """scale · (x − mean) / (√variance + 1e-6) + bias, channel by channel: epsilon stands beside the root.

    In training mean and variance are the batch's, the variance with n − 1 in its denominator, and the rolling ones
    keep 99 %. Otherwise, and in a layer that is not `trainable`, they are the rolling ones, in the form x · factor +
    shift, which folds into a convolution before it.
    """

    autocast = False
    scales: Variable
    biases: Variable
    rolling_mean: Variable
    rolling_variance: Variable

    def build(self, input_shape: Shape) -> None:
        channels = _known(self, input_shape)[-1]
        self.scales = self.add_weight((channels,), "ones", name="scales")
        self.biases = self.add_weight((channels,), "zeros", name="biases")
        self.rolling_mean = self.add_weight((channels,), "zeros", trainable=False, name="rolling_mean")
        self.rolling_variance = self.add_weight((channels,), "ones", trainable=False, name="rolling_variance")

    @property
    def parts(self) -> tuple[Variable, Variable, Variable, Variable]:
        """Scales, biases, means and variances."""
        return self.scales, self.biases, self.rolling_mean, self.rolling_variance

    def call(self, x: Any, training: bool = False) -> Any:
        if not (training and self.trainable):
            factor = self.scales / (ops.sqrt(self.rolling_variance) + EPSILON)
            return x * factor + (self.biases - self.rolling_mean * factor)
        axes = tuple(range(x.ndim - 1))
        count = int(np.prod(x.shape[:-1]))
        mean, variance = ops.moments(x, axes)
        # A single number has no spread: Darknet divides 0 by 0 there.
        variance = variance * (count / max(count - 1, 1))
        for rolling, current in ((self.rolling_mean, mean), (self.rolling_variance, variance)):
            rolling.assign(rolling * ROLLING + current * (1.0 - ROLLING))
        return (x - mean) * (self.scales / (ops.sqrt(variance) + EPSILON)) + self.biases


class LocalResponseNormalization(Layer):
    """x / (kappa + alpha · s)^beta, s being the squares of `size` channels around each one, as Darknet sums them.

    The window reaches from (size − 1) // 2 channels before to size // 2 behind. Darknet slides its sum along, but
    starts it without channel size // 2: that one never counts, and is taken off where the window has passed it.
    """

    autocast = False

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        kappa: float = 1.0,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.kappa = kappa

    def call(self, x: Any) -> Any:
        x = ops.cast(x, self.dtype)
        squares, channels, behind = x * x, x.shape[-1], self.size // 2
        padded = ops.pad(squares, (*((0, 0) for _ in x.shape[:-1]), ((self.size - 1) // 2, behind)))
        total = sum(padded[..., first : first + channels] for first in range(self.size))
        if behind < channels:
            total = total - squares[..., behind : behind + 1]
        return x * ops.power(self.kappa + self.alpha * total, -self.beta)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {name: getattr(self, name) for name in ("size", "alpha", "beta", "kappa")}


class MaxPool(Layer):
    """The largest number of each window; `padding` in all, its smaller half before the map."""

    def __init__(self, size: int, stride: int, padding: int, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.size = size
        self.stride = stride
        self.padding = padding

    def call(self, x: Any) -> Any:
        return ops.max_pool(x, self.size, self.stride, (self._pair(x.shape[1]), self._pair(x.shape[2])))

    def _pair(self, length: int) -> tuple[int, int]:
        """Padding before and behind an axis, there only as far as a window reaches."""
        before = self.padding // 2
        last = (length + self.padding - self.size) // self.stride * self.stride
        return before, max(0, last + self.size - before - length)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": self.size, "stride": self.stride, "padding": self.padding}


class Upsample(Layer):
    """Every number `stride` times in both directions, times `scale`."""

    def __init__(self, stride: int, scale: float = 1.0, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.stride = stride
        self.scale = scale

    def call(self, x: Any) -> Any:
        y = ops.repeat(ops.repeat(x, self.stride, axis=1), self.stride, axis=2)
        return y if self.scale == 1 else y * self.scale

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"stride": self.stride, "scale": self.scale}


class Crop(Layer):
    """The middle of the map; with `adjust`, 2·x − 1 of it."""

    def __init__(self, height: int, width: int, adjust: bool = True, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.height = height
        self.width = width
        self.adjust = adjust

    def call(self, x: Any) -> Any:
        top, left = (x.shape[1] - self.height) // 2, (x.shape[2] - self.width) // 2
        y = ops.cast(x, self.dtype)[:, top : top + self.height, left : left + self.width]
        return 2.0 * y - 1.0 if self.adjust else y

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"height": self.height, "width": self.width, "adjust": self.adjust}


class Route(Layer):
    """The channels of all inputs one after the other; of `groups` equal parts of each only number `group`."""

    def __init__(self, groups: int = 1, group: int = 0, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.groups = groups
        self.group = group

    def call(self, inputs: Sequence[Any]) -> Any:
        parts = []
        for x in inputs:
            part = x.shape[-1] // self.groups
            parts.append(x[..., self.group * part : (self.group + 1) * part])
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"groups": self.groups, "group": self.group}


class Shortcut(Layer):
    """alpha · x + beta · added for inputs [x, added], where both have numbers; elsewhere x.

    A larger `added` gives every n-th of its pixels, a smaller one goes to every n-th pixel of x; of channels the first
    ones count.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.alpha = alpha
        self.beta = beta

    def call(self, inputs: Sequence[Any]) -> Any:
        x, added = inputs
        if x.shape == added.shape:
            return _scaled(x, self.alpha) + _scaled(added, self.beta)
        height, width, channels = (min(a, b) for a, b in zip(x.shape[1:], added.shape[1:], strict=True))
        stride = max(added.shape[2] // x.shape[2], 1)
        sample = max(x.shape[2] // added.shape[2], 1)
        common = added[:, : (height - 1) * stride + 1 : stride, : (width - 1) * stride + 1 : stride, :channels]
        if self.alpha != 1:
            common_x = x[:, : (height - 1) * sample + 1 : sample, : (width - 1) * sample + 1 : sample, :channels]
            return x + _spread(_scaled(common, self.beta) + _scaled(common_x, self.alpha - 1.0), sample, x.shape)
        return x + _spread(_scaled(common, self.beta), sample, x.shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha, "beta": self.beta}


class ChannelFirstSoftmax(Layer):
    """Softmax of x / temperature within each of `groups` equal parts of a map in channel-first order.

    With `spatial` it is over the channels of each pixel instead. Vectors (batch, n) are taken, too.
    """

    autocast = False

    def __init__(
        self, groups: int = 1, temperature: float = 1.0, spatial: bool = False, **options: Unpack[LayerOptions]
    ) -> None:
        super().__init__(**options)
        self.groups = groups
        self.temperature = temperature
        self.spatial = spatial

    def call(self, x: Any) -> Any:
        x = x if self.temperature == 1 else x / self.temperature
        if self.spatial or (self.groups == 1 and x.ndim == 2):
            return ops.softmax(x, axis=-1)
        first = ops.moveaxis(x, -1, 1)
        parts = ops.reshape(first, (x.shape[0], self.groups, int(np.prod(x.shape[1:])) // self.groups))
        return ops.moveaxis(ops.reshape(ops.softmax(parts, axis=-1), first.shape), 1, -1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "groups": self.groups,
            "temperature": self.temperature,
            "spatial": self.spatial,
        }


def _scaled(x: Value, factor: float) -> Value:
    return x if factor == 1 else x * factor


def _spread(x: Value, sample: int, shape: Sequence[int]) -> Value:
    """x at every `sample`-th pixel of a map of `shape`, in its first channels, with zeros elsewhere."""
    between = (0, sample - 1, sample - 1, 0)
    sizes = [(size - 1) * (gap + 1) + 1 for size, gap in zip(x.shape, between, strict=True)]
    behind = tuple(size - used for size, used in zip(shape, sizes, strict=True))
    return x.graph.apply(Pad((0, 0, 0, 0), behind, between), x)


def _known(layer: Layer, shape: Shape) -> tuple[int, ...]:
    """The sizes of a map without its batch."""
    layer.input_spec = InputSpec(shape=shape)
    sizes = tuple(size for size in shape[1:] if size is not None)
    if len(sizes) != len(shape) - 1:
        raise ValueError(f"Layer {layer.name!r}: Expected a map of known size. Received: {shape}")
    return sizes
