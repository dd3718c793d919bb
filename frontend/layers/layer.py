"""The base of all layers: weights made at the first call, checks of the input's shape, nesting, configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, TypedDict

import numpy as np

from gradloom import initializers, ops
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Graph, Value, current_provenance, layer_scope
from gradloom.compiler.types import DType, TensorType, as_dtype
from gradloom.initializers import InitializerLike
from gradloom.layers.shapes import InputSpec, Shape, normalized
from gradloom.naming import snake_case, unique_name
from gradloom.variables import Trace, Variable


class LayerOptions(TypedDict, total=False):
    """The arguments that every layer takes besides its own."""

    name: str | None
    trainable: bool
    dtype: str | DType | None
    input_shape: Sequence[int | None] | None
    input_dim: int | None


class Layer:
    """A function of a tensor with weights of its own.

    Subclasses make weights in `build(input_shape)` and compute in `call(x)` or `call(x, training)`. Layers and
    variables that are set as attributes, layers also in lists, are the layer's own.

    name: by default the class's name in snake case, numbered: "dense", "dense_1".
    dtype: of the weights, to which floating-point inputs are converted; float32 by default.
    input_shape: shape of one example, without the batch; makes a model whose first layer this is know its shapes.
    input_dim: the same for examples of one axis.
    """

    input_spec: InputSpec | None = None

    def __init__(
        self,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | DType | None = None,
        input_shape: Sequence[int | None] | None = None,
        input_dim: int | None = None,
    ) -> None:
        if input_shape is not None and input_dim is not None:
            raise ValueError(f"Expected input_shape or input_dim. Received both: {input_shape} and {input_dim}")
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"Expected the layer's name as a string without '/'. Received: name={name!r}")
        self.name: str = name if name is not None else unique_name(snake_case(type(self).__name__))
        self.dtype: DType = as_dtype("float32" if dtype is None else dtype)
        self.built = False
        self.batch_input_shape: Shape | None = None
        if input_dim is not None:
            input_shape = (input_dim,)
        if input_shape is not None:
            self.batch_input_shape = (None, *normalized(input_shape, f"input_shape of layer {self.name!r}"))
        self._trainable = bool(trainable)
        self._weights: list[Variable] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _marks_built(cls.build)  # type: ignore[method-assign]

    # What subclasses say.

    def build(self, input_shape: Shape) -> None:
        """Make the weights for inputs of this shape (None for the batch)."""
        self.built = True

    def call(self, x: Any) -> Any:
        """Compute the layer's result; may have a second parameter `training`."""
        raise NotImplementedError(f"Layer {self.name!r}: {type(self).__name__} must define call(self, x)")

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the shape of the result for inputs of this shape; None where it depends on a None of the input."""
        shape = normalized(input_shape, "input_shape")
        if None not in shape:
            return self._traced_shape(shape, 1)
        # Sizes that differ between two traces of different batch size depend on it.
        first, second = self._traced_shape(shape, 2), self._traced_shape(shape, 3)
        return tuple(size if size == other else None for size, other in zip(first, second, strict=True))

    def _traced_shape(self, shape: Shape, unknown: int) -> tuple[int, ...]:
        graph = Graph(self.name)
        sizes = tuple(unknown if size is None else size for size in shape)
        with Trace(graph):
            y: Value = self(graph.input("x", TensorType(self.dtype, sizes)))
        return y.shape

    def get_config(self) -> dict[str, Any]:
        """The arguments that make a layer like this one, with weights of its own."""
        config: dict[str, Any] = {"name": self.name, "trainable": self._trainable, "dtype": self.dtype.numpy_name}
        if self.batch_input_shape is not None:
            config["input_shape"] = self.batch_input_shape[1:]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Layer:
        """Make a layer from what `get_config` returned."""
        return cls(**config)

    # Calling.

    def __call__(self, x: Any, training: bool | None = None) -> Any:
        """Apply the layer to a symbolic value, making its weights first if there are none yet.

        `training` is by default that of the layer inside whose call this one happens, and False outside.
        Raises `ShapeError` naming the layer and both shapes when the input does not fit.
        """
        training = _training.get() if training is None else bool(training)
        token = _training.set(training)
        try:
            with layer_scope(self.name):
                x = self._accepted(x)
                arguments = {"training": training} if self._call_takes_training() else {}
                return self.call(x, **arguments)
        finally:
            _training.reset(token)

    def _accepted(self, x: Any) -> Any:
        """Check, build for and convert the input."""
        trace = Trace.current()
        if isinstance(x, Variable) and trace is not None:
            x = trace.read(x)
        if not isinstance(x, Value):
            raise TypeError(
                f"Layer {self.name!r} ({type(self).__name__}): Expected a symbolic value; for arrays call "
                f"model.predict or a gl.function. Received: {type(x).__name__}"
            )
        self._check_shape(x.shape)
        if not self.built:
            self.build((None, *x.shape[1:]))
            self._check_shape(x.shape)
        return ops.cast(x, self.dtype) if x.dtype.is_float and x.dtype != self.dtype else x

    def _check_shape(self, shape: Sequence[int | None]) -> None:
        given = None if self.batch_input_shape is None else InputSpec(shape=self.batch_input_shape)
        for spec in (given, self.input_spec):
            mismatch = None if spec is None else spec.mismatch(shape)
            if mismatch:
                raise ShapeError(
                    f"Layer {self.name!r} ({type(self).__name__}): Expected {mismatch}. Received: shape {tuple(shape)}"
                )

    @classmethod
    @functools.cache
    def _call_takes_training(cls) -> bool:
        return "training" in inspect.signature(cls.call).parameters

    # Weights.

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: InitializerLike | None = None,
        dtype: str | DType | None = None,
        trainable: bool = True,
        name: str = "weight",
    ) -> Variable:
        """Make a weight, glorot-uniform by default; its path is the layer's with `name` appended."""
        weight = Variable(
            initializers.get("glorot_uniform" if initializer is None else initializer),
            shape=tuple(shape),
            dtype=self.dtype if dtype is None else dtype,
            trainable=trainable,
            name=name,
            role="parameter" if trainable else "state",
            path=f"{self._path()}/{name}",
        )
        self._weights.append(weight)
        return weight

    def _path(self) -> str:
        """The layer's path: where it is called or built, below the layers around it."""
        around = current_provenance().layer
        return around if around.rsplit("/", 1)[-1] == self.name else "/".join(filter(None, (around, self.name)))

    @property
    def _sublayers(self) -> list[Layer]:
        """The layers that are attributes, or in lists that are: looked up each time, since lists grow and shrink."""
        return [layer for value in self.__dict__.values() for layer in _layers_in(value)]

    @property
    def _own_variables(self) -> list[Variable]:
        attributes = [value for value in self.__dict__.values() if isinstance(value, Variable)]
        return list(dict.fromkeys([*self._weights, *attributes]))

    @property
    def variables(self) -> list[Variable]:
        """All variables of the layer and the layers inside it."""
        return self.weights

    @property
    def weights(self) -> list[Variable]:
        """The weights: of the layer itself, trainable ones first, then of the layers inside it."""
        own = sorted(self._own_variables, key=lambda variable: not variable.trainable)
        inside = (variable for layer in self._sublayers for variable in layer.weights)
        return list(dict.fromkeys([*own, *inside]))

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that an optimizer changes."""
        if not self._trainable:
            return []
        own = [variable for variable in self._own_variables if variable.trainable]
        inside = (variable for layer in self._sublayers for variable in layer.trainable_weights)
        return list(dict.fromkeys([*own, *inside]))

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that an optimizer leaves alone."""
        trainable = set(self.trainable_weights)
        return [variable for variable in self.weights if variable not in trainable]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The weights that an optimizer changes."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The weights that an optimizer leaves alone."""
        return self.non_trainable_weights

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights of this layer and of the layers inside it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._sublayers:
            layer.trainable = value

    def count_params(self) -> int:
        """Number of elements of all weights; raises `ValueError` before they are made."""
        if not self.built:
            raise ValueError(f"Layer {self.name!r} has no weights yet: call it, or build(input_shape), first.")
        return sum(variable.size for variable in self.weights)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights' values, in the order of `weights`."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: Iterable[Any]) -> None:
        """Give all weights new values, in the order of `weights`.

        Raises `ShapeError` and changes none of them if their number, a shape or a dtype does not fit.
        """
        variables, arrays = self.weights, [np.asarray(array) for array in weights]
        if len(arrays) != len(variables):
            raise ShapeError(
                f"Layer {self.name!r}: Expected {len(variables)} weight arrays. Received: {len(arrays)}"
                + ("" if self.built else "  (the layer is not built yet)")
            )
        for variable, array in zip(variables, arrays, strict=True):
            if array.shape != variable.shape:
                raise ShapeError(
                    f"Layer {self.name!r}, weight {variable.path!r}: Expected shape {variable.shape}. "
                    f"Received: {array.shape}"
                )
            if not np.can_cast(array.dtype, variable.dtype.numpy, "same_kind"):
                raise ShapeError(
                    f"Layer {self.name!r}, weight {variable.path!r}: Expected values of dtype "
                    f"{variable.dtype.numpy_name}. Received: {array.dtype}"
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


_training: ContextVar[bool] = ContextVar("training", default=False)


def _layers_in(value: Any) -> list[Layer]:
    if isinstance(value, Layer):
        return [value]
    return [item for item in value if isinstance(item, Layer)] if isinstance(value, (list, tuple)) else []


def _marks_built(build: Callable[..., None]) -> Callable[..., None]:
    """Wrap a subclass's `build`: it runs once, for a normalized shape, in the layer's scope, and the layer is built."""

    @functools.wraps(build)
    def wrapped(self: Layer, input_shape: Sequence[int | None]) -> None:
        if self.built:
            return
        shape = normalized(input_shape, f"input_shape of layer {self.name!r}")
        self._check_shape(shape)
        inside = current_provenance().layer.rsplit("/", 1)[-1] == self.name
        scope: AbstractContextManager[None] = nullcontext() if inside else layer_scope(self.name)
        with scope:
            build(self, shape)
        self.built = True

    return wrapped
