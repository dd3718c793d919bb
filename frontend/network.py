"""Network: layers with known shapes, found by name, with a summary: what a model is before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from gradloom.call_graph import CallGraph
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.provenance import owner_scope
from gradloom.compiler.types import DType
from gradloom.constructors import takes
from gradloom.layers.layer import Layer, training_scope
from gradloom.layers.shapes import InputSpec, Shape, ShapeTree, map_shapes
from gradloom.recording import Recorded
from gradloom.summary import print_summary, summary_text
from gradloom.symbolic import SymbolicTensor, record
from gradloom.trees import Structure, flatten, map_leaves, unflatten
from gradloom.variables import Variable


class Network(Layer):
    """Layers that make up one whole, in one of three ways.

    `inputs` and `outputs`, symbolic tensors, give the network what computes the ones from the others. A subclass with
    a `call` of its own makes its layers itself, like any layer. `Sequential` has a list of them.
    """

    autocast = False

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, trainable: bool = True
    ) -> None:
        super().__init__(name=name, trainable=trainable)
        self._call_graph: CallGraph | None = None
        if (inputs is None) != (outputs is None):
            missing = "outputs" if outputs is None else "inputs"
            raise ValueError(f"Model {self.name!r}: Expected inputs and outputs. Received: {missing}=None")
        if inputs is not None:
            self._call_graph = CallGraph(inputs, outputs, self.name)
            self.built = True
            self.require_batches()

    # Structure.

    @property
    def layers(self) -> list[Layer]:
        """The layers, in order."""
        return super()._sublayers if self._call_graph is None or self._has_own_call else self._call_graph.layers

    @property
    def _sublayers(self) -> list[Layer]:
        return self.layers

    @property
    def _own_variables(self) -> list[Variable]:
        recorded = [] if self._call_graph is None else self._call_graph.variables
        return list(dict.fromkeys([*super()._own_variables, *recorded]))

    @property
    def _has_own_call(self) -> bool:
        return type(self).call is not Network.call

    @property
    def listed_layers(self) -> list[Layer] | None:
        return None if self._call_graph is None or self._has_own_call else self.layers

    @property
    def recorded_graph(self) -> CallGraph | None:
        """The calls that a network was made of, with symbolic inputs and outputs; None where it calls its layers."""
        return None if self._has_own_call else self._call_graph

    @property
    def call_graph(self) -> CallGraph:
        """The recorded calls between inputs and outputs; raises `ValueError` while the input's shape is not known."""
        self.require_built("its symbolic tensors")
        assert self._call_graph is not None
        return self._call_graph

    @property
    def inputs(self) -> list[SymbolicTensor]:
        """The symbolic inputs."""
        return self.call_graph.inputs

    @property
    def outputs(self) -> list[SymbolicTensor]:
        """The symbolic outputs."""
        return self.call_graph.outputs

    @property
    def input(self) -> Any:
        """The symbolic input, or the list, tuple or dict of them that the network was made with."""
        return unflatten(self.call_graph.input_structure, self.inputs)

    @property
    def output(self) -> Any:
        """The symbolic output, or the list, tuple or dict of them that the network was made with."""
        return self.call_graph.result(self.outputs)

    @property
    def input_names(self) -> list[str]:
        """The names by which data is given to the inputs in a dict."""
        return self.call_graph.input_names

    @property
    def output_names(self) -> list[str]:
        """The names by which targets, losses and metrics are given to the outputs in a dict."""
        return self.call_graph.output_names

    @property
    def input_shape(self) -> Any:
        """Shape of the input, None for the batch, or shapes; raises `ValueError` while it is not known."""
        self.require_built("input_shape")
        return map_leaves(lambda tensor: tensor.shape, self.input)

    @property
    def output_shape(self) -> Any:
        """Shape of the result, None for the batch, or shapes; raises `ValueError` while it is not known."""
        self.require_built("output_shape")
        return map_leaves(lambda tensor: tensor.shape, self.output)

    def require_built(self, what: str) -> None:
        """Raise `ValueError` unless the shape of the input is known."""
        if not self.built:
            raise ValueError(
                f"Model {self.name!r}: Expected the shape of its input before {what}: begin with gl.Input(shape), give "
                "the first layer input_shape=, call build(input_shape), or fit it. Received: a model that is not built"
            )

    def require_batches(self) -> None:
        """Raise `ShapeError` unless every output has a row for each sample: what data is given for, and taken from."""
        for probe in (0, 1):
            batches = [tensor.probes[probe].shape[0] for tensor in self.inputs]
            for tensor in self.outputs:
                rows = tensor.probes[probe].shape[:1]
                if not rows or rows[0] not in batches:
                    raise ShapeError(
                        f"Model {self.name!r}: Expected outputs whose first axis is the batch. Received: output "
                        f"{tensor.name!r} of shape {tensor.shape}, {rows[0] if rows else 'no'} rows for a batch of "
                        f"{batches[0]}"
                    )

    # Weights and computation.

    def build(self, input_shape: ShapeTree) -> None:
        """Make the weights of all layers for inputs of this shape (None for the batch)."""
        self.build_layers(input_shape)

    def build_layers(self, input_shape: ShapeTree, dtypes: Sequence[DType] | None = None) -> None:
        """Make the weights, named by their layers alone: what a model does that isn't a layer of another one.

        dtypes: of the inputs, in order; the model's own by default.
        """
        if type(self).build is not Network.build:
            self.build(input_shape)
        inputs = map_shapes(lambda shape: SymbolicTensor.open(shape, self.dtype, "x"), input_shape)
        leaves, structure = flatten(inputs)
        for position, leaf in enumerate(leaves):
            name = leaf.name if len(leaves) == 1 else f"{leaf.name}_{position}"
            dtype = leaf.dtype if dtypes is None else dtypes[position]
            leaves[position] = SymbolicTensor.open(leaf.shape, dtype, name)
        inputs = unflatten(structure, leaves)
        outputs, _ = record(self._called, (inputs,), {}, self.name)
        self._call_graph = CallGraph(inputs, outputs, self.name)
        self.built = True

    def _first_data(self, x: Any) -> tuple[list[Any], Structure]:
        """Take the data apart that says what inputs a network that is not built has: arrays in lists, tuples, dicts."""
        return flatten(x)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Make the recorded calls on these values."""
        if self._call_graph is None:
            raise NotImplementedError(
                f"Model {self.name!r}: Expected inputs and outputs, or a class that defines call(self, inputs)"
            )
        graph = self._call_graph
        leaves, structure = flatten(inputs)
        if structure != graph.input_structure and len(leaves) != len(graph.inputs):
            raise ShapeError(f"Model {self.name!r}: Expected {len(graph.inputs)} inputs. Received: {len(leaves)}")
        return graph.result(graph.replay(graph.entered(leaves)))

    def forward(self, inputs: Sequence[Value], training: bool) -> list[Value]:
        """Compute the model's results, in order, in the graph that is being traced; `inputs` are data as they came."""
        self.require_batches()
        with training_scope(training), owner_scope(self.name):
            values = unflatten(self.call_graph.input_structure, self.call_graph.entered(inputs))
            takes_training = {"training": training} if self._call_takes_training() else {}
            return flatten(self._called(values, **takes_training))[0]

    def _check_shape(self, shape: ShapeTree) -> None:
        super()._check_shape(shape)
        if self._call_graph is None or not self._has_fixed_inputs:
            return
        shapes: list[Shape] = []
        map_shapes(shapes.append, shape)
        for tensor, name, given in zip(self.inputs, self.input_names, shapes, strict=False):
            mismatch = InputSpec(shape=(None, *tensor.shape[1:])).mismatch(given)
            if mismatch:
                where = f", input {name!r}" if len(self.inputs) > 1 else ""
                raise ShapeError(f"Model {self.name!r}{where}: Expected {mismatch}. Received: shape {tuple(given)}")

    @property
    def _has_fixed_inputs(self) -> bool:
        """Whether the calls are those that were recorded; a `call` of one's own may take inputs of any shape."""
        return not self._has_own_call

    def accept_input(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Check the shapes of data for the inputs, in order.

        Raises `ShapeError` naming the first layer, or the input where there are several, and both shapes.
        """
        for tensor, name, shape in zip(self.inputs, self.input_names, shapes, strict=True):
            mismatch = InputSpec(shape=(None, *tensor.shape[1:])).mismatch(shape)
            if mismatch:
                where, data = f"input {name!r}", f"x[{name!r}]"
                if len(self.inputs) == 1:
                    data, first = "x", self.layers[0] if self.layers else self
                    where = f"layer {first.name!r} ({type(first).__name__})"
                raise ShapeError(
                    f"Model {self.name!r}, {where}: Expected {mismatch}. Received: {data} of shape {shape}"
                )

    # Keeping it.

    def get_config(self) -> dict[str, Any]:
        """The model as data: name, layers and, of symbolic tensors, the calls between inputs and outputs.

        For a class with an `__init__` of its own they are the arguments that the model was made with, as for layers. To
        a class that adds its own, `super().get_config() | {"units": self.units}`, they are those of every model.
        Raises `ConfigError`, a ValueError, where these are no data.
        """
        if self._is_described_by_structure:
            return {"name": self.name, "trainable": self._trainable, **self._structure_config()}
        if type(self).get_config is Network.get_config:
            return self._config_of_arguments(self._base_config())
        return {name: value for name, value in self._base_config().items() if takes(type(self), name)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """Make a model from what `get_config` returned, with weights of its own.

        custom_objects: classes and functions of one's own by name. Raises `ConfigError` for names that are not known.
        """
        from gradloom.saving.objects import custom_object_scope, deserialize_keras_object

        with custom_object_scope(custom_objects):
            arguments = deserialize_keras_object(dict(config))
            if "layers" not in arguments:
                return cls(**arguments)
            return cls._from_structure(arguments, trainable=arguments["trainable"], name=arguments["name"])

    @property
    def _is_described_by_structure(self) -> bool:
        """Whether layers and calls say all; a class with an `__init__` of its own is made by its arguments."""
        return self.listed_layers is not None and type(self).__init__.__module__.startswith("gradloom.")

    def _structure_config(self) -> dict[str, Any]:
        from gradloom.saving.topology import graph_config

        return graph_config(self.call_graph)

    @classmethod
    def _from_structure(cls, config: Mapping[str, Any], **options: Any) -> Self:
        from gradloom.saving.topology import called_again

        return cls(*called_again(config), **options)

    def to_json(self, **options: Any) -> str:
        """The model's class and config as JSON, for `gl.models.model_from_json`; `options` are `json.dumps`'s."""
        from gradloom.saving.model_file import model_to_json

        return model_to_json(self, **options)

    def save(self, path: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the model into a `.gradloom` file, whole or not at all, for `gl.models.load_model`.

        It holds the config, the weights, what layers keep besides them (counters of dropout), and what `compile` was
        told with the optimizer's state: training goes on from it as it would have gone on here, bit by bit, if the
        shuffling begins with the same seed. A thread that trains the model meanwhile may be in the midst of a step, and
        weights of two steps get into one file: save it from a callback, as `ModelCheckpoint` does.
        overwrite: whether a file of this name may be replaced. Raises `ValueError` for another suffix and for a model
        that is not built, `ConfigError` for what is no data, OSError when it cannot be written.
        """
        from gradloom.saving.model_file import save_model

        save_model(self, path, overwrite)

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write the weights into a file, whole or not at all: `.safetensors` or Keras's `.weights.h5`.

        As with `save`, what another thread trains meanwhile is saved from a callback. Raises `ValueError` for another
        suffix and for a model that is not built, OSError when it cannot be written.
        """
        from gradloom.saving.weights import save_weights

        save_weights(self, path)

    def load_weights(self, path: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Give the model the weights of a file that `save_weights` wrote, or Keras's `save_weights` as `.weights.h5`.

        They are found by name: that of the layers, one inside another, without the numbers of automatic names, and
        that of the weight (`gl.saving`); in Keras's files by classes and places, as Keras does.
        skip_mismatch: load what fits in name and shape, and warn of the rest.
        Raises `SavedFileError`, a ValueError, for a damaged file and, listing what was expected and what came, for
        weights that do not fit; the model is then as it was.
        """
        from gradloom.saving.weights import load_weights

        load_weights(self, path, skip_mismatch)

    # Looking at it.

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer of a name, or at an index; raises `ValueError` naming the layers there are."""
        if (name is None) == (index is None):
            raise ValueError(f"Expected either name or index. Received: name={name!r}, index={index!r}")
        for position, layer in enumerate(self.layers):
            if layer.name == name or index in (position, position - len(self.layers)):
                return layer
        known = ", ".join(repr(layer.name) for layer in self.layers)
        received = f"name={name!r}" if index is None else f"index={index}"
        raise ValueError(
            f"Model {self.name!r}: Expected one of its {len(self.layers)} layers: {known}. Received: {received}"
        )

    def summary(self, print_fn: Callable[[str], object] | None = None, expand_nested: bool = False) -> None:
        """Print a table of layers, output shapes and parameters, or hand its text to `print_fn`.

        Where layers do not simply follow one another a column says what each is connected to. expand_nested: list the
        layers of models inside the model, too.
        """
        print_summary(summary_text(self, expand_nested), print_fn)

    @property
    def variables(self) -> list[Variable]:
        """All variables of the model: the weights of its layers."""
        return self.weights


def is_symbolic(inputs: Any) -> bool:
    """Whether a network is being called on symbolic tensors or values rather than on arrays."""
    return any(isinstance(leaf, (Value, Variable, Recorded)) for leaf in flatten(inputs)[0])
