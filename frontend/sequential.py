"""Sequential: a model whose layers follow one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from gradloom.call_graph import CallGraph
from gradloom.compiler.provenance import source_scope
from gradloom.compiler.types import DType
from gradloom.layers.input_layer import InputLayer
from gradloom.layers.layer import Layer
from gradloom.layers.shapes import Shape, normalized
from gradloom.model import Model
from gradloom.symbolic import SymbolicTensor
from gradloom.trees import LEAF, Structure


class Sequential(Model):
    """A model in which each layer takes the result of the one before it.

    layers: the layers in order. Weights are made at once when the first one knows the shape of its input (`Input`, or
    `input_shape=`), otherwise when the model first sees data, or by `build(input_shape)`.
    """

    def __init__(
        self, layers: Iterable[Layer | SymbolicTensor] | None = None, trainable: bool = True, name: str | None = None
    ) -> None:
        super().__init__(name=name, trainable=trainable)
        self._layers: list[Layer] = []
        self._input: InputLayer | None = None
        self._tensors: list[SymbolicTensor] = []
        if layers is not None and not isinstance(layers, Iterable):
            raise TypeError(f"Sequential {self.name!r}: Expected a list of layers. Received: {layers!r}")
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Layer | SymbolicTensor) -> None:
        """Append a layer, or begin with `gl.Input(shape)`.

        Raises `TypeError` for what is no layer, `ValueError` for a name that is taken and for the model itself, also
        inside of another layer.
        """
        if (
            isinstance(layer, SymbolicTensor)
            and layer.call is not None
            and isinstance(layer.call.operation, InputLayer)
        ):
            layer = layer.call.operation
        if not isinstance(layer, Layer):
            raise TypeError(f"Sequential {self.name!r}: Expected an instance of a layer. Received: {layer!r}")
        if isinstance(layer, InputLayer):
            self._set_input(layer)
            return
        if self in _within(layer):
            raise ValueError(
                f"Sequential {self.name!r}: Expected a layer that does not contain this model. Received: {layer!r}"
            )
        if any(layer.name == other.name for other in self._layers):
            raise ValueError(
                f"Sequential {self.name!r}: Expected layers of different names. Received: another {layer.name!r}"
            )
        if not self._layers and self._input is None and layer.batch_input_shape is not None:
            shape = layer.batch_input_shape
            self._input = InputLayer(shape[1:], shape[0], layer.dtype)
        if self._input is not None:
            self._extend_to([*self._layers, layer])
        self._layers.append(layer)
        self._structure_changed()

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer off and return it; raises `ValueError` if there is none."""
        if not self._layers:
            raise ValueError(f"Sequential {self.name!r}: Expected a layer to pop. Received: a model without layers")
        layer = self._layers.pop()
        del self._tensors[len(self._layers) + 1 :]
        self._structure_changed()
        return layer

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the `Input`."""
        return list(self._layers)

    @property
    def listed_layers(self) -> list[Layer]:
        return self.layers

    @property
    def _has_fixed_inputs(self) -> bool:
        return True

    def build(self, input_shape: Shape) -> None:
        """Make the weights of all layers for inputs of this shape (None for the batch)."""
        self.build_layers(input_shape)

    def build_layers(self, input_shape: Sequence[int | None], dtypes: Sequence[DType] | None = None) -> None:
        """Make the weights, named by their layers alone: what a model does that isn't a layer of another one."""
        self._require_layers()
        if self._input is None:
            shape = normalized(input_shape, f"input_shape of {self.name!r}")
            self._tensors = [SymbolicTensor.open(shape, self.dtype if dtypes is None else dtypes[0], "x")]
        self._extend_to(self._layers)
        self._structure_changed()

    def require_built(self, what: str) -> None:
        """Raise `ValueError` unless there are layers, and the shape of the input is known."""
        self._require_layers()
        super().require_built(what)

    def _require_layers(self) -> None:
        if not self._layers:
            raise ValueError(f"Sequential {self.name!r}: Expected at least one layer. Received: a model without layers")

    def _first_data(self, x: Any) -> tuple[list[Any], Structure]:
        return [x], LEAF

    def call(self, x: Any, training: bool | None = None) -> Any:
        for layer in self._layers:
            with source_scope(layer.source):
                x = layer(x, training=training)
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Return the shape of the last layer's result for inputs of this shape."""
        shape = normalized(input_shape, "input_shape")
        for layer in self._layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def _structure_config(self) -> dict[str, Any]:
        from gradloom.saving.objects import described

        return {"layers": [described(layer) for layer in (self._input, *self._layers) if layer is not None]}

    @classmethod
    def _from_structure(cls, config: Mapping[str, Any], **options: Any) -> Self:
        return cls(config["layers"], **options)

    def _set_input(self, layer: InputLayer) -> None:
        if self._layers or self._input is not None:
            raise ValueError(f"Sequential {self.name!r}: Expected Input before all layers. Received: {layer!r}")
        self._input = layer
        self._tensors = [layer.tensor]

    def _extend_to(self, layers: Sequence[Layer]) -> None:
        """Call the layers whose result is not known yet, which makes their weights."""
        tensors = list(self._tensors)
        if not tensors:
            assert self._input is not None
            tensors.append(self._input.tensor)
        for layer in layers[len(tensors) - 1 :]:
            with source_scope(layer.source):
                tensors.append(layer(tensors[-1]))
        self._tensors = tensors

    def _structure_changed(self) -> None:
        """Forget programs of the old structure."""
        self.built = bool(self._layers) and len(self._tensors) == len(self._layers) + 1
        self._call_graph = CallGraph(self._tensors[0], self._tensors[-1], self.name) if self.built else None
        self.forget_programs()


def _within(layer: Layer) -> Iterator[Layer]:
    """A layer and all that are inside of it."""
    yield layer
    for inner in layer._sublayers:
        yield from _within(inner)
