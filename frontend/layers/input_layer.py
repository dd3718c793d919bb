"""The beginning of a model: a symbolic tensor of known shape, and the layer that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from gradloom.compiler.types import DType
from gradloom.layers.layer import Layer
from gradloom.layers.shapes import normalized
from gradloom.symbolic import Call, SymbolicTensor
from gradloom.trees import flatten


class InputLayer(Layer):
    """Passes its input on, and checks its shape; `output` is the symbolic tensor that it stands for.

    shape: of one example, without the batch. batch_size: None for any. dtype: of the data, float32 by default.
    """

    autocast = False

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
        tensor = SymbolicTensor.open(self.batch_input_shape, self.dtype, self.name)
        leaves, structure = flatten(((), {}))
        tensor.call = Call(self, self.name, leaves, structure, [tensor])
        self._calls.append(tensor.call)

    @property
    def batch_shape(self) -> tuple[int | None, ...]:
        """The shape with the batch; None where any size will do."""
        assert self.batch_input_shape is not None
        return self.batch_input_shape

    @property
    def tensor(self) -> SymbolicTensor:
        """The symbolic tensor that the layer stands for."""
        return self._calls[0].outputs[0]

    def call(self, x: Any) -> Any:
        return x

    def __deepcopy__(self, memo: dict[int, Any]) -> Layer:
        copied = super().__deepcopy__(memo)
        deepcopy(self._calls[0], memo)  # the tensor that the copy stands for
        return copied

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype.numpy_name,
            "shape": self.batch_shape[1:],
            "batch_size": self.batch_shape[0],
        }


def Input(
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | DType | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
) -> SymbolicTensor:
    """Return the symbolic tensor that a model begins with: `x = Input((28, 28))`, `Model(x, Dense(10)(Flatten()(x)))`.

    shape: of one example, without the batch; None where any size will do. batch_size: None for any.
    batch_shape: both at once, instead. dtype: of the data, to which it is converted; float32 by default.
    It may also be the first of the layers of `Sequential([Input((28, 28)), Flatten(), …])`.
    """
    if (shape is None) == (batch_shape is None):
        raise ValueError(f"Expected either shape or batch_shape. Received: shape={shape}, batch_shape={batch_shape}")
    if batch_shape is not None:
        if batch_size is not None:
            raise ValueError(f"Expected batch_size within batch_shape. Received: {batch_size=}, {batch_shape=}")
        batch_size, *shape = normalized(batch_shape, "batch_shape")
    assert shape is not None
    return InputLayer(shape, batch_size, dtype, name).tensor
