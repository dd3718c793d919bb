"""What was checked, for a caller who wants to see it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

KINK, ROUNDING, SAMPLED, INFINITE = "kink", "rounding", "sampled", "infinite"

REASONS = {
    KINK: ("direction", "over a kink"),
    ROUNDING: ("direction", "rounding may be as large as the derivative"),
    SAMPLED: ("element", "there are too many to move each of them alone"),
    INFINITE: ("point", "the function is not finite there"),
}
"""What is skipped, and why."""

JUDGING = frozenset({"gradient", "derivative along v", "convention", "interval"})
"""The checks that see a gradient that is wrong by a factor; the adjoint identity does not, nor does second order."""


@dataclass
class Checks:
    """The checks that a function passed: how often each was made, and how near to its tolerance it came.

    `skipped` counts what was not judged, by the reason: see `REASONS`.
    """

    name: str
    made: dict[str, int] = field(default_factory=dict)
    nearest: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether a gradient was held to something else than itself."""
        return not JUDGING.isdisjoint(self.made)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count what was not judged."""
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def add(self, check: str, distance: np.ndarray | float, tolerance: np.ndarray | float) -> None:
        """Count a check whose results were apart by a distance, with the largest part of its tolerance used."""
        distance, tolerance = np.asarray(distance), np.asarray(tolerance)
        with np.errstate(all="ignore"):
            used = np.where(distance == 0, 0.0, distance / tolerance)
        self.made[check] = self.made.get(check, 0) + 1
        self.nearest[check] = max(self.nearest.get(check, 0.0), float(np.max(used, initial=0.0)))

    def skip_as(self, other: Checks) -> None:
        """Count what another point skipped, too."""
        for reason, count in other.skipped.items():
            self.skip(reason, count)

    def reasons(self) -> list[str]:
        """How much was skipped, and why: a line for each reason."""
        lines = []
        for reason, count in self.skipped.items():
            what, why = REASONS[reason]
            lines.append(f"{count} {what}{'s' * (count > 1)} skipped: {why}")
        return lines

    def __str__(self) -> str:
        lines = [f"{self.name}: {sum(self.made.values())} checks passed"]
        lines += [f"  {check:<20}{count:>4}" for check, count in self.made.items()]
        lines += [f"  {reason}" for reason in self.reasons()]
        return "\n".join(lines)
