"""Provenance: every node of every graph stage leads to a layer (or loss, metric, optimizer, input) and to a line."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradloom as gl
import networks
from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.provenance import Provenance
from gradloom.inspection import GraphStage, Inspection

MODES = ("train", "evaluate", "predict")


def parts_of(inspection: Inspection) -> Iterator[Inspection]:
    yield inspection
    if inspection.prepare is not None:
        yield inspection.prepare


def graphs(model: gl.Model, mode: str) -> Iterator[tuple[str, Graph]]:
    for part in parts_of(model.inspect(batch_size=2, mode=mode)):
        for name, stage in part.stages.items():
            if isinstance(stage, GraphStage):
                yield name, stage.graph


def owners(model: gl.Model) -> set[str]:
    """All that a node may belong to, but for what compiling brings."""
    calls = {call.name for call in model.call_graph.calls} if type(model).call is gl.Model.call else {model.name}
    return {layer.name for layer in model.layers} | calls | {"input", model.name}


def of_training(model: gl.Model) -> set[str]:
    prefixes = {output.prefix: output for output in model.setup.outputs}
    metrics = {f"{prefix}{metric.name}" for prefix, output in prefixes.items() for metric in output.plain}
    return {"loss", model.setup.optimizer.name} | metrics


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", networks.ALL.values(), ids=networks.ALL)
def test_every_node_leads_to_what_made_it_and_to_a_line(make: object, mode: str) -> None:
    model = make()  # type: ignore[operator]
    known: set[str] | None = None
    for stage, graph in graphs(model, mode):
        known = known or owners(model) | (of_training(model) if mode != "predict" else set())
        for value in graph.live():
            origins = graph.provenance[value]
            layers = {origin.layer.split("/")[0] for origin in origins}
            assert layers and layers <= known, (stage, value, layers - known)
            assert origins and all(is_in_networks(origin) for origin in origins), (stage, value, origins)


def is_in_networks(origin: Provenance) -> bool:
    """Whether a line is one of the file that wrote the model."""
    path, _, line = origin.source.rpartition(":")
    return path == networks.__file__ and bool(linecache.getline(path, int(line)).strip())


def test_all_nodes_of_darknet53_in_training() -> None:
    model = gl.applications.Darknet53(weights=None, input_shape=(32, 32, 3), classes=4)
    made = gl.compiler.provenance.user_line()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    path, _, line = made.rpartition(":")
    lines = {f"{path}:{int(line) - 1}", f"{path}:{int(line) + 1}"}
    inspection = model.inspect(batch_size=2, mode="train")
    known = {layer.name for layer in model.layers} | {"input", "loss", "accuracy", "sgd"}
    source = inspection.stages["gradient"].graph
    for name in ("simplified", "fused"):
        graph = inspection.stages[name].graph
        for value in graph.live():
            origins = graph.provenance[value]
            assert origins and {origin.layer for origin in origins} <= known, value
            assert {origin.source for origin in origins} <= lines, value
            assert_forward_nodes(origins, source)
    assert_gradients_have_forward_nodes(inspection)


def assert_forward_nodes(origins: frozenset[Provenance], source: Graph) -> None:
    """Each forward node is there, is no gradient itself, and belongs to the same layer."""
    for origin in origins:
        if origin.forward is not None:
            forward = source.values[origin.forward]
            assert origin.layer in {other.layer for other in source.provenance[forward]}
            assert any(other.forward is None for other in source.provenance[forward])


def assert_gradients_have_forward_nodes(inspection: Inspection) -> None:
    """What the train step has beyond forward pass, loss, metrics and optimizer knows its forward node."""
    forward = {value.number for value in inspection.stages["forward"].graph.live()}
    gradient = inspection.stages["gradient"].graph
    same = {number for old in forward for number in inspection.became("forward", old)}
    assert len(same) == len(forward)
    derived = 0
    for value in gradient.live():
        origins = gradient.provenance[value]
        of_layers = {o for o in origins if o.layer.split("/")[0] not in ("input", "loss", "accuracy", "sgd", "adam")}
        if value.number in same or isinstance(value.op, Input | Constant) or not of_layers:
            continue
        derived += 1
        assert all(origin.forward is not None for origin in of_layers), value
        assert_forward_nodes(frozenset(of_layers), gradient)
    assert derived > 3


@pytest.mark.parametrize("make", [networks.mlp, networks.darknet], ids=lambda make: make.__name__)
def test_gradient_nodes_know_their_forward_nodes(make: object) -> None:
    assert_gradients_have_forward_nodes(make().inspect(batch_size=2))  # type: ignore[operator]


def test_a_gradient_of_a_product_knows_the_product() -> None:
    """By arithmetic: what is multiplied by the transposed input is the gradient of the matmul's kernel."""
    graph = networks.mlp().train_graph(2)
    for value in graph.live():
        if value.op.name == "matmul" and (origins := list(graph.provenance[value]))[0].forward is not None:
            forward = graph.values[origins[0].forward]
            assert forward.op.name == "matmul"
            assert set(map(shape_of, forward.inputs)) & {shape_of(value)}


def shape_of(value: Value) -> tuple[int, ...]:
    return value.shape


def test_layers_of_a_sequential_model_come_from_the_lines_that_made_them() -> None:
    graph = networks.mlp().predict_graph(2)
    text = Path(networks.__file__).read_text(encoding="utf-8").splitlines()
    for value in graph.live():
        if value.op.name == "matmul":
            (origin,) = graph.provenance[value]
            line = text[int(origin.source.rpartition(":")[2]) - 1]
            assert f'name="{origin.layer}"' in line


def test_code_of_ones_own_is_where_it_stands() -> None:
    graph = networks.own_call().predict_graph(2)
    text = Path(networks.__file__).read_text(encoding="utf-8").splitlines()
    for value in graph.live():
        if value.op.name in ("multiply", "subtract", "matmul"):
            (origin,) = graph.provenance[value]
            assert "self.dense(x * 3.0) - 1.0" in text[int(origin.source.rpartition(":")[2]) - 1]
            assert origin.layer == ("inside" if value.op.name == "matmul" else "scaled")
