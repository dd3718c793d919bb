"""The layer that stands at the beginning of a model and knows the shape of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradloom.compiler.types import DType
from gradloom.layers.layer import Layer
from gradloom.layers.shapes import normalized


class InputLayer(Layer):
    """Passes its input on, and checks its shape.

    shape: of one example, without the batch. batch_size: None for any. dtype: of the data, float32 by default.
    """

    def __init__(
        self,
        shape: Sequence[int | None],
        batch_size: int | None = None,
        dtype: str | DType | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.batch_input_shape = (batch_size, *normalized(shape, f"shape of input {self.name!r}"))
        self.built = True

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        """The shape with the batch; None where any size will do."""
        assert self.batch_input_shape is not None
        return self.batch_input_shape

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape with the batch, as a symbolic tensor says it."""
        return self.batch_shape

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype.numpy_name,
            "shape": self.batch_shape[1:],
            "batch_size": self.batch_shape[0],
        }


def Input(
    shape: Sequence[int | None],
    batch_size: int | None = None,
    dtype: str | DType | None = None,
    name: str | None = None,
) -> InputLayer:
    """Return the beginning of a model for examples of `shape`: `Sequential([Input((28, 28)), Flatten(), …])`."""
    return InputLayer(shape, batch_size, dtype, name)
