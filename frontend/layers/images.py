"""What layers of images have in common: pairs of sizes, padding by name, the order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradloom.layers.shapes import is_integer

Pair = tuple[int, int]
PairLike = int | Sequence[int]


def pair(value: Any, argument: str, layer: str, least: int = 1) -> Pair:
    """Return one integer for height and width, or one for each, as two; raise `ValueError` naming the layer."""
    sizes = (value, value) if is_integer(value) else value
    if not isinstance(sizes, Sequence) or len(sizes) != 2 or not all(is_integer(size, least) for size in sizes):
        raise ValueError(
            f"Layer {layer!r}: Expected {argument} as one integer ≥ {least}, or two. Received: {argument}={value!r}"
        )
    return (int(sizes[0]), int(sizes[1]))


def padding_name(padding: Any, layer: str) -> str:
    """Return "valid" or "same", in lower case."""
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in ("valid", "same"):
        raise ValueError(f'Layer {layer!r}: Expected padding="valid" or "same". Received: padding={padding!r}')
    return str(name)


def channels_last(data_format: str | None, layer: str) -> str:
    """Return the one order of axes that there is: [batch, height, width, channels]."""
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f'Layer {layer!r}: Expected data_format="channels_last". Received: data_format={data_format!r}'
        )
    return "channels_last"
