"""Convolutions of images, and what stands around them: zero padding and upsampling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

from gradloom import activations, initializers, ops
from gradloom.activations import Activation
from gradloom.compiler.errors import ShapeError
from gradloom.initializers import InitializerLike
from gradloom.layers.images import PairLike, channels_last, padding_name, pair
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import InputSpec, Shape, is_integer
from gradloom.variables import Variable


class Convolution(Layer):
    """What the layers that convolve images have in common: their weights, and all arguments but the filters."""

    input_spec = InputSpec(ndim=4)
    bias: Variable | None = None
    kernel: Variable

    def __init__(
        self,
        kernel_size: PairLike,
        strides: PairLike,
        padding: str,
        data_format: str | None,
        dilation_rate: PairLike,
        activation: str | Activation | None,
        use_bias: bool,
        bias_initializer: InitializerLike,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        self.kernel_size = pair(kernel_size, "kernel_size", self.name)
        self.strides = pair(strides, "strides", self.name)
        self.padding = padding_name(padding, self.name)
        self.data_format = channels_last(data_format, self.name)
        self.dilation_rate = pair(dilation_rate, "dilation_rate", self.name)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)

    @abstractmethod
    def _convolve(self, x: Any, kernel: Any) -> Any:
        """Return the convolution of the images with the kernel, both in the compute dtype, before the bias."""

    def _add_bias(self, filters: int) -> None:
        if self.use_bias:
            self.bias = self.add_weight((filters,), self.bias_initializer, name="bias")

    def _channels(self, input_shape: Shape) -> int:
        channels = input_shape[-1]
        if channels is None:
            raise ShapeError(f"Layer {self.name!r}: Expected channels of known number. Received: {input_shape}")
        self.input_spec = InputSpec(ndim=4, axes={-1: channels})
        return channels

    def call(self, x: Any) -> Any:
        y = self._convolve(ops.cast(x, self.compute_dtype), ops.cast(self.kernel, self.compute_dtype))
        if self.bias is not None:
            y = ops.add(y, self.bias)
        return self.activation(y)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "bias_initializer": initializers.serialize(self.bias_initializer),
        }


class Conv2D(Convolution):
    """activation(convolution of the images with the kernel + bias).

    Shapes: x (batch, height, width, channels), kernel (kernel height, kernel width, channels / groups, filters), bias
    (filters,). padding: "valid" for windows inside of the image alone, "same" for as many as strides fit, with the
    larger half of an odd padding below and to the right. groups: parts of the channels that are convolved by
    themselves. Bytes are converted to the layer's dtype.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: PairLike,
        strides: PairLike = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: PairLike = (1, 1),
        groups: int = 1,
        activation: str | Activation | None = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer, **options
        )
        self.filters = _positive(filters, "filters", self.name)
        self.groups = _positive(groups, "groups", self.name)
        self.kernel_initializer = initializers.get(kernel_initializer)
        if self.filters % self.groups:
            raise ValueError(
                f"Layer {self.name!r}: Expected filters that groups divide. "
                f"Received: filters={filters}, groups={groups}"
            )

    def build(self, input_shape: Shape) -> None:
        channels = self._channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                f"Layer {self.name!r} (Conv2D): Expected channels that groups={self.groups} divide. "
                f"Received: shape {input_shape}"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_weight(shape, self.kernel_initializer, name="kernel")
        self._add_bias(self.filters)

    def _convolve(self, x: Any, kernel: Any) -> Any:
        return ops.conv(x, kernel, self.strides, self.padding, dilation_rate=self.dilation_rate)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "filters": self.filters,
            "groups": self.groups,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
        }


class DepthwiseConv2D(Convolution):
    """activation(convolution of each channel by itself + bias), with `depth_multiplier` results for each.

    Shapes: x (batch, height, width, channels), kernel (kernel height, kernel width, channels, depth_multiplier), bias
    (channels · depth_multiplier,).
    """

    def __init__(
        self,
        kernel_size: PairLike,
        strides: PairLike = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: PairLike = (1, 1),
        activation: str | Activation | None = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, bias_initializer, **options
        )
        self.depth_multiplier = _positive(depth_multiplier, "depth_multiplier", self.name)
        self.depthwise_initializer = initializers.get(depthwise_initializer)

    def build(self, input_shape: Shape) -> None:
        channels = self._channels(input_shape)
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = self.add_weight(shape, self.depthwise_initializer, name="kernel")
        self._add_bias(channels * self.depth_multiplier)

    def _convolve(self, x: Any, kernel: Any) -> Any:
        return ops.depthwise_conv(x, kernel, self.strides, self.padding, dilation_rate=self.dilation_rate)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "depth_multiplier": self.depth_multiplier,
            "depthwise_initializer": initializers.serialize(self.depthwise_initializer),
        }


class ZeroPadding2D(Layer):
    """Zeros around images: as many on every side, or padding=(rows, columns), or ((top, bottom), (left, right))."""

    input_spec = InputSpec(ndim=4)

    def __init__(
        self,
        padding: int | Sequence[Any] = (1, 1),
        data_format: str | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        both = (padding, padding) if is_integer(padding) else padding
        if not isinstance(both, Sequence) or len(both) != 2:
            raise ValueError(
                f"Layer {self.name!r}: Expected padding as an integer, (rows, columns) or "
                f"((top, bottom), (left, right)). Received: padding={padding!r}"
            )
        self.padding = tuple(pair(sides, "padding", self.name, least=0) for sides in both)
        self.data_format = channels_last(data_format, self.name)

    def call(self, x: Any) -> Any:
        return ops.pad(x, ((0, 0), *self.padding, (0, 0)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"padding": self.padding, "data_format": self.data_format}


class UpSampling2D(Layer):
    """Each pixel repeated `size` times, downwards and to the right: nearest-neighbour interpolation."""

    input_spec = InputSpec(ndim=4)

    def __init__(
        self,
        size: PairLike = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        self.size = pair(size, "size", self.name)
        self.data_format = channels_last(data_format, self.name)
        if interpolation != "nearest":
            raise ValueError(
                f'Layer {self.name!r}: Expected interpolation="nearest". Received: interpolation={interpolation!r}'
            )
        self.interpolation = interpolation

    def call(self, x: Any) -> Any:
        return ops.repeat(ops.repeat(x, self.size[0], axis=1), self.size[1], axis=2)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "size": self.size,
            "data_format": self.data_format,
            "interpolation": self.interpolation,
        }


def _positive(value: int, argument: str, layer: str) -> int:
    if not is_integer(value, 1):
        raise ValueError(f"Layer {layer!r}: Expected {argument} as a positive integer. Received: {argument}={value!r}")
    return int(value)
