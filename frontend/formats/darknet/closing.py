"""Darknet's layers at the end of a classifier: dropout, softmax, cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.layers import ChannelFirstSoftmax
from gradloom.formats.darknet.step import Before, Step, only_input
from gradloom.layers import Dropout, Layer


@dataclass(frozen=True)
class Dropping(Step):
    """Each number 0 with this probability while training, the others that much larger."""

    kind: ClassVar[str] = "dropout"
    keys: ClassVar[frozenset[str]] = frozenset({"probability"})

    probability: float

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        probability = section.number("probability", 0.5, 0.0, 1.0)
        if probability == 1:
            raise section.error("Expected a probability below 1. Received: 1", "probability")
        return cls(only_input(before), before.map, probability)

    def layers(self, name: str) -> list[Layer]:
        return [Dropout(self.probability, name=name)]


@dataclass(frozen=True)
class Softmax(Step):
    """e^(x/temperature), divided by its sum within each of `groups` equal parts of the map, channel by channel.

    With spatial=1 the sum is over the channels of each pixel.
    """

    kind: ClassVar[str] = "softmax"
    keys: ClassVar[frozenset[str]] = frozenset({"groups", "noloss", "spatial", "temperature", "tree"})

    groups: int
    temperature: float
    spatial: bool

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        section.refuse_unless("tree", "A tree of classes")
        groups = section.integer("groups", 1, low=1)
        if before.map.size % groups:
            raise section.error(
                f"Expected groups to divide the {before.map.size} numbers of the map of {before.map}. "
                f"Received: groups={groups}",
                "groups",
            )
        temperature = section.number("temperature", 1.0, low=0.0)
        if temperature == 0:
            raise section.error("Expected a temperature above 0. Received: 0", "temperature")
        return cls(only_input(before), before.map, groups, temperature, section.flag("spatial"))

    def layers(self, name: str) -> list[Layer]:
        return [ChannelFirstSoftmax(self.groups, self.temperature, self.spatial, name=name)]


@dataclass(frozen=True)
class Cost(Step):
    """What Darknet trains by: nothing is computed, the network's result is that of the layer above."""

    kind: ClassVar[str] = "cost"
    keys: ClassVar[frozenset[str]] = frozenset({"noobj", "ratio", "scale", "thresh", "type"})

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        section.choice("type", ("L1", "masked", "seg", "smooth", "sse", "wgan"), "sse")
        return cls(only_input(before), before.map)

    def layers(self, name: str) -> list[Layer]:
        return []
