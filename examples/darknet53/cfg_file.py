"""A network of the Darknet family as a cfg file, which `gl.formats.darknet.load` and Darknet itself read."""

from __future__ import annotations

from collections.abc import Sequence


def describe(stages: Sequence[tuple[int, int]], filters: int, size: int, classes: int) -> str:
    """Return the text of the cfg file of `gl.applications.Darknet(stages, filters, …)` for size × size images.

    The logits are a 1×1 convolution, as in Darknet's own file of Darknet53: on a map of one pixel that is the matrix
    product of the model, and its weights have the same order.
    """
    sections = [_section("net", height=size, width=size, channels=3), _convolution(filters, 3)]
    for width, blocks in stages:
        sections.append(_convolution(width, 3, stride=2))
        for _ in range(blocks):
            sections += [_convolution(width // 2, 1), _convolution(width, 3)]
            sections.append(_section("shortcut", **{"from": -3}, activation="linear"))
    sections += [
        _section("avgpool"),
        _section("convolutional", filters=classes, size=1, stride=1, pad=1, activation="linear"),
        _section("softmax", groups=1),
    ]
    return "\n".join(sections)


def _convolution(filters: int, size: int, stride: int = 1) -> str:
    options = {"filters": filters, "size": size, "stride": stride, "pad": 1, "activation": "leaky"}
    return _section("convolutional", batch_normalize=1, **options)


def _section(kind: str, **options: object) -> str:
    return f"[{kind}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())
