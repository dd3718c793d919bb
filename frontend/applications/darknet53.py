"""Darknet53: 52 convolutions in 23 residual blocks and a classifier (Redmon & Farhadi, "YOLOv3", 2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradloom.applications.published import weights_file
from gradloom.formats.darknet.layers import BatchNormalization
from gradloom.formats.darknet.weights import load_weights
from gradloom.layers import (
    Add,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    Input,
    LeakyReLU,
    Softmax,
    ZeroPadding2D,
)
from gradloom.model import Model

STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Filters and residual blocks of each stage of Darknet53."""

_SLOPE = 0.1


def Darknet53(
    weights: str | os.PathLike[str] | None = None,
    include_top: bool = True,
    input_shape: Sequence[int] = (256, 256, 3),
    classes: int = 1000,
) -> Model:
    """Return Darknet53, for images f32[batch, height, width, 3], RGB in [0, 1].

    weights: a Darknet weights file; "imagenet" for the published ones, from the cache or downloaded; None for fresh
    ones. include_top: with pooling and probabilities of `classes` at the end; without, the result is the map of
    the last stage, of a 32nd of the height and width, and a weights file may be that of the whole network.
    Other than in Keras's networks, batch normalization is Darknet's, so that its files fit exactly.
    """
    model = Darknet(STAGES, 32, include_top, input_shape, classes, name="darknet53")
    if weights is None:
        return model
    file = weights_file() if weights == "imagenet" else Path(weights)
    # A whole network's file goes on with its classifier where this one stops.
    load_weights(model, file, unused=0 if include_top else (STAGES[-1][0] + 1) * classes)
    return model


def Darknet(
    stages: Sequence[tuple[int, int]] = STAGES,
    filters: int = 32,
    include_top: bool = True,
    input_shape: Sequence[int] = (256, 256, 3),
    classes: int = 1000,
    name: str = "darknet",
) -> Model:
    """Return a network of the family: a convolution of `filters`, then stages, each halving height and width.

    stages: filters and residual blocks of each.
    """
    if len(input_shape) != 3:
        raise ValueError(f"Expected input_shape as (height, width, channels). Received: {tuple(input_shape)}")
    image = Input(input_shape, name="image")
    x = _convolution(image, filters, 3, "stem")
    for number, (width, blocks) in enumerate(stages, 1):
        x = _halving(x, width, f"stage_{number}_halving")
        for block in range(1, blocks + 1):
            x = _residual(x, width, f"stage_{number}_block_{block}")
    if include_top:
        x = GlobalAveragePooling2D(name="pooled")(x)
        x = Dense(classes, name="logits")(x)
        x = Softmax(name="probabilities")(x)
    return Model(image, x, name=name)


def _residual(x: Any, filters: int, name: str) -> Any:
    """x + what a 1×1 convolution to half of the channels, and a 3×3 one back to all of them, make of it."""
    y = _convolution(x, filters // 2, 1, f"{name}_squeeze")
    y = _convolution(y, filters, 3, f"{name}_expand")
    return Add(name=f"{name}_add")([x, y])


def _halving(x: Any, filters: int, name: str) -> Any:
    """A 3×3 convolution with stride 2 and one pixel of padding on every side: `padding="same"` has it on two only."""
    x = ZeroPadding2D(1, name=f"{name}_padding")(x)
    return _normalized(
        Conv2D(filters, 3, strides=2, use_bias=False, kernel_initializer="he_normal", name=name)(x), name
    )


def _convolution(x: Any, filters: int, size: int, name: str) -> Any:
    convolution = Conv2D(filters, size, padding="same", use_bias=False, kernel_initializer="he_normal", name=name)
    return _normalized(convolution(x), name)


def _normalized(x: Any, name: str) -> Any:
    x = BatchNormalization(name=f"{name}_normalization")(x)
    return LeakyReLU(negative_slope=_SLOPE, name=f"{name}_leaky")(x)
