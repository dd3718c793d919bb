"""What every layer of a Darknet network has: where its input comes from, the map it makes, how it is computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from gradloom.formats.darknet.cfg import Section
from gradloom.layers import Layer

MAX_WEIGHTS = MAX_MAP = 2**31 - 1
"""Darknet counts the weights of a layer, and the numbers of its map, in a C int."""

COMMON_KEYS = frozenset(
    {
        "dontload",
        "dontloadscales",
        "dontsave",
        "learning_rate",
        "onlyforward",
        "smooth",
        "stopbackward",
        "truth",
    }
)
"""What every section may say besides its own keys; apart from `dont…` it is about training with Darknet."""


@dataclass(frozen=True)
class Map:
    """Height, width and channels of a layer's result: a vector of n numbers is a map of 1×1×n."""

    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return f"{self.height}×{self.width}×{self.channels}"


class Before:
    """The layers above a section: their maps, found as Darknet counts them, from 0 after [net]."""

    def __init__(self, section: Section, source: Map, maps: Sequence[Map]) -> None:
        self._section = section
        self._source = source
        self._maps = maps

    @property
    def index(self) -> int:
        """The number of this layer."""
        return len(self._maps)

    @property
    def map(self) -> Map:
        """The result of the layer just above, or the network's input."""
        return self._maps[-1] if self._maps else self._source

    def find(self, number: int, key: str) -> int:
        """The layer that `number` in `key` means: counted back from here if negative, from the first one otherwise."""
        index = number if number >= 0 else self.index + number
        if not 0 <= index < self.index:
            above = f"there are {self.index} above it" if self.index else "it is the first one"
            raise self._section.error(
                f"Expected {key} to name layers above this one, layer {self.index}: {above}. Received: {number}", key
            )
        return index

    def map_of(self, index: int) -> Map:
        """The result of layer `index`."""
        return self._maps[index]


@dataclass(frozen=True)
class Step(ABC):
    """A layer as its section says it.

    inputs: the layers whose results it reads, −1 for the network's input. output: the map it makes.
    """

    kind: ClassVar[str]
    keys: ClassVar[frozenset[str]] = frozenset()
    reads_several: ClassVar[bool] = False

    inputs: tuple[int, ...]
    output: Map

    @classmethod
    @abstractmethod
    def parse(cls, section: Section, before: Before) -> Self:
        """Return the layer that `section` says; raise CfgError, at its line, for one that cannot work."""

    @abstractmethod
    def layers(self, name: str) -> list[Layer]:
        """The layers that compute it, one after the other; the first one takes the inputs, several as a list."""

    def count_weights(self) -> int:
        """Number of floats that a weights file holds for it."""
        return 0


def only_input(before: Before) -> tuple[int, ...]:
    """The layer just above, as the inputs of a step."""
    return (before.index - 1,)


def windows(size: int, window: int, stride: int, padding: int) -> int:
    """How many windows fit along an axis, `padding` in all added to it; 0 if none does."""
    return (size + padding - window) // stride + 1 if size + padding >= window else 0


def apply(layers: Sequence[Layer], x: Any) -> Any:
    """Apply the layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x
