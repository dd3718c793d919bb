"""The graphs of a model's steps: forward, train, test and predict, each built in one trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradloom import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Graph, Value, layer_scope
from gradloom.compiler.types import F32, I32, OPEN, TensorType
from gradloom.tracing import TracedGraph, finish
from gradloom.variables import Trace, Variable

if TYPE_CHECKING:
    from gradloom.model import Model

DataTypes = tuple[tuple[str, TensorType], ...]
"""Labels and types of the data sets that a step reads rows of: x, y and, where samples are weighted, sample_weight."""

ROWS, PREDICTIONS, LOSS, VALID = "rows", "predictions", "loss", "valid"


def forward_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """Predictions and loss of a training batch, before any gradient: the stage `forward`."""
    setup, trace = model.setup, Trace(Graph("forward"))
    with trace:
        batch = read_batch(trace.graph, rows, types)
        predictions = model.forward(batch["x"], training=True)
        loss = setup.compute_loss(batch["y"], predictions, batch.get("sample_weight"))
        trace.graph.output(PREDICTIONS, predictions)
        trace.graph.output(LOSS, loss)
    return finish(trace)


def train_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """A whole train step: batch, forward, loss, metrics, gradients and the optimizer's update: the stage `gradient`.

    Its only results are new states, each written onto the old one: one native call runs any number of steps.
    """
    setup, trace = model.setup, Trace(Graph("train"))
    with trace:
        batch = read_batch(trace.graph, rows, types)
        predictions = model.forward(batch["x"], training=True)
        loss = setup.compute_loss(batch["y"], predictions, batch.get("sample_weight"))
        with layer_scope(LOSS):
            add_to(setup.loss_total, loss * float(rows))
        setup.update_metrics(batch["y"], predictions, None, batch.get("sample_weight"))
        variables = model.trainable_variables
        values = [variable.symbolic(trace.graph) for variable in variables]
        with layer_scope(setup.optimizer.name):
            setup.optimizer.apply(gradients([loss], values), variables)
    return finish(trace)


def test_step(model: Model, rows: int, types: DataTypes) -> TracedGraph:
    """Loss and metrics of a batch in which `valid` is 1 for samples and 0 for padding."""
    setup, trace = model.setup, Trace(Graph("test"))
    with trace:
        batch = read_batch(trace.graph, rows, (*types, (VALID, TensorType(F32, (OPEN,)))))
        valid = batch[VALID]
        predictions = model.forward(batch["x"], training=False)
        loss = setup.compute_loss(batch["y"], predictions, batch.get("sample_weight", valid))
        with layer_scope(LOSS):
            # A mean over the padded batch counts all rows, other reductions only those that have weight.
            counted = float(rows) if setup.loss_is_mean else ops.sum(valid)
            add_to(setup.loss_total, loss * counted)
        setup.update_metrics(batch["y"], predictions, valid, batch.get("sample_weight", valid))
    return finish(trace)


def predict_step(model: Model, x: TensorType) -> TracedGraph:
    """Predictions of a batch: `x` is the batch itself."""
    trace = Trace(Graph("predict"))
    with trace:
        trace.graph.output(PREDICTIONS, model.forward(trace.graph.input("x", x), training=False))
    return finish(trace)


def read_batch(graph: Graph, rows: int, types: DataTypes) -> dict[str, Value]:
    """Gather this step's rows of every data set."""
    data = {label: graph.input(label, type, "data") for label, type in types}
    indices = graph.input(ROWS, TensorType(I32, (rows,)), "indices")
    return {label: ops.take(values, indices, axis=0) for label, values in data.items()}


def add_to(variable: Variable, value: Value) -> None:
    """Add to a running sum."""
    variable.assign(variable + value)
