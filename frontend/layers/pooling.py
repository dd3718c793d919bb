"""Pooling of images: over windows, and over all pixels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Unpack

from gradloom import ops
from gradloom.layers.images import PairLike, channels_last, padding_name, pair
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import InputSpec


class Pooling(Layer):
    """One number for each window of each channel; windows lie side by side unless `strides` says otherwise.

    Shapes: x (batch, height, width, channels), result (batch, rows of windows, columns, channels). padding: "valid"
    for windows inside of the image alone, "same" for as many as strides fit; padding never counts.
    """

    input_spec = InputSpec(ndim=4)

    def __init__(
        self,
        pool_size: PairLike = (2, 2),
        strides: PairLike | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        self.pool_size = pair(pool_size, "pool_size", self.name)
        self.strides = self.pool_size if strides is None else pair(strides, "strides", self.name)
        self.padding = padding_name(padding, self.name)
        self.data_format = channels_last(data_format, self.name)

    @abstractmethod
    def call(self, x: Any) -> Any:
        """Pool the windows."""

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
        }


class MaxPooling2D(Pooling):
    """The largest number of each window."""

    def call(self, x: Any) -> Any:
        return ops.max_pool(x, self.pool_size, self.strides, self.padding)


class AveragePooling2D(Pooling):
    """The mean of each window, over what of it lies in the image."""

    def call(self, x: Any) -> Any:
        return ops.average_pool(x, self.pool_size, self.strides, self.padding)


class GlobalPooling(Layer):
    """One number for each channel: (batch, channels), with `keepdims` (batch, 1, 1, channels)."""

    input_spec = InputSpec(ndim=4)

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        self.data_format = channels_last(data_format, self.name)
        self.keepdims = bool(keepdims)

    @abstractmethod
    def call(self, x: Any) -> Any:
        """Reduce height and width."""

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"data_format": self.data_format, "keepdims": self.keepdims}


class GlobalAveragePooling2D(GlobalPooling):
    """The mean over all pixels."""

    def call(self, x: Any) -> Any:
        return ops.mean(x, axis=(1, 2), keepdims=self.keepdims)


class GlobalMaxPooling2D(GlobalPooling):
    """The largest number among all pixels."""

    def call(self, x: Any) -> Any:
        return ops.max(x, axis=(1, 2), keepdims=self.keepdims)
