"""Scan conversion: polygons to antialiased pixel coverage, many pictures at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def coverage(polygons: Array, size: int, subrows: int = 4) -> Array:
    """Return how much of each pixel a polygon covers.

    polygons: f64[n, vertices, 2], one closed polygon a picture, (x, y) in pixels from the upper left corner; parts
    outside of the picture are cut off. Returns f64[n, size, size] in 0…1. Each pixel row is sampled on `subrows` scan
    lines, on which the covered length is exact.
    """
    count = len(polygons)
    start, end = polygons, np.roll(polygons, -1, axis=1)
    lines = (np.arange(size * subrows) + 0.5) / subrows
    above = start[:, None, :, 1] <= lines[:, None]
    crosses = above != (end[:, None, :, 1] <= lines[:, None])
    picture, line, edge = np.nonzero(crosses)

    first, last = start[picture, edge], end[picture, edge]
    slope = (last[:, 0] - first[:, 0]) / (last[:, 1] - first[:, 1])
    x = np.clip(first[:, 0] + (lines[line] - first[:, 1]) * slope, 0, size)
    direction = np.where(above[picture, line, edge], 1.0, -1.0)

    # Coverage to the right of a crossing is a step that rises within one pixel. Its difference along the row has two
    # entries only, so crossings are scattered as differences and a running sum makes areas of them.
    column = np.floor(x).astype(np.int64)
    fraction = x - column
    width = size + 2
    cell = (picture * size + line // subrows) * width + column
    total = count * size * width
    steps = np.bincount(cell, direction * (1 - fraction), total) + np.bincount(cell + 1, direction * fraction, total)
    winding = np.cumsum(steps.reshape(count, size, width), axis=2)[:, :, :size] / subrows
    return np.minimum(np.abs(winding), 1.0)


def round_corners(polygons: Array, rounds: int = 2) -> Array:
    """Return closed polygons with corners cut off (Chaikin's scheme): each round doubles the vertices."""
    for _ in range(rounds):
        following = np.roll(polygons, -1, axis=1)
        cut = np.stack([0.75 * polygons + 0.25 * following, 0.25 * polygons + 0.75 * following], axis=2)
        polygons = cut.reshape(len(polygons), 2 * polygons.shape[1], 2)
    return polygons
