"""The base of all layers: weights made at the first call, checks of the input's shape, nesting, configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self, TypedDict

import numpy as np

from gradloom import initializers, ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.provenance import current_provenance, layer_scope, user_line
from gradloom.compiler.types import DType
from gradloom.constructors import Arguments, Constructed, takes
from gradloom.initializers import InitializerLike
from gradloom.layers.contents import SetByInit, held
from gradloom.layers.shapes import InputSpec, Shape, ShapeTree, is_shape, map_shapes, normalized
from gradloom.mixed_precision import PolicyLike, as_policy
from gradloom.naming import snake_case, unique_name
from gradloom.recording import find_recorded
from gradloom.runtime.interrupts import HeldBack
from gradloom.symbolic import Call, Called, SymbolicTensor, call_context, infer, record
from gradloom.trees import flatten, is_literal, map_leaves, unflatten
from gradloom.variables import Trace, Variable, current_layer_call, layer_call


class LayerOptions(TypedDict, total=False):
    """The arguments that every layer takes besides its own."""

    name: str | None
    trainable: bool
    dtype: PolicyLike | None
    input_shape: Sequence[int | None] | None
    input_dim: int | None


class Layer(Constructed, Called):
    """A function of a tensor, or of a list or dict of tensors, with weights of its own.

    Subclasses make weights in `build(input_shape)` and compute in `call(x)` or `call(x, training)`. Layers and
    variables that are set as attributes, also in (nested) lists, tuples, dicts and sets, are the layer's own. They are
    made in `__init__` or `build`: `call` runs anew for each program, and is refused to make any.

    name: by default the class's name in snake case, numbered: "dense", "dense_1".
    dtype: of the weights, to which floating-point inputs are converted, or a policy such as "mixed_bfloat16", which
    names two dtypes (`gl.mixed_precision`); the global policy by default, float32.
    input_shape: shape of one example, without the batch; makes a model whose first layer this is know its shapes.
    input_dim: the same for examples of one axis.
    """

    input_spec: InputSpec | None = None
    _arguments: Arguments
    autocast = True
    """Whether floating-point inputs become the policy's compute dtype, else that of weights.

    Layers that multiply by no weights and move nothing about gain nothing by it, and lose bits.
    """

    if not TYPE_CHECKING:
        name = built = _weights = _calls = _trainable = SetByInit()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._arguments = Arguments(args, kwargs)
        return made

    def __init__(
        self,
        name: str | None = None,
        trainable: bool = True,
        dtype: PolicyLike | None = None,
        input_shape: Sequence[int | None] | None = None,
        input_dim: int | None = None,
    ) -> None:
        if input_shape is not None and input_dim is not None:
            raise ValueError(f"Expected input_shape or input_dim. Received both: {input_shape} and {input_dim}")
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"Expected the layer's name as a string without '/'. Received: name={name!r}")
        self.name: str = name if name is not None else unique_name(snake_case(type(self).__name__))
        self.dtype_policy = as_policy(dtype)
        self.built = False
        self.batch_input_shape: Shape | None = None
        if input_dim is not None:
            input_shape = (input_dim,)
        if input_shape is not None:
            self.batch_input_shape = (None, *normalized(input_shape, f"input_shape of layer {self.name!r}"))
        self._trainable = bool(trainable)
        self._weights: list[Variable] = []
        self._calls: list[Call] = []
        self._made_in = current_layer_call()
        self.source = user_line()
        """The user's `file:line` that made the layer."""

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

    def compute_output_shape(self, input_shape: ShapeTree) -> Any:
        """Return the shape of the result for inputs of this shape; None where it depends on a None of the input."""
        shapes = map_shapes(lambda shape: normalized(shape, "input_shape"), input_shape)
        x = map_shapes(lambda shape: SymbolicTensor.open(shape, self.dtype, "x"), shapes)
        leaves, structure = flatten(((x,), {}))
        with call_context(self.name, x):
            results, result = infer(self, leaves, structure, self.name)
        return unflatten(result, [tensor.shape for tensor in results])

    def get_config(self) -> dict[str, Any]:
        """The arguments that make a layer like this one, with weights of its own.

        A class that has arguments of its own adds them, `super().get_config() | {"units": self.units}`, or has no such
        method: then they are those that the layer was made with.
        """
        config = self._base_config()
        if type(self).get_config is not Layer.get_config:
            return config
        return self._config_of_arguments(config)

    def _config_of_arguments(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the layer was made with, and of the `base` what its class takes."""
        given = self._arguments.by_name(type(self))
        given.pop("input_dim", None)
        return given | {name: value for name, value in base.items() if takes(type(self), name)}

    def _base_config(self) -> dict[str, Any]:
        """The arguments that every layer takes."""
        config: dict[str, Any] = {"name": self.name, "trainable": self._trainable, "dtype": self.dtype_policy.name}
        if self.batch_input_shape is not None:
            config["input_shape"] = self.batch_input_shape[1:]
        return config

    # Calling.

    def __call__(self, x: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Apply the layer to a symbolic value, or a list or dict of some, making its weights first if there are none.

        On a model's symbolic tensors (`gl.Input`) the call is recorded, to be made for each batch size.
        `training` is by default that of the layer inside whose call this one happens, and False outside.
        Raises `ShapeError` naming the layer and both shapes when the input does not fit.
        """
        args, training = self._split_training(args, training)
        if find_recorded((x, *args, *kwargs.values())) is not None:
            return self._recorded(x, args, kwargs if training is None else {**kwargs, "training": training})
        with layer_scope(self.name), training_scope(training) as training:
            x = self._accepted(x)
            if self._call_takes_training():
                kwargs["training"] = training
            return self._called(x, *args, **kwargs)

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        """Run `call`, which returns tensors and makes no variables."""
        with layer_call(f"Layer {self.name!r} ({type(self).__name__})"):
            result = self.call(*args, **kwargs)
        leaves, structure = flatten(result)
        leaves = [_read(leaf) if isinstance(leaf, Variable) else leaf for leaf in leaves]
        leaves = [ops.cast(leaf, leaf.dtype.arithmetic) if isinstance(leaf, Value) else leaf for leaf in leaves]
        tensors = [leaf for leaf in leaves if isinstance(leaf, (Value, SymbolicTensor))]
        arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
        if arrays or not tensors:
            received = f"a NumPy array of shape {arrays[0].shape}" if arrays else repr(result)
            raise TypeError(
                f"Layer {self.name!r} ({type(self).__name__}): Expected call to return symbolic tensors, made by "
                f"gl.ops, Python's operators and layers. Received: {received}"
            )
        return unflatten(structure, leaves)

    def _recorded(self, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Check and build for open shapes, then record the call."""
        with call_context(self.name, (x, args, kwargs)):
            with layer_scope(self.name):
                self._prepare(map_leaves(lambda leaf: getattr(leaf, "shape", ()), x))
            result, call = record(self, (x, *args), kwargs, self.name)
        self._calls.append(call)
        return result

    def _accepted(self, x: Any) -> Any:
        """Check, build for and convert the input."""
        leaves, structure = flatten(x)
        trace = Trace.current()
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Variable) and trace is not None:
                leaves[position] = trace.read(leaf)
            elif not isinstance(leaf, Value):
                raise TypeError(
                    f"Layer {self.name!r} ({type(self).__name__}): Expected a symbolic value; for arrays call "
                    f"model.predict or a gl.function. Received: {type(x if is_literal(x) else leaf).__name__}"
                )
        self._prepare(unflatten(structure, [leaf.shape for leaf in leaves]))
        return unflatten(structure, [self._converted(leaf) for leaf in leaves])

    def _prepare(self, shapes: ShapeTree) -> None:
        """Check the input's shape, and make the weights for it, of any batch size, if there are none yet."""
        self._check_shape(shapes)
        if not self.built:
            self.build(map_shapes(lambda shape: (None, *shape[1:]), shapes))
            self._check_shape(shapes)

    def _converted(self, x: Value) -> Value:
        dtype = self.compute_dtype if self.autocast else self.variable_dtype
        return ops.cast(x, dtype) if x.dtype.is_float else x

    def _check_shape(self, shape: ShapeTree) -> None:
        """Raise `ShapeError` unless the layer takes inputs of this shape, or of these shapes."""
        given = None if self.batch_input_shape is None else InputSpec(shape=self.batch_input_shape)
        for spec in (given, self.input_spec):
            if spec is None:
                continue
            mismatch = spec.mismatch(shape) if is_shape(shape) else "one tensor"
            if mismatch:
                received = f"shape {tuple(shape)}" if is_shape(shape) else f"shapes {shape}"
                raise ShapeError(
                    f"Layer {self.name!r} ({type(self).__name__}): Expected {mismatch}. Received: {received}"
                )

    @classmethod
    def _split_training(cls, args: tuple[Any, ...], training: bool | None) -> tuple[tuple[Any, ...], bool | None]:
        """Take `training` out of the positional arguments, if it is there."""
        place = cls._training_place()
        if place is None or len(args) <= place:
            return args, None if training is None else bool(training)
        return args[:place] + args[place + 1 :], bool(args[place])

    @classmethod
    @functools.cache
    def _training_place(cls) -> int | None:
        """Where `training` stands among the arguments of `call` after `self` and `x`."""
        names = list(inspect.signature(cls.call).parameters)[2:]
        return names.index("training") if "training" in names else None

    @classmethod
    def _call_takes_training(cls) -> bool:
        return cls._training_place() is not None

    # Dtypes.

    @property
    def compute_dtype(self) -> DType:
        """The dtype of what the layer multiplies by its weights, and of these in products."""
        return self.dtype_policy.compute_dtype

    @property
    def variable_dtype(self) -> DType:
        """The dtype of the weights."""
        return self.dtype_policy.variable_dtype

    @property
    def dtype(self) -> DType:
        """The dtype of the weights: another name of `variable_dtype`."""
        return self.variable_dtype

    # The tensors of a model.

    @property
    def input(self) -> Any:
        """The symbolic tensor that the layer was called on; raises `AttributeError` unless there was one call."""
        args, _ = unflatten(self._only_call().structure, self._only_call().leaves)
        return args[0]

    @property
    def output(self) -> Any:
        """The symbolic tensor that the layer made; raises `AttributeError` unless it was called once."""
        outputs = self._only_call().outputs
        return outputs[0] if len(outputs) == 1 else outputs

    def _only_call(self) -> Call:
        if len(self._calls) != 1:
            raise AttributeError(
                f"Layer {self.name!r}: Expected one call on symbolic tensors. Received: {len(self._calls)}"
            )
        return self._calls[0]

    # Weights.

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: InitializerLike | None = None,
        dtype: str | DType | None = None,
        trainable: bool = True,
        name: str = "weight",
    ) -> Variable:
        """Make a weight, glorot-uniform by default; its path is the layer's with `name` appended.

        dtype: the layer's by default. Raises `DTypeError` where that is none of floating-point numbers.
        """
        if dtype is None and not self.dtype.is_float:
            raise DTypeError(
                f"Layer {self.name!r} ({type(self).__name__}): Expected a floating-point dtype for its weights. "
                f"Received: dtype={self.dtype.numpy_name!r}"
            )
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
        """The layers that are attributes, or in those: looked up each time, since lists grow and shrink."""
        return held(self.__dict__.values(), Layer)

    @property
    def _own_variables(self) -> list[Variable]:
        return list(dict.fromkeys([*self._weights, *held(self.__dict__.values(), Variable)]))

    @property
    def variables(self) -> list[Variable]:
        """All variables of the layer and the layers inside it."""
        return self.weights

    @property
    def weights(self) -> list[Variable]:
        """The weights: of the layer itself, trainable ones first, then of the layers inside it."""
        inside = (variable for layer in self._sublayers for variable in layer.weights)
        return list(dict.fromkeys([*self.own_weights, *inside]))

    @property
    def own_weights(self) -> list[Variable]:
        """The weights of the layer itself, trainable ones first."""
        return sorted(self._own_variables, key=lambda variable: not variable.trainable)

    @property
    def own_state(self) -> list[Variable]:
        """What the layer itself keeps besides its weights."""
        weights = set(self._own_variables)
        return [variable for variable in held(self.__dict__.values(), Variable) if variable not in weights]

    @property
    def listed_layers(self) -> list[Layer] | None:
        """The layers of a model that knows them by name; None where they are attributes."""
        return None

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

        Raises `ShapeError` or `DTypeError` and changes none of them if their number, a shape or a dtype does not fit,
        `ValueError` for finite numbers beyond float32.
        """
        if not isinstance(weights, Iterable):
            raise TypeError(f"Layer {self.name!r}: Expected a list of weight arrays. Received: {weights!r}")
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
                raise DTypeError(
                    f"Layer {self.name!r}, weight {variable.path!r}: Expected values of dtype "
                    f"{variable.dtype.numpy_name}. Received: {array.dtype}"
                )
        arrays = [variable.in_range(array) for variable, array in zip(variables, arrays, strict=True)]
        with HeldBack():
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)

    def __deepcopy__(self, memo: dict[int, Any]) -> Layer:
        """Return a layer like this one with weights of its own, equal to these.

        The calls recorded of it are those of the model that is being copied, if any: each adds itself.
        """
        copied = memo[id(self)] = object.__new__(type(self))
        for name, value in self.__dict__.items():
            copied.__dict__[name] = [] if name == "_calls" else deepcopy(value, memo)
        return copied

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


_training: ContextVar[bool] = ContextVar("training", default=False)


@contextmanager
def training_scope(training: bool | None) -> Iterator[bool]:
    """Let layers called inside know whether the model is being trained; None for whatever is so around."""
    training = _training.get() if training is None else training
    token = _training.set(training)
    try:
        yield training
    finally:
        _training.reset(token)


def _read(variable: Variable) -> Any:
    trace = Trace.current()
    return variable if trace is None else trace.read(variable)


def _marks_built(build: Callable[..., None]) -> Callable[..., None]:
    """Wrap a subclass's `build`: it runs once, for a normalized shape, in the layer's scope, and the layer is built."""

    @functools.wraps(build)
    def wrapped(self: Layer, input_shape: ShapeTree) -> None:
        if self.built:
            return
        shape = map_shapes(lambda one: normalized(one, f"input_shape of layer {self.name!r}"), input_shape)
        self._check_shape(shape)
        inside = current_provenance().layer.rsplit("/", 1)[-1] == self.name
        scope: AbstractContextManager[None] = nullcontext() if inside else layer_scope(self.name)
        # The first call of a layer may be inside of another's; one that was made there would be built at each call.
        with scope, layer_call(self._made_in):
            build(self, shape)
        self.built = True

    return wrapped
