"""Ops that only gradients see: to everything else each is its first operand, and rewriting replaces it by that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gradloom.compiler.errors import NoGradientError
from gradloom.compiler.ir import Value
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Expr
from gradloom.compiler.ops.base import Movement, Position, Reader
from gradloom.compiler.types import TensorType


class Marker(Movement):
    """An op whose result is its first operand."""

    def infer(self, *operands: TensorType) -> TensorType:
        return operands[0]

    def read(self, b: Builder, position: Position, operands: Sequence[Reader]) -> Expr:
        return operands[0].read(position)

    def reference(self, *operands: np.ndarray) -> np.ndarray:
        return operands[0]


@dataclass(frozen=True)
class StopGradient(Marker):
    """Its operand, as a constant for gradients: `%3: f32[32] = stop_gradient %2`."""

    name: ClassVar[str] = "stop_gradient"

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        return (None,)


@dataclass(frozen=True)
class CustomGradient(Marker):
    """The result of a function that has a gradient of its own: `%5: f32[32] = custom_gradient %4 %1 {rule=0}`.

    Operands are the result and the function's arguments; `rule` is the number of the graph's `gradient_rules` that
    makes the arguments' cotangents. Rules are Python functions: a graph read from text, or rebuilt, has none.
    """

    name: ClassVar[str] = "custom_gradient"
    arity: ClassVar[int | None] = None
    rule: int

    def vjp(self, node: Value, cotangent: Value) -> Sequence[Value | None]:
        rule = node.graph.gradient_rules.get(self.rule)
        if rule is None:
            raise NoGradientError(
                f"op {self.name!r}: its rule {self.rule} is a Python function, which graph {node.graph.name!r} has "
                "lost; take gradients in the graph in which the function was called"
            )
        return (None, *rule(cotangent))
