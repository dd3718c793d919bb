"""Network: layers with known shapes, found by name, with a summary: what a model is before anything is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from gradloom import ops
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.types import DType
from gradloom.layers.layer import Layer
from gradloom.layers.shapes import InputSpec, Shape
from gradloom.summary import print_summary, summary_text
from gradloom.variables import Variable


class Network(Layer):
    """Layers that make up one whole: the structure of a model.

    A subclass says what its layers are (`layers`, `layer_shapes`), makes their weights (`build_layers`) and computes
    (`call`).
    """

    @property
    @abstractmethod
    def layers(self) -> list[Layer]:
        """The layers, in order."""

    @property
    @abstractmethod
    def layer_shapes(self) -> list[Shape]:
        """Shape of the input, then of each layer's result, as far as they are known."""

    @property
    @abstractmethod
    def input_dtype(self) -> DType | None:
        """The dtype that data is converted to on entry; None when no `Input` says so."""

    @abstractmethod
    def build_layers(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights of all layers."""

    @property
    def input_shape(self) -> Shape:
        """Shape of the input, None for the batch; raises `ValueError` while it is not known."""
        self.require_built("input_shape")
        return self.layer_shapes[0]

    @property
    def output_shape(self) -> Shape:
        """Shape of the result, None for the batch; raises `ValueError` while it is not known."""
        self.require_built("output_shape")
        return self.layer_shapes[-1]

    def require_built(self, what: str) -> None:
        """Raise `ValueError` unless the shape of the input is known."""
        if not self.built:
            raise ValueError(
                f"Model {self.name!r}: Expected the shape of its input before {what}: begin with gl.Input(shape), give "
                "the first layer input_shape=, call build(input_shape), or fit it. Received: a model that is not built"
            )

    def forward(self, x: Value, training: bool) -> Value:
        """Compute the model's result in the graph that is being traced; `x` is a batch of data as it came."""
        if self.input_dtype is not None:
            x = ops.cast(x, self.input_dtype)
        return self.call(x, training=training)  # type: ignore[no-any-return,call-arg]

    def accept_input(self, shape: tuple[int, ...]) -> None:
        """Check the shape of data for the model, and make the weights for it if there are none yet.

        Raises `ShapeError` naming the first layer and both shapes.
        """
        if not self.built:
            self.build_layers((None, *shape[1:]))
            return
        mismatch = InputSpec(shape=(None, *self.input_shape[1:])).mismatch(shape)
        if mismatch:
            first = self.layers[0]
            raise ShapeError(
                f"Model {self.name!r}, layer {first.name!r} ({type(first).__name__}): Expected {mismatch}. "
                f"Received: x of shape {shape}"
            )

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

    def summary(self, print_fn: Callable[[str], object] | None = None) -> None:
        """Print a table of layers, output shapes and parameters, or hand its text to `print_fn`."""
        shapes: list[Shape | None] = [*self.layer_shapes[1:]]
        shapes += [None] * (len(self.layers) - len(shapes))
        print_summary(summary_text(self.name, list(zip(self.layers, shapes, strict=True)), self), print_fn)

    @property
    def variables(self) -> list[Variable]:
        """All variables of the model: the weights of its layers."""
        return self.weights
