"""The layer that applies any function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from gradloom.layers.layer import Layer, LayerOptions


class Lambda(Layer):
    """Applies `function`, made of `gl.ops` and Python's operators, to its input: `Lambda(lambda x: x ** 2)`.

    arguments: keyword arguments for the function, which may also take `training`. Variables that the function uses
    are no weights of the layer: for weights write a subclass of `Layer`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Mapping[str, Any] | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**options)
        if not callable(function):
            raise TypeError(f"Layer {self.name!r}: Expected a function. Received: function={function!r}")
        self.function = function
        self.arguments = dict(arguments or {})

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.function(inputs, **self.arguments, **({"training": training} if self._takes_training() else {}))

    def _takes_training(self) -> bool:
        try:
            return "training" in inspect.signature(self.function).parameters
        except (TypeError, ValueError):  # builtins may have no signature
            return False

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"function": self.function, "arguments": self.arguments}
