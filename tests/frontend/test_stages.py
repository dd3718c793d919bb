"""Stages: their networks, drawings and JSON agree with the graph, the schedule and the machine code they show."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import networkx
import pytest

import gradloom as gl
import networks
from gradloom.compiler.ir import Input
from gradloom.compiler.schedule import Scheduler
from gradloom.inspection import GRAPH_STAGES, STAGES, Inspection


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return networks.mlp().inspect(batch_size=4)


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_all_forms(inspection: Inspection, name: str) -> None:
    stage = inspection.stages[name]
    shown = stage.json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["stage"] == name and shown["nodes"]
    ids = [node["id"] for node in shown["nodes"]]
    assert len(set(ids)) == len(ids)
    assert {edge[end] for edge in shown["edges"] for end in ("source", "target")} <= set(ids)
    network = stage.networkx()
    assert isinstance(network, networkx.DiGraph) and set(network) == set(ids)
    assert stage.dot().startswith("digraph")
    assert ElementTree.fromstring(stage.svg()).tag.endswith("svg")
    assert stage._repr_svg_() == stage.svg() and stage.svg() in stage._repr_html_()


@pytest.mark.parametrize("name", GRAPH_STAGES)
def test_json_of_graphs_says_what_the_graph_says(inspection: Inspection, name: str) -> None:
    graph, shown = inspection.stages[name].graph, inspection.stages[name].json()  # type: ignore[attr-defined]
    for value, node in zip(graph.live(), shown["nodes"], strict=True):
        origins = graph.provenance[value]
        assert (node["number"], node["op"], node["type"]) == (value.number, value.op.name, str(value.type))
        assert node["inputs"] == [operand.number for operand in value.inputs]
        assert set(node["layers"]) == {origin.layer for origin in origins}
        assert set(node["sources"]) == {origin.source for origin in origins}
        assert set(node["forward"]) == {origin.forward for origin in origins} - {None}
        assert node["text"] in inspection.stages[name].text()
        assert node["groups"] == [at for at, group in enumerate(graph.groups) if value in group.members]
        assert node["role"] == (value.op.role if isinstance(value.op, Input) else "")
        assert all(isinstance(text, str) for text in node["attributes"].values())
    assert [group["members"] for group in shown["groups"]] == [[m.number for m in g.members] for g in graph.groups]
    assert [output["node"] for output in shown["outputs"]] == [output.value.number for output in graph.outputs]
    donors = [None if output.donor is None else output.donor.number for output in graph.outputs]
    assert [output["donor"] for output in shown["outputs"]] == donors


def test_kernels_read_and_write_what_their_text_says(inspection: Inspection) -> None:
    shown = inspection.stages["scheduled"].json()
    kernels = [node for node in shown["nodes"] if "function" in node]
    buffers = {node["id"]: node for node in shown["nodes"] if "function" not in node}
    assert [kernel["call"] for kernel in sorted(kernels, key=lambda k: k["call"])] == list(range(len(kernels)))
    for kernel in kernels:
        head = shown["codes"][kernel["function"]].split("{")[0]
        written = len(re.findall(r"\bout\b", head))
        assert written == len(kernel["writes"])
        assert kernel["function"] in head and set(kernel["reads"]) | set(kernel["writes"]) <= set(buffers)
    changed = {buffer["name"] for node, buffer in buffers.items() if node.endswith(" after")}
    assert changed == {output.name for output in inspection.stages["fused"].graph.outputs}  # type: ignore[attr-defined]
    assert networkx.is_directed_acyclic_graph(inspection.stages["scheduled"].networkx())


def test_memory_shows_the_plan(inspection: Inspection) -> None:
    shown = inspection.stages["memory"].json()
    buffers = {node["name"]: node for node in shown["nodes"] if node.get("place") == "arena"}
    text = inspection.stages["memory"].text()
    for name, node in buffers.items():
        assert f"{name}: {node['bytes']} bytes at {node['offset']}, calls {node['first']}..{node['last']}" in text
    assert len(buffers) == text.count(" bytes at ")
    assert f"arena {shown['arena_bytes']} bytes" in text


@pytest.mark.parametrize("name", ["llvm", "assembly"])
def test_functions_are_those_that_the_schedule_calls(inspection: Inspection, name: str) -> None:
    calls = [node["function"] for node in inspection.stages["scheduled"].json()["nodes"] if "function" in node]
    shown = inspection.stages[name].json()
    functions = {node["id"]: node for node in shown["nodes"]}
    assert set(calls) <= set(functions) and "gradloom_launch" in functions
    listed = [function for function in functions if function in calls]
    assert listed == list(dict.fromkeys(calls))
    text = inspection.stages[name].text()
    for node in functions.values():
        assert node["code"].rstrip("\n") in text and node["instructions"] > 0
    callers = {(edge["source"], edge["target"]) for edge in shown["edges"] if edge["kind"] == "calls"}
    assert {target for _, target in callers} >= set(calls)


def test_instructions_are_counted() -> None:
    from gradloom.inspection.machine_code import assembly_functions, llvm_functions

    llvm = "define void @f(ptr %x) {\nentry:\n  %a = load i64, ptr %x\n  ; no\n  call void @g()\n  ret void\n}\n"
    llvm += "define void @g() {\n  ret void\n}\n"
    functions = llvm_functions(llvm)
    assert {name: function.instructions for name, function in functions.items()} == {"f": 3, "g": 1}
    text = "\t.type\tf,@function\nf:\n\t.cfi_startproc\n\tmovq\t%rax, %rbx\n.LBB0_1:\n\tretq\n\t.size\tf, 2\n\tnop\n"
    assert assembly_functions(text)["f"].instructions == 2


def test_nested_models_can_be_expanded() -> None:
    model = networks.branched()
    stage: Any = model.inspect(batch_size=2, mode="predict").stages["layers"]
    closed, opened = stage.networkx(), stage.networkx(expand_nested=True)
    assert "inner" in closed and "inner" not in opened
    assert {"inner/cut", "inner/twice"} <= set(opened) and "inner/inner_input" not in opened
    assert {node for node, data in opened.nodes(data=True) if data["cluster"]} == {"inner/cut", "inner/twice"}
    assert list(opened.successors("shared")) == ["inner/cut"] and list(opened.successors("inner/twice")) == ["both"]
    assert set(closed.predecessors("both")) == {"inner", "shared#2"}
    nodes = {node["id"]: node for node in stage.json()["nodes"]}
    inside = nodes["inner"]["nested"]
    assert [node["id"] for node in inside["nodes"]] == ["inner_input", "cut", "twice"]
    assert nodes["shared"]["nested"] is None and nodes["shared"]["parameters"] == 6 * 4 + 4
    assert nodes["shared"]["source"].startswith(networks.__file__)
    json.dumps(stage.json())


def test_nodes_are_followed_into_kernels_and_functions(inspection: Inspection) -> None:
    """The matmul of the first layer, from the layer to its machine code."""
    forward = {value.number: value for value in inspection.stages["forward"].graph.live()}  # type: ignore[attr-defined]
    (matmul,) = [n for n in inspection.became("layers", "dense") if forward[n].op.name == "matmul"]
    followed: list[Any] = [matmul]
    for stage in ("forward", "gradient", "simplified", "fused", "scheduled", "memory", "llvm"):
        followed = [after for node in followed for after in inspection.became(stage, node)]
        assert followed, stage
        if stage in ("forward", "gradient", "simplified"):
            following = GRAPH_STAGES[GRAPH_STAGES.index(stage) + 1]
            graph = inspection.stages[following].graph  # type: ignore[attr-defined]
            assert [graph.values[node].op.name for node in followed] == ["matmul"]
    assert followed == ["k0_dense_matmul_add_maximum"]


@pytest.mark.parametrize("node", [99999, -1, None, "nothing", [1]])
@pytest.mark.parametrize("stage", STAGES)
def test_nodes_that_there_are_not_are_refused(inspection: Inspection, stage: str, node: Any) -> None:
    with pytest.raises(ValueError, match=f"id of a node of {stage}. Received: {re.escape(repr(node))}"):
        inspection.became(stage, node)


def test_json_of_everything_agrees_with_single_questions(inspection: Inspection) -> None:
    shown = inspection.json()
    assert json.loads(json.dumps(shown)) == shown
    assert [stage["stage"] for stage in shown["stages"]] == list(STAGES)
    for stage in shown["stages"]:
        for node in stage["nodes"]:
            became = shown["became"][stage["stage"]].get(str(node["id"]), [])
            assert became == inspection.became(stage["stage"], node["id"])


@pytest.mark.parametrize("network", [networks.mlp, networks.convolutional], ids=lambda network: network.__name__)
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_what_nodes_became_is_there(network: Callable[[], gl.Model], mode: str) -> None:
    shown = network().inspect(batch_size=2, mode=mode).json()
    for stage, following in itertools.pairwise(shown["stages"]):
        known = {node["id"] for node in following["nodes"]}
        for node, became in shown["became"][stage["stage"]].items():
            assert known.issuperset(became), f"{node} of {stage['stage']}"


def test_a_call_without_intermediate_results_is_followed_too() -> None:
    inspection = gl.inspect(gl.ops.exp, gl.TensorSpec((3, 4), "float32"))
    assert not inspection.memory.buffers
    assert inspection.became("scheduled", 0) == [0] and inspection.became("memory", 0) == ["k0_exp"]


@pytest.mark.parametrize("name", ["scheduled", "memory", "llvm"])
def test_a_stage_that_was_interrupted_is_made_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While kernels are lowered, which the text of each of these stages waits for."""
    taken, inspection = Scheduler._taken, gl.inspect(gl.ops.exp, gl.TensorSpec((3, 4), "float32"))

    def interrupted(self: Scheduler) -> Any:
        if self.outline:
            return taken(self)
        monkeypatch.setattr(Scheduler, "_taken", taken)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scheduler, "_taken", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspection.stages[name].text()
    assert inspection.stages[name].text()


def test_notebooks_show_the_first_stages(inspection: Inspection) -> None:
    page = inspection._repr_html_()
    assert "<b>layers</b>" in page and "fused" in page and "<script" not in page


def test_predictions_are_followed_into_what_is_prepared() -> None:
    """A weight that is folded goes; the input that stands for it has come in its place."""
    inspection = networks.convolutional().inspect(batch_size=2, mode="predict")
    graph = inspection.stages["forward"].graph  # type: ignore[attr-defined]
    became = {v.op.label: inspection.became("forward", v) for v in graph.inputs}
    assert became["convolution/kernel"] == [] and became["x"] != []
    (convolution,) = [v for v in graph.live() if v.op.name == "conv2d"]
    (after,) = inspection.became("forward", convolution)
    assert "conv2d" in inspection.stages["simplified"].graph.values[after].op.name  # type: ignore[attr-defined]


def test_functions_have_no_layers() -> None:
    inspection = gl.inspect(lambda x: gl.ops.sum(gl.ops.exp(x)), gl.TensorSpec((3, 4), "float32"))
    assert "layers" not in inspection.json()["became"]
