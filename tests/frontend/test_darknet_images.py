"""Images as Darknet resizes them, against a pixel-by-pixel rendering of its rules."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.formats.darknet import ImageError, letterbox, read_image, resize

SIZES = st.tuples(*[st.integers(2, 9)] * 4)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation, one pixel at a time, in f64: the corners of both images coincide."""
    old_height, old_width, channels = image.shape
    result = np.zeros((height, width, channels))
    for row in range(height):
        for column in range(width):
            y, x = row * (old_height - 1) / (height - 1), column * (old_width - 1) / (width - 1)
            top, left = min(int(y), old_height - 2), min(int(x), old_width - 2)
            for i, share_i in ((0, 1 - (y - top)), (1, y - top)):
                for j, share_j in ((0, 1 - (x - left)), (1, x - left)):
                    result[row, column] += share_i * share_j * image[top + i, left + j]
    return result


@given(SIZES, st.integers(0, 2**32))
def test_resizing_interpolates_between_corners(sizes: tuple[int, int, int, int], seed: int) -> None:
    old_height, old_width, height, width = sizes
    image = np.random.default_rng(seed).random((old_height, old_width, 3), np.float32)
    result = resize(image, height, width)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, resized(image, height, width), atol=1e-5)


@given(SIZES)
def test_the_canvas_is_grey_and_the_image_in_its_middle(sizes: tuple[int, int, int, int]) -> None:
    old_height, old_width, height, width = sizes
    result = letterbox(np.ones((old_height, old_width, 3), np.float32), height, width)
    assert result.shape == (height, width, 3)
    rows, columns = np.flatnonzero((result[..., 0] == 1).any(1)), np.flatnonzero((result[..., 0] == 1).any(0))
    assert len(rows) == height or len(columns) == width
    for found, size in ((rows, height), (columns, width)):
        before, after = found[0], size - 1 - found[-1]
        assert after - before in (0, 1)
    assert (result[[r for r in range(height) if r not in rows]] == 0.5).all()
    assert abs(len(columns) / len(rows) - old_width / old_height) <= (old_width / old_height + 1) / min(
        len(rows), len(columns)
    )


def test_an_image_of_the_right_size_is_unchanged() -> None:
    image = np.random.default_rng(0).random((6, 8, 3), np.float32)
    np.testing.assert_array_equal(letterbox(image, 6, 8), image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (500, 1, 3)])
def test_single_rows_and_columns_are_stretched(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 0.25, np.float32)
    result = letterbox(image, 4, 4)
    assert set(np.unique(result)) <= {np.float32(0.25), np.float32(0.5)}
    assert (result == 0.25).any()


def test_what_is_no_image_array_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected an image of shape .* Received: shape \(4, 4\)"):
        resize(np.zeros((4, 4), np.float32), 2, 2)


class TestFiles:
    @pytest.fixture(autouse=True)
    def _pillow(self) -> None:
        pytest.importorskip("PIL", reason="the extra `examples` is not installed")

    @pytest.mark.parametrize(("mode", "expected"), [("RGB", (10, 20, 30)), ("RGBA", (10, 20, 30)), ("L", (10, 10, 10))])
    def test_pixels_are_shares_of_255(self, tmp_path: Path, mode: str, expected: tuple[int, ...]) -> None:
        from PIL import Image

        color = (10, 20, 30, 40)[: len(mode)] if mode != "L" else 10
        file = tmp_path / "image.png"
        Image.new(mode, (3, 2), color).save(file)
        image = read_image(file)
        assert image.shape == (2, 3, 3)
        np.testing.assert_array_equal(
            image, np.broadcast_to(np.array(expected, np.float32) / np.float32(255), (2, 3, 3))
        )

    def test_sixteen_bits_of_grey(self, tmp_path: Path) -> None:
        from PIL import Image

        file = tmp_path / "image.png"
        Image.fromarray(np.full((2, 2), 0x8040, np.uint16)).save(file)
        np.testing.assert_array_equal(read_image(file), np.full((2, 2, 3), np.float32(0x80) / np.float32(255)))

    @pytest.mark.parametrize("content", [b"", b"GIF89a", b"no image at all" * 99], ids=["empty", "header", "text"])
    def test_what_is_no_image_is_named(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "notes.jpg"
        file.write_bytes(content)
        with pytest.raises(ImageError, match=r"notes\.jpg: Expected an image such as JPEG or PNG"):
            read_image(file)

    def test_an_empty_file_is_called_empty(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jpg").touch()
        with pytest.raises(ImageError, match=r"empty\.jpg: Expected an image .* Received: an empty file"):
            read_image(tmp_path / "empty.jpg")

    def test_pipes_and_folders_are_refused_without_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match=r"pipe\.png: .* Received: no regular file"):
            read_image(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match=r"Received: a folder"):
            read_image(tmp_path)

    def test_a_truncated_image_is_named(self, tmp_path: Path) -> None:
        from PIL import Image

        file = tmp_path / "half.png"
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:5000])
        with pytest.raises(ImageError, match=r"half\.png: Expected an image"):
            read_image(file)

    def test_a_missing_image_is_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / "none.jpg")
