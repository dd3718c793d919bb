"""Images to train on: a folder with one subfolder for each class, or simple figures drawn by code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.formats import darknet

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def load_folder(folder: Path, size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images u8[n, size, size, 3] in `folder`, their labels i32[n] and the names of the classes.

    The subfolders' names, in order, are the classes; images are brought to `size` by Darknet's letterbox. Hidden files
    and folders, and files with no suffix of images, are passed over.
    Raises GradloomError for a folder without at least two classes, or a class without images; ImageError for a
    file that is no image.
    """
    if not folder.is_dir():
        raise GradloomError(f"Expected a folder with one subfolder for each class. Received: {folder} is no folder")
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise GradloomError(f"{folder}: Expected at least two subfolders, one for each class. Received: {len(classes)}")
    images, labels = [], []
    for label, subfolder in enumerate(classes):
        files = sorted(file for file in subfolder.iterdir() if _is_image(file))
        if not files:
            raise GradloomError(f"{subfolder}: Expected images ({', '.join(sorted(SUFFIXES))}). Received: none")
        images += [_as_bytes(darknet.letterbox(darknet.read_image(file), size, size)) for file in files]
        labels += [label] * len(files)
    return np.stack(images), np.asarray(labels, np.int32), [subfolder.name for subfolder in classes]


def _is_image(file: Path) -> bool:
    """Whether a file says that it is an image. macOS leaves hidden ones, `._0.jpg`, that are none."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def draw_figures(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw `count` images of figures in random colours, sizes and places, in the form of `load_folder`."""
    rng = np.random.default_rng(seed)
    names = list(FIGURES)
    labels = np.arange(count, dtype=np.int32) % len(names)
    return np.stack([_draw(names[label], size, rng) for label in labels]), labels, names


def _draw(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """One figure on a background of other colour, with noise."""
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    radius = rng.uniform(0.35, 0.65)
    top, left = rng.uniform(-0.3, 0.3, 2)
    inside = FIGURES[name]((x - left) / radius, (y - top) / radius)[..., np.newaxis]
    ground, ink = rng.uniform(0, 0.4, 3), rng.uniform(0.6, 1, 3)
    image = np.where(inside, ink, ground) + rng.normal(0, 0.04, (size, size, 3))
    return _as_bytes(image)


FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "bar": lambda x, y: (abs(x) < 1) & (abs(y) < 0.3),
    "cross": lambda x, y: (np.maximum(abs(x), abs(y)) < 1) & (np.minimum(abs(x), abs(y)) < 0.3),
    "disc": lambda x, y: x**2 + y**2 < 1,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.36),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.8) & (abs(x) < (y + 1) / 1.8),
}
"""Whether a point of the square [−1, 1]² belongs to a figure."""


def _as_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
