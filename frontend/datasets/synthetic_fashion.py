"""A stand-in for Fashion-MNIST that needs no files: ten garment silhouettes drawn by code, with seeded variation.

It has Fashion-MNIST's shapes, types and class names, so that whatever trains on one trains on the other. An accuracy
reached on it says nothing about Fashion-MNIST: the pictures are drawn, and far easier to tell apart.
"""

from __future__ import annotations

import operator

import numpy as np

from gradloom.datasets.garments import GARMENTS, SIZE, Canvas

Split = tuple[np.ndarray, np.ndarray]

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_data(train: int = 8000, test: int = 2000, seed: int = 0) -> tuple[Split, Split]:
    """Draw a training and a test set.

    train, test: number of pictures, each 0 or more. seed: 0 or more; the same seed draws the same pictures, and the
    test set does not depend on the size of the training set.
    Returns `(x_train, y_train), (x_test, y_test)`: x u8[n, 28, 28], y u8[n] with labels 0…9, names in `CLASS_NAMES`.
    Raises ValueError for a negative number and TypeError for what is no integer.
    """
    for name, number in (("train", train), ("test", test), ("seed", seed)):
        if operator.index(number) < 0:
            raise ValueError(f"Expected {name} to be 0 or more. Received: {name}={number}")
    return _draw(train, np.random.default_rng([seed, 0])), _draw(test, np.random.default_rng([seed, 1]))


def _draw(count: int, rng: np.random.Generator) -> Split:
    # As many pictures of each class as divide evenly, in random order.
    labels = rng.permutation(np.arange(count) % len(GARMENTS)).astype(np.uint8)
    pictures = np.empty((count, SIZE, SIZE), np.uint8)
    for label, draw in enumerate(GARMENTS):
        places = np.flatnonzero(labels == label)
        canvas = Canvas(len(places), rng)
        draw(canvas)
        pictures[places] = canvas.finish()
    return pictures, labels
