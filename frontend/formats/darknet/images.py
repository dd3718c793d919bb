"""Images as Darknet brings them to a network: RGB in [0, 1], resized bilinearly, on a grey canvas ("letterbox")."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

import numpy as np

from gradloom.compiler.errors import GradloomError

GREY = np.float32(0.5)
"""The canvas around an image of other proportions than the network's input."""


class ImageError(GradloomError, ValueError):
    """A file is no image, or a broken one."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode an image file: f32[height, width, 3], red, green and blue in [0, 1].

    Transparency is dropped and a camera's orientation mark is not followed, both as in Darknet. Needs Pillow.
    Raises ImageError for a file that is no image or is broken, a folder or a pipe; OSError when it cannot be opened.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("Reading images needs Pillow: pip install 'gradloom[examples]'") from error
    # Asked before it is opened: opening a pipe that nobody writes into waits for ever.
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        received = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ImageError(f"{path}: Expected an image such as JPEG or PNG. Received: {received}")
    with Path(path).open("rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, and images that are large but not refused
                with Image.open(file) as image:
                    if image.mode.startswith("I;16"):
                        return _grey_to_rgb(np.asarray(image) >> 8)
                    pixels = np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:
            size = os.fstat(file.fileno()).st_size
            received = f"{size} bytes of another format" if size else "an empty file"
            raise ImageError(f"{path}: Expected an image such as JPEG or PNG. Received: {received}") from error
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise ImageError(f"{path}: Expected an image such as JPEG or PNG. Received: {error}") from error
    return pixels.astype(np.float32) / np.float32(255)


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None].astype(np.float32) / np.float32(255), 3, axis=2)


def letterbox(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image, keeping its proportions, to fill height or width, and centre it on a grey canvas.

    image: f32[h, w, channels]. Returns f32[height, width, channels]; an image of that size comes back unchanged.
    """
    _check(image)
    old_height, old_width = image.shape[:2]
    # Whole numbers, rounded down; a very long image keeps one row of pixels.
    if width * old_height < height * old_width:
        new_height, new_width = max(1, old_height * width // old_width), width
    else:
        new_height, new_width = height, max(1, old_width * height // old_height)
    canvas = np.full((height, width, image.shape[2]), GREY, np.float32)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = resize(image, new_height, new_width)
    return canvas


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate bilinearly, first and last pixels of both images on each other (no smoothing when it shrinks).

    image: f32[h, w, channels]. Returns f32[height, width, channels].
    """
    _check(image)
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    return _resize_axis(_resize_axis(image.astype(np.float32), 1, width), 0, height)


def _resize_axis(image: np.ndarray, axis: int, size: int) -> np.ndarray:
    old = image.shape[axis]
    # A single pixel is the last one of the old image, as Darknet has it for columns.
    step = np.float32(old - 1) / np.float32(size - 1) if size > 1 else np.float32(0)
    place = np.arange(size, dtype=np.float32) * step
    place[-1] = old - 1
    before = np.minimum(place.astype(np.int64), old - 1)
    after = np.minimum(before + 1, old - 1)
    share = (place - before.astype(np.float32)).reshape(tuple(-1 if a == axis else 1 for a in range(3)))
    result: np.ndarray = (1 - share) * np.take(image, before, axis) + share * np.take(image, after, axis)
    return result


def _check(image: np.ndarray) -> None:
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"Expected an image of shape (height, width, channels). Received: shape {image.shape}")
