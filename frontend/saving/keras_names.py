"""The names under which Keras's `.weights.h5` files hold a model's weights, such as `layers/dense_1/vars/0`.

Keras 3 goes through a model's attributes by name, and numbers what is in lists by class: a layer's own name means
nothing. A functional model's layers come in the order of their depth, the longest way to an output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gradloom.call_graph import CallGraph
from gradloom.layers.input_layer import InputLayer
from gradloom.layers.layer import Layer
from gradloom.naming import distinct
from gradloom.network import Network
from gradloom.symbolic import Call
from gradloom.variables import Variable

Operation = Any
"""What a call is of: a layer, or the call itself where it is of a function."""


def keras_weight_names(model: Layer) -> dict[str, Variable]:
    """The weights by their names in a `.weights.h5` file."""
    names: dict[str, Variable] = {}
    for path, layer in _walk(model, "", set()):
        names |= {f"{path}vars/{place}": variable for place, variable in enumerate(layer.own_weights)}
    return names


def keras_layer_names(model: Layer) -> dict[str, str]:
    """The layers' own names by those of their groups, which Keras notes beside the weights."""
    return {f"{path}vars": layer.name for path, layer in _walk(model, "", set())}


def _walk(layer: Layer, path: str, seen: set[Layer]) -> Iterator[tuple[str, Layer]]:
    if layer in seen:
        return
    seen.add(layer)
    yield path, layer
    for name, content in _attributes(layer):
        yield from _within(content, f"{path}{name}/", seen)


def _within(content: Any, path: str, seen: set[Layer]) -> Iterator[tuple[str, Layer]]:
    if isinstance(content, Layer):
        yield from _walk(content, path, seen)
        return
    items = list(content.values() if isinstance(content, Mapping) else content)
    items = [item for item in items if isinstance(item, (Layer, list, tuple, Mapping))]
    for name, item in zip(distinct(map(_class_name, items)), items, strict=True):
        yield from _within(item, f"{path}{name}/", seen)


def _attributes(layer: Layer) -> list[tuple[str, Any]]:
    """What may hold layers, in Keras's order: by name, private ones last; a model's list of layers is one of them."""
    if layer.listed_layers is not None:
        assert isinstance(layer, Network)
        graph = layer.recorded_graph
        return [("layers", layer.listed_layers if graph is None else _by_depth(graph))]
    content = {name: value for name, value in layer.__dict__.items() if isinstance(value, (Layer, list, tuple, dict))}
    content.pop("_calls", None)
    if isinstance(layer, Network):
        content["layers"] = layer.layers
    return sorted(content.items(), key=lambda item: f"~{item[0]}" if item[0].startswith("_") else item[0])


def _class_name(item: Any) -> str:
    if not isinstance(item, Layer):
        return "container"
    name = type(item).__name__
    if name == "Model":
        return "functional"  # Keras makes an instance of this subclass.
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()


def _by_depth(graph: CallGraph) -> list[Layer]:
    """The layers from the deepest on; those of one depth in the order in which a search from the outputs meets them."""
    met, finished = _search(graph)
    depths: dict[Operation, int] = {}
    below: dict[Call, int] = {}
    for call in reversed(finished):
        operation = _operation(call)
        depth = below[call] = depths[operation] = max(below.get(call, 0), depths.get(operation, 0))
        for parent in _parents(call, graph):
            below[parent] = max(depth + 1, below.get(parent, 0))
    for tensor in graph.inputs:  # An input that no output depends on.
        if tensor.call is not None and isinstance(tensor.call.operation, InputLayer):
            depths.setdefault(tensor.call.operation, 0)
    ordered = sorted(depths, key=lambda operation: (-depths[operation], met.get(operation, -1)))
    return [operation for operation in ordered if isinstance(operation, Layer)]


def _search(graph: CallGraph) -> tuple[dict[Operation, int], list[Call]]:
    """Depth first from the outputs: when each operation is met, and the calls in the order in which they are done."""
    met: dict[Operation, int] = {}
    finished: dict[Call, None] = {}
    for output in graph.outputs:
        if output.call is None or (output in set(graph.inputs) and not _is_input(output.call)):
            continue
        waiting: list[tuple[Call, Iterator[Call]]] = []

        def enter(call: Call, waiting: list[tuple[Call, Iterator[Call]]] = waiting) -> None:
            met.setdefault(_operation(call), len(met))
            waiting.append((call, iter(_parents(call, graph))))

        if output.call not in finished:
            enter(output.call)
        while waiting:
            call, parents = waiting[-1]
            following = next((parent for parent in parents if parent not in finished), None)
            if following is None:
                waiting.pop()
                finished[call] = None
            else:
                enter(following)
    return met, list(finished)


def _parents(call: Call, graph: CallGraph) -> Iterable[Call]:
    """The calls that made the arguments of a call, as far as they belong to the model."""
    given = set(graph.inputs)
    return [
        tensor.call
        for tensor in call.inputs
        if tensor.call is not None and (tensor not in given or _is_input(tensor.call))
    ]


def _is_input(call: Call) -> bool:
    return isinstance(call.operation, InputLayer)


def _operation(call: Call) -> Operation:
    return call.operation if isinstance(call.operation, Layer) else call
