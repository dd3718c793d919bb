"""What the project aims at, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness import table


@dataclass(frozen=True)
class Aim:
    """A figure that must reach `needed`, or must not exceed it; measured is None where it could not be taken."""

    work: str
    needed: float
    unit: str
    measured: float | None
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Whether the aim is reached; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.needed if self.at_most else self.measured >= self.needed


def written(aims: Iterable[Aim]) -> list[dict[str, Any]]:
    """The aims for a JSON file."""
    return [{**asdict(aim), "reached": aim.reached} for aim in aims]


def report(aims: Iterable[dict[str, Any]]) -> str:
    """A table of aims as they are written."""
    rows = []
    for aim in aims:
        measured = "not available" if aim["measured"] is None else f"{aim['measured']:.3g}"
        verdict = {True: "yes", False: "no", None: ""}[aim["reached"]]
        rows.append(
            [aim["work"], f"{'≤' if aim['at_most'] else '≥'} {aim['needed']:g} {aim['unit']}", measured, verdict]
        )
    return table(["work", "aim", "measured", "reached"], rows)
