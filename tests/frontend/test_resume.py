"""Resuming: the text of each graph stage parses back, and leads to the same machine code and the same results."""

from __future__ import annotations

import numpy as np
import pytest

import networks
from compiled import assert_same, run_program
from gradloom.compiler import parse
from gradloom.compiler.ir import GRAPH_STAGES, Graph, Input
from gradloom.compiler.pipeline import lower
from gradloom.compiler.types import OPEN
from gradloom.inspection import GraphStage, Inspection, inspect_graph

MODES = ("train", "evaluate", "predict")
LATER = ("simplified", "fused", "scheduled", "memory")


def parts(inspection: Inspection) -> list[Inspection]:
    return [part for part in (inspection, inspection.prepare) if part is not None]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", networks.ALL.values(), ids=networks.ALL)
def test_each_graph_stage_leads_from_its_text_to_the_same_program(make: object, mode: str) -> None:
    whole = make().inspect(batch_size=2, mode=mode)  # type: ignore[operator]
    for original in parts(whole):
        for name in [name for name, stage in original.stages.items() if isinstance(stage, GraphStage)]:
            if name == "forward" and "gradient" in original.stages:
                continue  # Looked at by itself below: what follows is another graph.
            read = parse(original.stages[name].text())
            assert read == original.stages[name].graph
            assert read.stage in (name, "") and str(read) == original.stages[name].text()
            resumed = inspect_graph(read)
            for later in LATER:
                if later in resumed.stages:
                    assert resumed.stages[later].text() == original.stages[later].text(), (name, later)
            if original is whole and name in ("forward", "gradient"):
                assert (resumed.prepare is None) == (whole.prepare is None)
                if whole.prepare is not None and resumed.prepare is not None:
                    texts = [part.prepare.stages["scheduled"].text() for part in (resumed, whole)]  # type: ignore[union-attr]
                    assert texts[0] == texts[1]


def arguments(graph: Graph) -> dict[str, np.ndarray]:
    """Arrays for all inputs, in the order in which the graph wants them."""
    rng, arrays = np.random.default_rng(0), {}
    for value in graph.inputs:
        op = value.op
        assert isinstance(op, Input)
        shape = [5 if size == OPEN else size for size in op.type.shape]
        for axis, source in enumerate(op.permutation):
            shape[source] = op.type.shape[axis]
        whole = rng.integers(0, 3, shape) if not op.type.dtype.is_float else rng.uniform(0.1, 1, shape)
        arrays[op.label] = whole.astype(op.type.dtype.numpy)
    return arrays


@pytest.mark.parametrize(("make", "mode"), [(networks.mlp, "train"), (networks.darknet, "train")])
def test_resumed_programs_give_the_same_bits(make: object, mode: str) -> None:
    original = make().inspect(batch_size=2, mode=mode)  # type: ignore[operator]
    graph = original.stages["simplified"].graph
    given = arguments(graph)
    expected = run_program(lower(original.stages["gradient"].graph).program(), graph, given)
    assert any(np.any(expected[out.name] != given[out.name]) for out in graph.outputs if out.donor is not None)
    for name in ("gradient", "simplified", "fused"):
        resumed = lower(parse(original.stages[name].text())).program()
        assert_same(run_program(resumed, graph, given), expected, name)


def test_the_forward_pass_of_a_train_step_is_a_program_too() -> None:
    stage = networks.mlp().inspect(batch_size=2).stages["forward"]
    resumed = inspect_graph(parse(stage.text()))
    assert next(iter(resumed.stages)) == "forward" and resumed.stages["assembly"].text()


def test_stages_begin_where_the_text_stands() -> None:
    stages = networks.mlp().inspect(batch_size=2).stages
    for name in GRAPH_STAGES:
        assert next(iter(inspect_graph(parse(stages[name].text())).stages)) == name


def test_a_resumed_stage_is_not_computed_anew() -> None:
    """A graph that says it is simplified stays as it is, even where a rule would apply."""
    text = """graph "g" simplified {
      %0: f32[4] = input {label="x"}
      %1: f32[4] = reshape %0 {shape=[4]}
      output "y" = %1
    }"""
    assert "reshape" in inspect_graph(parse(text)).stages["fused"].text()
    assert "reshape" not in inspect_graph(parse(text.replace(" simplified", ""))).stages["fused"].text()


def test_kernels_keep_the_names_of_layers() -> None:
    stages = networks.mlp().inspect(batch_size=2).stages
    resumed = inspect_graph(parse(stages["gradient"].text()))
    assert [group.name for group in resumed.stages["fused"].graph.groups] == [
        group.name for group in stages["fused"].graph.groups
    ]
