"""The graphs of a model's steps: forward, train, test and predict, each built in one trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradloom import ops
from gradloom.call_graph import INPUT, is_single
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import FORWARD, GRADIENT, Graph, Value
from gradloom.compiler.provenance import layer_scope, source_scope
from gradloom.compiler.types import I32, TensorType
from gradloom.data_adapter import labels
from gradloom.tracing import TracedGraph, finish
from gradloom.training_setup import OutputSetup
from gradloom.variables import Trace, Variable

if TYPE_CHECKING:
    from gradloom.model import Model

DataTypes = tuple[tuple[str, TensorType], ...]
"""Labels and types of the data sets that a step reads rows of: x, y and, where samples are weighted, sample_weight."""

ROWS, PREDICTIONS, LOSS = "rows", "predictions", "loss"


def input_labels(model: Model) -> list[str]:
    """The labels of the model's inputs: "x", or "x.left" and the like."""
    graph = model.call_graph
    return labels("x", graph.input_names, is_single(graph.input_structure))


def output_labels(model: Model, root: str) -> list[str]:
    """The labels of what belongs to the model's outputs: "y", or "y.digit" and the like."""
    graph = model.call_graph
    return labels(root, graph.output_names, is_single(graph.output_structure))


def forward_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """Predictions and loss of a training batch, before any gradient: the stage `forward`."""
    trace = _trace("forward", FORWARD)
    with source_scope(model.setup.source), trace:
        batch = read_batch(trace.graph, rows, types)
        predictions = _predictions(model, batch, training=True)
        with layer_scope(LOSS):
            loss = model.setup.total_loss(_losses(model, batch, predictions))
        _check_owned(model, trace)
        for label, value in zip(output_labels(model, PREDICTIONS), predictions, strict=True):
            trace.graph.output(label, value)
        trace.graph.output(LOSS, loss)
    return finish(trace)


def train_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """A whole train step: batch, forward, loss, metrics, gradients and the optimizer's update: the stage `gradient`.

    Its only results are new states, each written onto the old one: one native call runs any number of steps.
    """
    setup, trace = model.setup, _trace("train", GRADIENT)
    with source_scope(setup.source), trace:
        batch = read_batch(trace.graph, rows, types)
        predictions = _predictions(model, batch, training=True)
        with layer_scope(LOSS):
            losses = _losses(model, batch, predictions)
            loss = setup.total_loss(losses)
            for output, value in losses.items():
                add_to(output.total, value * float(rows))
        _update_metrics(model, batch, predictions)
        _check_owned(model, trace)
        variables = model.trainable_variables
        values = [variable.symbolic(trace.graph) for variable in variables]
        with layer_scope(LOSS):
            derivatives = gradients([loss], values)
        with layer_scope(setup.optimizer.name):
            setup.optimizer.apply(derivatives, variables)
    return finish(trace)


def test_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """Loss and metrics of a batch."""
    trace = _trace("test", FORWARD)
    with source_scope(model.setup.source), trace:
        batch = read_batch(trace.graph, rows, types)
        predictions = _predictions(model, batch, training=False)
        with layer_scope(LOSS):
            losses = _losses(model, batch, predictions)
            for output, value in losses.items():
                add_to(output.total, value * float(rows))
        _update_metrics(model, batch, predictions)
    return finish(trace)


def predict_step(model: Model, types: Sequence[TensorType]) -> TracedGraph:
    """Predictions of a batch: the inputs are the batch itself."""
    trace = _trace("predict", FORWARD)
    trace.graph.inference = True
    with source_scope(model.source), trace:
        with layer_scope(INPUT):
            inputs = [trace.graph.input(label, type) for label, type in zip(input_labels(model), types, strict=True)]
        predictions = model.forward(inputs, training=False)
        for label, value in zip(output_labels(model, PREDICTIONS), predictions, strict=True):
            trace.graph.output(label, value)
    return finish(trace)


def read_batch(graph: Graph, rows: int, types: DataTypes) -> dict[str, Value]:
    """Gather this step's rows of every data set."""
    with layer_scope(INPUT):
        data = {label: graph.input(label, type, "data") for label, type in types}
        indices = graph.input(ROWS, TensorType(I32, (rows,)), "indices")
        return {label: ops.take(values, indices, axis=0) for label, values in data.items()}


def _trace(name: str, stage: str) -> Trace:
    graph = Graph(name)
    graph.stage = stage
    return Trace(graph)


def _check_owned(model: Model, trace: Trace) -> None:
    """Raise `ValueError` for a variable that should be trained, and is read, but that no layer of the model has."""
    own = set(model.variables)
    for variable, value in trace.inputs.items():
        if variable.trainable and variable.role == "parameter" and variable not in own:
            origins = trace.graph.provenance[value]
            where = ", ".join(sorted({f"layer {origin.layer!r}" for origin in origins if origin.layer}))
            raise ValueError(
                f"Model {model.name!r}: Expected trainable variables that belong to its layers: as their attributes, "
                "also in lists, tuples, dicts and sets, or made by add_weight. Received: variable "
                f"{variable.path!r}, read in {where or 'the loss'}, which training would never change; make it a "
                "layer's own, or with trainable=False"
            )


def add_to(variable: Variable, value: Value) -> None:
    """Add to a running sum."""
    variable.assign(variable + value)


def _predictions(model: Model, batch: Mapping[str, Value], training: bool) -> list[Value]:
    return model.forward([batch[label] for label in input_labels(model)], training)


def _outputs(model: Model) -> list[tuple[OutputSetup, str, str]]:
    """Each output with the labels of its targets and its sample weights."""
    names = output_labels(model, "y"), output_labels(model, "sample_weight")
    return list(zip(model.setup.outputs, *names, strict=True))


def _losses(model: Model, batch: Mapping[str, Value], predictions: Sequence[Value]) -> dict[OutputSetup, Value]:
    """The loss of each output that has one."""
    return {
        output: output.compute_loss(batch[y], prediction, batch.get(weight))
        for (output, y, weight), prediction in zip(_outputs(model), predictions, strict=True)
        if output.loss is not None
    }


def _update_metrics(model: Model, batch: Mapping[str, Value], predictions: Sequence[Value]) -> None:
    for (output, y, weight), prediction in zip(_outputs(model), predictions, strict=True):
        if output.is_used:
            output.update_metrics(batch[y], prediction, batch.get(weight))
