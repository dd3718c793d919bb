"""Nodes of a graph along a line: how they change while some of them move, and how far it makes sense to move them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradloom.compiler.ir import Value
from gradloom.testing.differences import Curve
from gradloom.testing.evaluation import Arrays, Known, rounding, run, wide

FIRST_STEP = 2.0**-5
"""The largest step of differences, as a part of what moves."""

LAST_STEP = 2.0**-45
"""The smallest one: few digits of what moves are left of it."""

TINY = float(np.finfo(np.float32).tiny)


def sizes(array: np.ndarray) -> np.ndarray:
    """Return a power of 2 for each element of an array: how large it is, and at least 1/1024 of the largest.

    Elements are moved in proportion: what is 1e-12 may be moved by 1e-14, and a 0 between numbers about 1 by a little.
    Where all are 0, nothing is known of how large they would be, and it is 1.
    """
    magnitudes = np.nan_to_num(np.abs(wide(array)), posinf=0.0)
    largest = np.max(magnitudes, initial=0.0)
    floor = largest / 1024 if largest else 1.0
    return np.asarray(np.exp2(np.floor(np.log2(np.maximum(magnitudes, floor)))))


@dataclass(frozen=True)
class Line:
    """The function from t to the nodes `order`, where some of them are moved by t·tangent from where they start.

    fixed: nodes that keep the arrays given; those that move are kept from what computes them in the same way.
    """

    order: Sequence[Value]
    arrays: Arrays
    start: Known
    tangents: Known
    fixed: Known

    def at(self, t: float) -> dict[Value, np.ndarray]:
        return run(self.order, self.arrays, self._given(t))

    def curve(self, value: Value) -> Curve:
        """One float node on the line."""

        def noise(t: float) -> np.ndarray:
            return rounding(self.order, self.arrays, self.at(t), self._given(t))[value]

        return Curve(lambda t: wide(self.at(t)[value]), noise, LAST_STEP * self.unit)

    @property
    def unit(self) -> float:
        """The t at which an element has moved by its size, and none by more."""
        return 1 / max(float(np.max(np.abs(d) / sizes(self.start[v]), initial=TINY)) for v, d in self.tangents.items())

    @property
    def first_step(self) -> float:
        """The largest step of differences: small for numbers of the size of the largest one that moves, or of 1.

        What is small itself may be added to what is not: of exp(1e-12), steps that are smaller than that see little.
        """
        farthest = max(float(np.max(np.abs(d), initial=TINY)) for d in self.tangents.values())
        return FIRST_STEP * max(self.unit, 1 / farthest)

    def _given(self, t: float) -> Known:
        moved = {v: (self.start[v] + t * d).astype(self.start[v].dtype) for v, d in self.tangents.items()}
        return {**self.fixed, **moved}
