"""The network of a model's layers: the calls between its inputs and outputs, also those inside of nested models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradloom.compiler.views import draw_dot, draw_svg, picture_of_network
from gradloom.inspection.stages import Stage
from gradloom.layers.input_layer import InputLayer
from gradloom.layers.layer import Layer
from gradloom.network import Network
from gradloom.summary import summary_text
from gradloom.symbolic import Call, SymbolicTensor

if TYPE_CHECKING:
    import networkx


class LayerStage(Stage):
    """The stage `layers`: its text is the model's summary; nested models can be drawn expanded."""

    def __init__(self, model: Network) -> None:
        super().__init__(
            "layers", lambda: summary_text(model) + "\n", lambda: layer_network(model), lambda: layer_json(model)
        )
        self._model = model

    def networkx(self, expand_nested: bool = False) -> networkx.DiGraph:
        """Return the calls of layers and functions; `expand_nested` puts what is inside of a model in its place."""
        return layer_network(self._model, expand_nested)

    def dot(self, expand_nested: bool = False) -> str:
        """Return the calls in Graphviz's DOT language."""
        return draw_dot(picture_of_network(self.networkx(expand_nested)))

    def svg(self, expand_nested: bool = False) -> str:
        """Return a drawing of the calls; it follows the viewer's light or dark colours."""
        return draw_svg(picture_of_network(self.networkx(expand_nested)))


@dataclass(frozen=True)
class Shown:
    """What the boxes of layers say."""

    shapes: bool = True
    dtype: bool = False
    names: bool = True
    activations: bool = False
    trainable: bool = False


def layer_network(model: Network, expand_nested: bool = False, shown: Shown | None = None) -> networkx.DiGraph:
    """The calls of a model's layers and functions, and the tensors that go from one to the next.

    expand_nested: in the place of a model inside, show what is inside of it, drawn together.
    """
    import networkx

    layers = len(model.layers)
    network = networkx.DiGraph(
        name=model.name,
        heading="MODELS",
        notes=(f"{layers:,} layer{'' if layers == 1 else 's'}", f"{model.count_params():,} parameters"),
    )
    _Calls(network, expand_nested, shown or Shown()).add(model, {})
    return network


def layer_json(model: Network) -> dict[str, Any]:
    """The network of a model's layers for JSON; what is inside of nested models stands in their nodes."""
    network = layer_network(model)
    nested = {path: _nested(call.operation) for path, call in _paths(model).items()}
    nodes = []
    for node, data in network.nodes(data=True):
        inside = nested.get(node)
        nodes.append({"id": node, **data, "nested": None if inside is None else layer_json(inside)})
    edges = [{"source": a, "target": b, **data} for a, b, data in network.edges(data=True)]
    return {"title": model.name, "nodes": nodes, "edges": edges}


class _Calls:
    """Adds calls to a network, those of nested models in the place of their own where they are expanded."""

    def __init__(self, network: networkx.DiGraph, expand_nested: bool, shown: Shown) -> None:
        self.network = network
        self.expand_nested = expand_nested
        self.shown = shown

    def add(self, model: Network, makers: Mapping[SymbolicTensor, str], prefix: str = "") -> list[str]:
        """Add the calls of a model whose inputs `makers` made; return what made its outputs."""
        made = dict(makers)
        for tensor in model.call_graph.inputs:
            if tensor.call is None and tensor not in made:
                made[tensor] = prefix + tensor.name
                self.network.add_node(made[tensor], **self._data(tensor))
        for path, call in _paths(model).items():
            if isinstance(call.operation, InputLayer) and all(tensor in made for tensor in call.outputs):
                continue
            node = prefix + path
            sources = [made[tensor] for tensor in call.inputs if tensor in made]
            nested = _nested(call.operation) if self.expand_nested else None
            if nested is not None:
                given = dict(zip(nested.call_graph.inputs, sources, strict=False))
                results = self.add(nested, given, f"{node}/")
                made.update(zip(call.outputs, results, strict=True))
                continue
            self.network.add_node(node, **self._said(call, node, prefix.rstrip("/")))
            self.network.add_edges_from((source, node) for source in sources)
            made.update(dict.fromkeys(call.outputs, node))
        return [made[tensor] for tensor in model.call_graph.outputs]

    def _data(self, tensor: SymbolicTensor) -> dict[str, Any]:
        """What the node of an input without a layer says."""
        shape = _shape(tensor.shape)
        return {
            "kind": "input",
            "title": tensor.name,
            "type": shape if self.shown.shapes else "",
            "note": tensor.dtype.numpy_name if self.shown.dtype else "",
            "role": "input",
            "class": "",
            "shapes": [shape],
            "dtype": tensor.dtype.numpy_name,
            "parameters": 0,
            "layers": ["input"],
            "source": "",
        }

    def _said(self, call: Call, path: str, inside: str) -> dict[str, Any]:
        """What the node of a call says."""
        operation, shown = call.operation, self.shown
        layer = operation if isinstance(operation, Layer) else getattr(operation, "__self__", None)
        kind = type(layer).__name__ if isinstance(layer, Layer) else getattr(operation, "__name__", "function")
        notes = [", ".join(call.outputs[0].dtype.numpy_name for _ in call.outputs[:1])] if shown.dtype else []
        activation = getattr(layer, "activation", None)
        if shown.activations and activation is not None:
            notes.append(getattr(activation, "__name__", str(activation)))
        if shown.trainable and isinstance(layer, Layer) and layer.weights:
            notes.append("trainable" if layer.trainable else "frozen")
        shapes = [_shape(tensor.shape) for tensor in call.outputs]
        return {
            "kind": "input" if isinstance(operation, InputLayer) else "op",
            "title": f"{call.name} ({kind})" if shown.names else kind,
            "type": ", ".join(shapes) if shown.shapes else "",
            "note": ", ".join(notes),
            "role": "input" if isinstance(operation, InputLayer) else "",
            "cluster": (inside.partition("/")[0], "model") if inside else None,
            "family": kind,
            "class": kind,
            "shapes": shapes,
            "dtype": call.outputs[0].dtype.numpy_name,
            "parameters": layer.count_params() if isinstance(layer, Layer) and layer.built else 0,
            "layers": [path.partition("#")[0]],
            "source": call.source,
        }


def _paths(model: Network) -> dict[str, Call]:
    """The calls of a model in order, by name; a later call of a layer has its number behind it."""
    graph = model.call_graph
    entries = [tensor.call for tensor in graph.inputs if tensor.call is not None]
    counts: Counter[str] = Counter()
    paths: dict[str, Call] = {}
    for call in (*entries, *graph.calls):
        counts[call.name] += 1
        paths[call.name if counts[call.name] == 1 else f"{call.name}#{counts[call.name]}"] = call
    return paths


def _nested(operation: object) -> Network | None:
    """The model that is called, if it shows its own calls."""
    if isinstance(operation, Network) and operation.built and operation._has_fixed_inputs:
        return operation
    return None


def _shape(shape: Sequence[int | None]) -> str:
    return "(" + ", ".join("None" if size is None else str(size) for size in shape) + ")"
