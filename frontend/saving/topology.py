"""A functional model's config: its layers, and the calls that make the outputs of the inputs, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradloom.call_graph import CallGraph
from gradloom.compiler.types import as_dtype
from gradloom.layers.input_layer import InputLayer
from gradloom.layers.layer import Layer
from gradloom.saving.objects import ConfigError, TensorPlace, VariablePlace, described, serialize_keras_object
from gradloom.symbolic import Call, SymbolicTensor, record
from gradloom.trees import unflatten
from gradloom.variables import Variable

INPUTS = -1
"""The number of the "call" whose outputs are the model's inputs."""


def graph_config(graph: CallGraph) -> dict[str, Any]:
    """Return layers, calls, inputs and outputs as data; raises ConfigError for what is called and has no name."""
    return {"layers": [described(layer) for layer in graph.layers], **calls_config(graph)}


def calls_config(graph: CallGraph) -> dict[str, Any]:
    """Return calls of layers, by their names, and of functions, with inputs and outputs, as data."""
    places = {tensor: TensorPlace(INPUTS, number) for number, tensor in enumerate(graph.inputs)}
    for number, call in enumerate(graph.calls):
        places.update({tensor: TensorPlace(number, output) for output, tensor in enumerate(call.outputs)})
    variables = list(dict.fromkeys(graph.variables))
    numbers = {variable: VariablePlace(number) for number, variable in enumerate(variables)}

    def argument(leaf: Any) -> Any:
        if isinstance(leaf, SymbolicTensor):
            return places[leaf]
        return numbers[leaf] if isinstance(leaf, Variable) else leaf

    calls = []
    for call in graph.calls:
        args, kwargs = unflatten(call.structure, [argument(leaf) for leaf in call.leaves])
        operation = call.operation.name if isinstance(call.operation, Layer) else call.operation
        calls.append({"name": call.name, "operation": operation, "args": list(args), "kwargs": kwargs})
    inputs = [places[tensor] for tensor in graph.inputs]
    outputs = [places[tensor] for tensor in graph.outputs]
    data: dict[str, Any] = serialize_keras_object(
        {
            "input_tensors": [_input(tensor) for tensor in graph.inputs],
            "variables": [_variable(variable) for variable in variables],
            "calls": calls,
            "inputs": unflatten(graph.input_structure, inputs),
            "outputs": unflatten(graph.output_structure, outputs),
        }
    )
    return data


def _input(tensor: SymbolicTensor) -> dict[str, Any]:
    if tensor.call is not None and isinstance(tensor.call.operation, InputLayer):
        return {"layer": tensor.call.operation.name}
    return {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}


def _variable(variable: Variable) -> dict[str, Any]:
    names = ("name", "path", "shape", "dtype", "trainable", "role")
    return {name: getattr(variable, name) for name in names}


def called_again(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Make the calls of a config, whose layers are made already, on new inputs; return the inputs and the outputs."""
    layers = {layer.name: layer for layer in config["layers"]}
    inputs = [_made_input(entry, layers) for entry in config["input_tensors"]]
    tensors = {TensorPlace(INPUTS, number): tensor for number, tensor in enumerate(inputs)}
    variables = [Variable("zeros", **described) for described in config["variables"]]

    def argument(place: Any) -> Any:
        if isinstance(place, TensorPlace):
            if place not in tensors:
                raise ConfigError(f"Expected a tensor that an earlier call made. Received: {place}")
            return tensors[place]
        return variables[place.number] if isinstance(place, VariablePlace) else place

    for number, entry in enumerate(config["calls"]):
        args, kwargs = _replaced(entry["args"], argument), _replaced(entry["kwargs"], argument)
        call = _call(entry, layers, args, kwargs)
        tensors.update({TensorPlace(number, output): tensor for output, tensor in enumerate(call.outputs)})
    return _replaced(config["inputs"], argument), _replaced(config["outputs"], argument)


def _made_input(entry: Mapping[str, Any], layers: Mapping[str, Layer]) -> SymbolicTensor:
    if "layer" not in entry:
        return SymbolicTensor.open(entry["shape"], as_dtype(entry["dtype"]), entry["name"])
    layer = layers.get(entry["layer"])
    if not isinstance(layer, InputLayer):
        raise ConfigError(f"Expected the name of an input layer. Received: {entry['layer']!r}")
    return layer.tensor


def _call(entry: Mapping[str, Any], layers: Mapping[str, Layer], args: list[Any], kwargs: dict[str, Any]) -> Call:
    operation = entry["operation"]
    if callable(operation):
        return record(operation, tuple(args), kwargs, entry["name"])[1]
    if operation not in layers:
        raise ConfigError(f"Expected the name of one of the layers {list(layers)}. Received: {operation!r}")
    layers[operation](*args, **kwargs)
    return layers[operation]._calls[-1]


def _replaced(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """Apply a function to all that is no list, tuple or dict."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(_replaced(item, replace) for item in tree)
    if isinstance(tree, dict):
        return {key: _replaced(item, replace) for key, item in tree.items()}
    return tree if isinstance(tree, np.ndarray) else replace(tree)
