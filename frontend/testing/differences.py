"""Derivatives along a line from central differences, extrapolated over a sweep of steps, with an estimate of the error.

A small step loses digits to rounding, a large one is wrong by the third derivative. Ridders (1982) takes a sweep of
steps, cancels the error's terms h², h⁴, … one after the other (Richardson), and takes of all results the one that
differs least from its neighbours; how much it does is the estimate.

Results of large steps may agree with each other and be wrong: of a tanh, both ends are flat. So the sweep always goes
on until rounding is about as large as the derivative, and the small steps have the last word: a larger step may narrow
what they say, and must fit it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATIO = 32
"""How many times a step is as long as the next one: from 2⁻⁵ to 2⁻⁴⁵ in nine steps."""

LEAST = 6
"""How many steps there are in a sweep, at least."""


@dataclass(frozen=True)
class Curve:
    """A function of one number, how far roundings move its values there, and how small a step may be."""

    at: Callable[[float], np.ndarray]
    noise: Callable[[float], np.ndarray]
    last_step: float


@dataclass(frozen=True)
class Derivative:
    """A derivative along a line, and how far it may be off, for each element: infinitely where nothing is known."""

    value: np.ndarray
    error: np.ndarray


def central(curve: Curve, step: float) -> Derivative:
    """Return the derivative at 0, from steps of `step` and less; those at which it is not finite are left out."""
    return _extrapolated(curve, lambda h: (curve.at(h) - curve.at(-h)) / (2 * h), step, powers=2)


def one_sided(curve: Curve, step: float) -> Derivative:
    """Return the derivative toward positive numbers, or, for a negative step, that toward negative ones, as a slope."""
    origin = curve.at(0.0)
    return _extrapolated(curve, lambda h: (curve.at(h) - origin) / h, step, powers=1)


def _extrapolated(curve: Curve, quotient: Callable[[float], np.ndarray], step: float, powers: int) -> Derivative:
    """The limit of quotients for small steps, whose error has the terms h^powers, h^(2·powers), …"""
    still = curve.noise(0.0)
    with np.errstate(all="ignore"):
        rows = _rows(quotient, step, curve.last_step, powers)
        value, change, h = rows.pop()
        error = change + _rounding(still, h)
        # Where quotients still grow at the smallest steps, none is small enough.
        unknown = ~(change <= np.maximum(_rounding(still, h), np.abs(value) / 10))
        used = np.full(value.shape, abs(h))
        fitting = np.full(value.shape, True)
        for other, change, h in reversed(rows):
            wider = change + _rounding(still, h)
            fitting &= np.abs(other - value) <= wider + error
            better = fitting & (wider < error)
            value, error = np.where(better, other, value), np.where(better, wider, error)
            used = np.where(better, abs(h), used)
        # Only now is it known how far the ends are away, at which roundings may be larger than at the point.
        end = float(np.max(used, initial=0.0))
        error += _rounding(np.fmax(curve.noise(end), curve.noise(-end)), used)
        unknown |= ~np.isfinite(value + error)
    return Derivative(np.where(unknown, 0.0, value), np.where(unknown, np.inf, error))


def _rounding(noise: np.ndarray, h: np.ndarray | float) -> np.ndarray:
    return np.asarray(4 * noise / np.abs(h))


def _rows(
    quotient: Callable[[float], np.ndarray], step: float, last_step: float, powers: int
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """For each step but the first: the best result of it and those before it, by how much it differs, and the step."""
    rows: list[tuple[np.ndarray, np.ndarray, float]] = []
    column: list[np.ndarray] = []
    h = step
    while len(rows) < LEAST - 1 or abs(h) >= last_step:
        row = [np.asarray(quotient(h), np.float64)]
        best, least = row[0], np.full(row[0].shape, np.inf)
        for order, above in enumerate(column, start=1):
            row.append(row[-1] + (row[-1] - above) / (float(RATIO) ** (powers * order) - 1))
            change = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - above))
            better = change < least
            best, least = np.where(better, row[-1], best), np.where(better, change, least)
        if column:
            rows.append((best, least, h))
        column = row
        h /= RATIO
    return rows
