"""The message of a failed check: what was expected and what came, which node is at fault, and a test to paste."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gradloom.testing.errors import GradientError
from gradloom.testing.problem import Function
from gradloom.testing.snippets import pasted

TITLES = {
    "gradient": "the gradient does not fit central differences",
    "adjoint": "⟨u, Jv⟩ is not ⟨Jᵀu, v⟩: the gradient is not linear in its cotangent, or its own gradient is wrong",
    "finite": "the gradient is not finite where the function is",
    "convention": "the gradient is not the one that the ops document for kinks",
    "interval": "the gradient is outside of the one-sided derivatives",
    "dtype": "in the dtypes given, the result is not that of float64 up to rounding",
    "compiled": "the compiled program does not compute what the graph says",
    "unfused": "the program without rewriting and fusion does not compute what the graph says",
    "threads": "the result depends on the number of threads",
}


@dataclass(frozen=True)
class Mismatch:
    """Two numbers that should be equal: what they are, where, and how far they may be apart."""

    name: str
    place: str | Callable[[], str]
    expected: Any
    received: Any
    tolerance: float


def failure(
    check: str, function: Function, mismatch: Mismatch, blame: Callable[[], str], options: Mapping[str, Any]
) -> GradientError:
    """Return the error to raise. `blame` finds the node at fault, when the message is asked for."""

    def rest(node: str) -> str:
        place = mismatch.place if isinstance(mismatch.place, str) else mismatch.place()
        lines = [
            f"  {mismatch.name} {place}",
            f"  Expected: {_number(mismatch.expected)}, ± {mismatch.tolerance:.2g}",
            f"  Received: {_number(mismatch.received)}",
            f"First wrong node: {node or 'none is wrong by itself'}",
        ]
        return "\n".join(lines)

    return GradientError(check, f"{function.name}: {TITLES[check]}", blame, rest, lambda: pasted(function, options))


def _number(number: Any) -> str:
    if isinstance(number, tuple):
        return f"from {number[0]:.9g} to {number[1]:.9g}"
    return number if isinstance(number, str) else f"{number:.9g}"
