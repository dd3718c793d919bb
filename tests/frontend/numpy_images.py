"""Convolution and pooling of images in NumPy, one window at a time: what layers are checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Pair = tuple[int, int]


def same(size: int, window: int, stride: int) -> Pair:
    """Zeros before and after an axis so that ceil(size / stride) windows fit; the larger half is after."""
    count = -(-size // stride)
    total = max((count - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def windows(
    x: np.ndarray, window: Pair, strides: Pair, padding: str, dilation: Pair, fill: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Each window of the images [b, kh, kw, c] with its row and column in the result."""
    extent = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    around = [(0, 0), (0, 0)]
    if padding == "same":
        around = [same(x.shape[axis + 1], extent[axis], strides[axis]) for axis in range(2)]
    padded = np.pad(x, ((0, 0), *around, (0, 0)), constant_values=fill)
    for row in range((padded.shape[1] - extent[0]) // strides[0] + 1):
        for column in range((padded.shape[2] - extent[1]) // strides[1] + 1):
            top, left = row * strides[0], column * strides[1]
            yield row, column, padded[:, top : top + extent[0] : dilation[0], left : left + extent[1] : dilation[1]]


def conv(
    x: np.ndarray, kernel: np.ndarray, strides: Pair, padding: str, dilation: Pair = (1, 1), groups: int = 1
) -> np.ndarray:
    """Convolution with a kernel [kh, kw, c / groups, filters]."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    width, filters = kernel.shape[2], kernel.shape[3] // groups
    cells = {}
    for row, column, part in windows(x, kernel.shape[:2], strides, padding, dilation, 0.0):
        cells[row, column] = np.concatenate(
            [
                np.einsum(
                    "bhwc,hwcf->bf",
                    part[..., group * width : (group + 1) * width],
                    kernel[..., group * filters : (group + 1) * filters],
                )
                for group in range(groups)
            ],
            axis=-1,
        )
    return _assembled(cells)


def pool(x: np.ndarray, window: Pair, strides: Pair, padding: str, reduce: Callable[..., np.ndarray]) -> np.ndarray:
    """`reduce` (np.nanmax, np.nanmean) of each window, in which padding is NaN."""
    parts = windows(x.astype(np.float64), window, strides, padding, (1, 1), np.nan)
    return _assembled({(row, column): reduce(part, axis=(1, 2)) for row, column, part in parts})


def _assembled(cells: dict[Pair, np.ndarray]) -> np.ndarray:
    rows, columns = (max(place[axis] for place in cells) + 1 for axis in range(2))
    return np.stack(
        [np.stack([cells[row, column] for column in range(columns)], axis=1) for row in range(rows)], axis=1
    )
