"""Darknet's layers with weights: convolutional and connected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from gradloom.formats.darknet.activations import ACTIVATIONS
from gradloom.formats.darknet.cfg import Section
from gradloom.formats.darknet.layers import BatchNormalization, Connected, Convolution
from gradloom.formats.darknet.step import MAX_WEIGHTS, Before, Map, Step, only_input, windows
from gradloom.layers import Activation, Layer


def activation(section: Section, default: str) -> str:
    """The name of the section's activation."""
    return section.choice("activation", ACTIVATIONS, default)


def activation_layers(name: str, function: str) -> list[Layer]:
    """The layer that applies the activation of Darknet's name, none for the linear one."""
    return [] if function == "linear" else [Activation(ACTIVATIONS[function], name=f"{name}_{function}")]


@dataclass(frozen=True)
class Weighted(Step):
    """Biases or batch normalization, and an activation, after a contraction with weights."""

    batch_normalize: bool
    activation: str

    def after(self, name: str) -> list[Layer]:
        """The layers behind the contraction."""
        normalization = [BatchNormalization(name=f"{name}_batch_normalize")] if self.batch_normalize else []
        return [*normalization, *activation_layers(name, self.activation)]

    def vectors(self) -> int:
        """How many floats a channel of the result has besides its weights: bias; scale, mean and variance."""
        return 4 if self.batch_normalize else 1


@dataclass(frozen=True)
class Convolutional(Weighted):
    """Filters over windows, with the same padding on all sides: `size // 2` with a `pad`, else what `padding` says."""

    kind: ClassVar[str] = "convolutional"
    keys: ClassVar[frozenset[str]] = frozenset(
        {
            "activation",
            "batch_normalize",
            "binary",
            "dot",
            "filters",
            "flipped",
            "groups",
            "pad",
            "padding",
            "size",
            "stride",
            "xnor",
        }
    )

    filters: int
    size: int
    stride: int
    padding: int
    groups: int
    channels: int

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        for key, meaning in (
            ("binary", "Binary weights"),
            ("xnor", "A convolution of signs"),
            ("flipped", "A file of transposed weights"),
        ):
            section.refuse_unless(key, meaning)
        source = before.map
        filters, size = section.integer("filters", 1, low=1), section.integer("size", 1, low=1)
        stride, groups = section.integer("stride", 1, low=1), section.integer("groups", 1, low=1)
        padding = size // 2 if section.flag("pad") else section.integer("padding", 0)
        for what, count in (("channels of its input", source.channels), ("filters", filters)):
            if count % groups:
                raise section.error(
                    f"Expected groups to divide the {count} {what}. Received: groups={groups}", "groups"
                )
        height, width = (windows(length, size, stride, 2 * padding) for length in (source.height, source.width))
        if not (height and width):
            raise section.error(
                f"Expected a size that fits the map of {source} with a padding of {padding}. Received: size={size}",
                "size",
            )
        step = cls(
            inputs=only_input(before),
            output=Map(height, width, filters),
            batch_normalize=section.flag("batch_normalize"),
            activation=activation(section, "logistic"),
            filters=filters,
            size=size,
            stride=stride,
            padding=padding,
            groups=groups,
            channels=source.channels,
        )
        if step.count_weights() > MAX_WEIGHTS:
            raise section.error(
                f"Expected at most {MAX_WEIGHTS} weights. Received: {step.count_weights()} of {filters} filters "
                f"of {size}×{size}×{source.channels // groups}",
                "filters",
            )
        return step

    def layers(self, name: str) -> list[Layer]:
        contraction = Convolution(
            self.filters,
            self.size,
            self.stride,
            self.padding,
            self.groups,
            use_bias=not self.batch_normalize,
            name=name,
        )
        return [contraction, *self.after(name)]

    def count_weights(self) -> int:
        return self.filters * (self.vectors() + self.size * self.size * (self.channels // self.groups))


@dataclass(frozen=True)
class FullyConnected(Weighted):
    """Every number of the result from all of the input, which files order channel by channel."""

    kind: ClassVar[str] = "connected"
    keys: ClassVar[frozenset[str]] = frozenset({"activation", "batch_normalize", "output"})

    source: Map

    @classmethod
    def parse(cls, section: Section, before: Before) -> Self:
        outputs = section.integer("output", 1, low=1)
        step = cls(
            inputs=only_input(before),
            output=Map(1, 1, outputs),
            batch_normalize=section.flag("batch_normalize"),
            activation=activation(section, "logistic"),
            source=before.map,
        )
        if step.count_weights() > MAX_WEIGHTS:
            raise section.error(
                f"Expected at most {MAX_WEIGHTS} weights. Received: {step.count_weights()} from a map of "
                f"{before.map} to {outputs} outputs",
                "output",
            )
        return step

    def layers(self, name: str) -> list[Layer]:
        return [
            Connected(self.output.channels, use_bias=not self.batch_normalize, name=name),
            *self.after(name),
        ]

    def count_weights(self) -> int:
        return self.output.channels * (self.vectors() + self.source.size)
