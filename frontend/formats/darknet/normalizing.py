"""Darknet's layer that normalizes numbers by those of neighbouring channels: normalization, of AlexNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.layers import LocalResponseNormalization
from gradloom.formats.darknet.step import Before, Step, only_input
from gradloom.layers import Layer

MOST_SUMMANDS = 1025
"""Channels that are added up: the network has a node for each of them."""


@dataclass(frozen=True)
class LocalNormalizing(Step):
    """Each number divided by (kappa + alpha · the squares of `size` channels around it) to the power of beta."""

    kind: ClassVar[str] = "normalization"
    keys: ClassVar[frozenset[str]] = frozenset({"alpha", "beta", "kappa", "size"})

    size: int
    alpha: float
    beta: float
    kappa: float

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        size, channels = section.integer("size", 5, low=1), before.map.channels
        most = min(2 * channels + 1, MOST_SUMMANDS)
        if size > most:
            raise section.error(
                f"Expected a size of at most {most} for the {channels} channels of its input. Received: size={size}",
                "size",
            )
        return cls(
            inputs=only_input(before),
            output=before.map,
            size=size,
            alpha=section.number("alpha", 0.0001),
            beta=section.number("beta", 0.75),
            kappa=section.number("kappa", 1.0),
        )

    def layers(self, name: str) -> list[Layer]:
        return [LocalResponseNormalization(self.size, self.alpha, self.beta, self.kappa, name=name)]
