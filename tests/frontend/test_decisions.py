"""Why: the decisions of fusion that touch a layer, a weight or an op."""

from __future__ import annotations

import pytest

import networks
from gradloom.inspection import Inspection


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return networks.mlp().inspect(batch_size=2)


def test_a_weight_is_asked_about_by_its_path(inspection: Inspection) -> None:
    why = inspection.why("dense_1/bias")
    ops = {value.op.name for value in why.nodes}
    assert "input" in ops and "add" in ops and "matmul" not in ops
    assert any(decision.node.op.name == "add" and decision.partner.op.name == "matmul" for decision in why.made)
    assert "dense_1/matmul+add" in why.kernels
    assert all(decision.reason in why.text() for decision in why.decisions)
    assert set(why.made) | set(why.refused) == set(why.decisions)


def test_a_path_is_a_prefix_by_whole_names(inspection: Inspection) -> None:
    graph = inspection.stages["fused"].graph  # type: ignore[attr-defined]
    paths = {o.layer for value in inspection.why("dense").nodes for o in graph.provenance[value]}
    assert "dense" in paths
    dense_1 = [v for v in inspection.why("dense").nodes if {o.layer for o in graph.provenance[v]} == {"dense_1"}]
    assert not dense_1


def test_ops_and_nodes_are_asked_about_too(inspection: Inspection) -> None:
    why = inspection.why("matmul")
    assert {value.op.name for value in why.nodes} == {"matmul"} and why.rules["matmul_of_transpose"] >= 1
    (first, *_) = why.nodes
    assert inspection.why(f"%{first.number}").nodes == (first,)
    assert inspection.why(f"%{first.number}").text().startswith(f"%{first.number}: 1 node in 1 kernel\n")


def test_every_decision_is_found_by_what_it_is_about(inspection: Inspection) -> None:
    for decision in inspection.decisions:
        assert decision in inspection.why(f"%{decision.node.number}").decisions
        assert decision in inspection.why(f"%{decision.partner.number}").decisions


def test_a_weight_inside_of_a_nested_model_has_its_path_from_outside_too() -> None:
    inspection = networks.branched().inspect(batch_size=2)
    whole = inspection.why("inner/twice/kernel")
    assert "input" in {value.op.name for value in whole.nodes} and whole.nodes == inspection.why("twice/kernel").nodes
    assert set(whole.nodes) < set(inspection.why("inner").nodes)
    with pytest.raises(ValueError, match="did you mean 'inner/twice/kernel'"):
        inspection.why("inner/twice/kernl")


@pytest.mark.parametrize("target", [None, 3, ["dense"]])
def test_what_is_no_name_is_refused(inspection: Inspection, target: object) -> None:
    with pytest.raises(ValueError, match="Expected the path of a layer or weight, the name of an op"):
        inspection.why(target)  # type: ignore[arg-type]


def test_why_is_a_line_where_it_is_an_object(inspection: Inspection) -> None:
    why = inspection.why("dense_1/bias")
    assert repr(why).startswith("<why dense_1/bias: ") and "\n" not in repr(why) and len(repr(why)) < 120
    assert f"{len(why.made)} decisions to fuse" in repr(why) and str(why) == why.text()


def test_what_there_is_not_is_named_with_near_ones(inspection: Inspection) -> None:
    with pytest.raises(ValueError, match=r"Received: 'dense_1/bais' \(did you mean 'dense_1/bias'"):
        inspection.why("dense_1/bais")
    with pytest.raises(ValueError, match=r"Received: '%9999'"):
        inspection.why("%9999")
