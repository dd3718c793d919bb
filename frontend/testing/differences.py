"""Derivatives along a line from central differences, extrapolated over a sweep of steps, with an estimate of the error.

A small step loses digits to rounding, a large one is wrong by the third derivative. Ridders (1982) takes a sweep of
steps, each half of the last, cancels the error's terms h², h⁴, … one after the other (Richardson), and takes of all
results the one that differs least from its neighbours; how much it does is the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEPS = 9
"""How many steps there are in a sweep."""

Line = Callable[[float], np.ndarray]


@dataclass(frozen=True)
class Derivative:
    """A derivative along a line, and how far it may be off, for each element."""

    value: np.ndarray
    error: np.ndarray


def central(line: Line, step: float, noise: np.ndarray | float = 0.0) -> Derivative:
    """Return the derivative at 0 of a function of one number, from steps of `step` and less.

    noise: how far roundings move the function's values. Steps at which the function is not finite are left out; the
    error is infinite where none is left.
    """
    return _extrapolated(lambda h: (line(h) - line(-h)) / (2 * h), step, noise, powers=2)


def one_sided(line: Line, step: float, noise: np.ndarray | float = 0.0) -> Derivative:
    """Return the derivative toward positive numbers, or, for a negative step, that toward negative ones, as a slope."""
    origin = line(0.0)
    return _extrapolated(lambda h: (line(h) - origin) / h, step, noise, powers=1)


def _extrapolated(quotient: Line, step: float, noise: np.ndarray | float, powers: int) -> Derivative:
    """The limit of quotients for small steps, whose error has the terms h^powers, h^(2·powers), …"""
    column: list[np.ndarray] = []
    best: np.ndarray | None = None
    error: np.ndarray | None = None
    for number in range(STEPS):
        h = step / 2**number
        with np.errstate(all="ignore"):
            row = [np.asarray(quotient(h), np.float64)]
            rounding = np.asarray(4 * noise / abs(h))
            for order, above in enumerate(column, start=1):
                factor = 2.0 ** (powers * order)
                row.append(row[-1] + (row[-1] - above) / (factor - 1))
        if best is None or error is None:
            best, error = row[0], np.full(row[0].shape, np.inf)
        for place in range(1, len(row)):
            with np.errstate(all="ignore"):
                change = np.maximum(np.abs(row[place] - row[place - 1]), np.abs(row[place] - column[place - 1]))
                change = np.where(np.isfinite(row[place]), change + rounding, np.inf)
            better = change < error
            best, error = np.where(better, row[place], best), np.where(better, change, error)
        column = row
    assert best is not None and error is not None
    return Derivative(best, error)
