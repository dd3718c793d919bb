"""What every framework of the Darknet53 benchmark computes: the network's sizes, the images, the labels."""

from __future__ import annotations

import numpy as np

SIZE, CLASSES = 256, 1000
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
"""Filters and residual blocks of each stage."""

TRAINED = 4
"""Images in a training step."""


def make_data(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images f32[batch,256,256,3] within 0…1 and labels i64[batch]; the first ones are the same for any batch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 64)[:batch]
    return rng.random((batch, SIZE, SIZE, 3), np.float32), labels
