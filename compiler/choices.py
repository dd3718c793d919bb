"""Choices: how kinds of contractions are computed where measurements speak against the cost models."""

from __future__ import annotations

from dataclasses import dataclass

from gradloom.compiler.ir import Value
from gradloom.compiler.ir_text import format_attributes

DEFINITION = "definition"
"""The algorithm that computes sums of products as they are written."""


@dataclass(frozen=True)
class Division:
    """How a matrix product is cut into blocks: panels of columns (else rows), and the vectors in a panel.

    Every element is the same chain of multiply-adds whatever the division: results are the same bits.
    """

    by_columns: bool
    vectors: int

    def __str__(self) -> str:
        return f"{self.vectors} vectors a panel, by {'columns' if self.by_columns else 'rows'}"


@dataclass(frozen=True)
class Choice:
    """How a contraction is computed: the algorithm, and the division of its product, None for the cost model's."""

    algorithm: str
    division: Division | None = None

    def __str__(self) -> str:
        return self.algorithm if self.division is None else f"{self.algorithm} with {self.division}"


@dataclass(frozen=True)
class Departure:
    """A kind of contraction that is computed by `choice`, where the cost model would take the algorithm `model`."""

    kind: str
    choice: Choice
    model: str

    @property
    def rounds_otherwise(self) -> bool:
        """Whether results differ in their last bits from what the cost model's choice computes."""
        return self.choice.algorithm != self.model

    def __str__(self) -> str:
        instead = f" instead of {self.model}, which rounds otherwise" if self.rounds_otherwise else ""
        return f"{self.kind}: {self.choice}{instead}"


@dataclass(frozen=True)
class Choices:
    """What differs from the cost models' choices, by kind of contraction; part of a program's key.

    An empty one leaves everything to the cost models.
    """

    departures: tuple[Departure, ...] = ()

    def of(self, value: Value) -> Choice | None:
        """What was chosen for a contraction, None for what the cost model says."""
        if not self.departures:
            return None
        kind = contraction_kind(value)
        return next((departure.choice for departure in self.departures if departure.kind == kind), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told of a program: the choices that change how its results are rounded."""
        return tuple(f"measured: {departure}" for departure in self.departures if departure.rounds_otherwise)

    def __str__(self) -> str:
        return "".join(f"{departure}\n" for departure in self.departures) or "all as the cost models say\n"


NO_CHOICES = Choices()


def contraction_kind(value: Value) -> str:
    """What contractions have in common that are computed alike: op, types of operands and result, attributes."""
    operands = " ".join(str(operand.type) for operand in value.inputs)
    attributes = format_attributes(value.op, value.type)
    return f"{value.op.name} {operands} → {value.type}" + (f" {{{attributes}}}" if attributes else "")
