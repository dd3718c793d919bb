"""Python's operators for what stands for a tensor while a model is written: variables and symbolic tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from gradloom.compiler.ir import Value, refuse_equality


class TensorOperators(ABC):
    """The operators that the IR's values have, too; `_operate` says what an operation on such operands is."""

    # NumPy must leave `array + tensor` to `__radd__` instead of looping over its elements.
    __array_ufunc__ = None

    @abstractmethod
    def _operate(self, operation: str, *operands: Any) -> Any:
        """Return the result of "add", "matmul", "getitem", … on operands, of which one is this object."""

    def __getitem__(self, key: Any) -> Any:
        return self._operate("getitem", self, key)

    def __add__(self, other: Any) -> Any:
        return self._operate("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._operate("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._operate("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._operate("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._operate("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._operate("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._operate("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._operate("divide", other, self)

    def __floordiv__(self, other: Any) -> Any:
        return self._operate("floor_divide", self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._operate("floor_divide", other, self)

    def __mod__(self, other: Any) -> Any:
        return self._operate("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._operate("mod", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._operate("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self._operate("power", other, self)

    def __matmul__(self, other: Any) -> Any:
        return self._operate("matmul", self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self._operate("matmul", other, self)

    def __neg__(self) -> Any:
        return self._operate("negative", self)

    def __abs__(self) -> Any:
        return self._operate("absolute", self)

    def __invert__(self) -> Any:
        return self._operate("logical_not", self)

    def __and__(self, other: Any) -> Any:
        return self._operate("logical_and", self, other)

    def __or__(self, other: Any) -> Any:
        return self._operate("logical_or", self, other)

    def __eq__(self, other: object) -> bool:
        # Of two, which may be in a list, it is whether they are the same object.
        return self is other or refuse_equality(self, other, Value)

    __hash__ = object.__hash__

    def __lt__(self, other: Any) -> Any:
        return self._operate("less", self, other)

    def __le__(self, other: Any) -> Any:
        return self._operate("less_equal", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._operate("greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return self._operate("greater_equal", self, other)
