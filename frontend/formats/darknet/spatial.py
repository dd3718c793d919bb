"""Darknet's layers that pool, resize or cut out: maxpool, avgpool, upsample, crop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.layers import Crop, MaxPool, Upsample
from gradloom.formats.darknet.step import Before, Map, Step, only_input, windows
from gradloom.layers import GlobalAveragePooling2D, Layer


@dataclass(frozen=True)
class Maxpool(Step):
    """The largest number of each window; `padding` is what rows and columns are longer in all, its half before them."""

    kind: ClassVar[str] = "maxpool"
    keys: ClassVar[frozenset[str]] = frozenset({"padding", "size", "stride"})

    size: int
    stride: int
    padding: int

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        stride = section.integer("stride", 1, low=1)
        size = section.integer("size", stride, low=1)
        padding = section.integer("padding", size - 1)
        source = before.map
        counts = [windows(length, size, stride, padding) for length in (source.height, source.width)]
        for count, length in zip(counts, (source.height, source.width), strict=True):
            # Every window must see a number: the first one reaches from −padding // 2 on, the last one to the end.
            if not count or size <= padding // 2 or (count - 1) * stride - padding // 2 >= length:
                raise section.error(
                    f"Expected windows that all lie partly on the map of {source}. "
                    f"Received: size={size}, stride={stride}, padding={padding}",
                    "size",
                )
        return cls(only_input(before), Map(counts[0], counts[1], source.channels), size, stride, padding)

    def layers(self, name: str) -> list[Layer]:
        return [MaxPool(self.size, self.stride, self.padding, name=name)]


@dataclass(frozen=True)
class Avgpool(Step):
    """The mean of each channel."""

    kind: ClassVar[str] = "avgpool"

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        return cls(only_input(before), Map(1, 1, before.map.channels))

    def layers(self, name: str) -> list[Layer]:
        return [GlobalAveragePooling2D(keepdims=True, name=name)]


@dataclass(frozen=True)
class Upsampling(Step):
    """Every number `stride` times in both directions, times `scale`."""

    kind: ClassVar[str] = "upsample"
    keys: ClassVar[frozenset[str]] = frozenset({"scale", "stride"})

    stride: int
    scale: float

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        stride, source = section.integer("stride", 2, low=1), before.map
        output = Map(source.height * stride, source.width * stride, source.channels)
        return cls(only_input(before), output, stride, section.number("scale", 1.0))

    def layers(self, name: str) -> list[Layer]:
        return [Upsample(self.stride, self.scale, name=name)]


@dataclass(frozen=True)
class Cropping(Step):
    """The middle of the map, from [0, 1] to [−1, 1] unless noadjust=1.

    Darknet cuts at random places, and mirrors, while it trains; here training sees the middle, too.
    """

    kind: ClassVar[str] = "crop"
    keys: ClassVar[frozenset[str]] = frozenset(
        {"angle", "crop_height", "crop_width", "exposure", "flip", "noadjust", "saturation", "shift"}
    )

    adjust: bool

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        source = before.map
        height, width = section.integer("crop_height", 1, low=1), section.integer("crop_width", 1, low=1)
        for key, length, limit in (("crop_height", height, source.height), ("crop_width", width, source.width)):
            if length > limit:
                raise section.error(f"Expected {key} within the map of {source}. Received: {key}={length}", key)
        return cls(only_input(before), Map(height, width, source.channels), not section.flag("noadjust"))

    def layers(self, name: str) -> list[Layer]:
        return [Crop(self.output.height, self.output.width, self.adjust, name=name)]
