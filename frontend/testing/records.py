"""What was checked, for a caller who wants to see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Checks:
    """The checks that a function passed: how often each was made, and how near to its tolerance it came.

    `skipped` counts directions that were not judged, since they lead over a kink.
    """

    name: str
    made: dict[str, int] = field(default_factory=dict)
    nearest: dict[str, float] = field(default_factory=dict)
    skipped: int = 0

    def add(self, check: str, distance: np.ndarray | float, tolerance: np.ndarray | float) -> None:
        """Count a check whose results were apart by a distance, with the largest part of its tolerance used."""
        distance, tolerance = np.asarray(distance), np.asarray(tolerance)
        with np.errstate(all="ignore"):
            used = np.where(distance == 0, 0.0, distance / tolerance)
        self.made[check] = self.made.get(check, 0) + 1
        self.nearest[check] = max(self.nearest.get(check, 0.0), float(np.max(used, initial=0.0)))

    def __str__(self) -> str:
        lines = [f"{self.name}: {sum(self.made.values())} checks passed"]
        lines += [f"  {check:<20}{count:>4}" for check, count in self.made.items()]
        if self.skipped:
            lines.append(f"  {self.skipped} directions skipped: they lead over a kink")
        return "\n".join(lines)
