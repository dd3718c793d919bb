"""What Python's operators on values mean: the functions of these names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from gradloom.compiler.ir import Arithmetic, Value
from gradloom.compiler.ops import functions_elementwise as elementwise
from gradloom.compiler.ops.functions_indexing import getitem
from gradloom.compiler.ops.functions_linear import matmul


class Operators(Arithmetic):
    """Looks the function up by the operation's name."""

    functions: ClassVar[dict[str, Callable[..., Value]]] = {
        "add": elementwise.add,
        "subtract": elementwise.subtract,
        "multiply": elementwise.multiply,
        "divide": elementwise.divide,
        "floor_divide": elementwise.floor_divide,
        "mod": elementwise.mod,
        "power": elementwise.power,
        "matmul": matmul,
        "negative": elementwise.negative,
        "absolute": elementwise.absolute,
        "logical_not": elementwise.logical_not,
        "logical_and": elementwise.logical_and,
        "logical_or": elementwise.logical_or,
        "less": elementwise.less,
        "less_equal": elementwise.less_equal,
        "greater": elementwise.greater,
        "greater_equal": elementwise.greater_equal,
        "getitem": getitem,
    }

    def apply(self, operation: str, *operands: Any) -> Value:
        return self.functions[operation](*operands)


def install() -> None:
    """Give the values of the IR their operators."""
    Value.arithmetic = Operators()
