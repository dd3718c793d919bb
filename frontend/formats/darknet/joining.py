"""Darknet's layers that read earlier ones: route and shortcut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.layers import Route, Shortcut
from gradloom.formats.darknet.step import Before, Map, Step
from gradloom.formats.darknet.weighted import activation, activation_layers
from gradloom.layers import Layer


@dataclass(frozen=True)
class Routing(Step):
    """The channels of several layers one after the other; of `groups` equal parts of each only number `group_id`."""

    kind: ClassVar[str] = "route"
    keys: ClassVar[frozenset[str]] = frozenset({"group_id", "groups", "layers"})
    reads_several: ClassVar[bool] = True

    groups: int
    group_id: int

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        indices = tuple(before.find(number, "layers") for number in section.integers("layers"))
        groups = section.integer("groups", 1, low=1)
        group_id = section.integer("group_id", 0, high=groups - 1)
        maps = [before.map_of(index) for index in indices]
        if any((m.height, m.width) != (maps[0].height, maps[0].width) for m in maps):
            listed = ", ".join(f"{m} of layer {index}" for index, m in zip(indices, maps, strict=True))
            raise section.error(f"Expected layers whose maps have one height and width. Received: {listed}", "layers")
        if any(m.channels % groups for m in maps):
            listed = ", ".join(str(m.channels) for m in maps)
            raise section.error(
                f"Expected groups to divide the channels of every layer: {listed}. Received: groups={groups}", "groups"
            )
        channels = sum(m.channels // groups for m in maps)
        return cls(indices, Map(maps[0].height, maps[0].width, channels), groups, group_id)

    def layers(self, name: str) -> list[Layer]:
        return [Route(self.groups, self.group_id, name=name)]


@dataclass(frozen=True)
class Residual(Step):
    """alpha · the layer above + beta · layer `from` where both have numbers, then an activation.

    Maps of other size meet at every n-th pixel of the larger one, maps of other depth in their first channels.
    """

    kind: ClassVar[str] = "shortcut"
    keys: ClassVar[frozenset[str]] = frozenset({"activation", "alpha", "beta", "from"})
    reads_several: ClassVar[bool] = True

    activation: str
    alpha: float
    beta: float

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        numbers = section.integers("from")
        if len(numbers) > 1:
            raise section.error(f"Expected one layer in from. Received: {len(numbers)}", "from")
        index, output = before.find(numbers[0], "from"), before.map
        added = before.map_of(index)
        higher = added.height // output.height, output.height // added.height
        wider = added.width // output.width, output.width // added.width
        if higher != wider:
            raise section.error(
                f"Expected a map of layer {index} that is as many times as high as the map of {output} as it is wide. "
                f"Received: {added}",
                "from",
            )
        return cls(
            inputs=(before.index - 1, index),
            output=output,
            activation=activation(section, "linear"),
            alpha=section.number("alpha", 1.0),
            beta=section.number("beta", 1.0),
        )

    def layers(self, name: str) -> list[Layer]:
        return [Shortcut(self.alpha, self.beta, name=name), *activation_layers(name, self.activation)]
