"""Inspection: which stages there are, that each is what it says, and that none is computed before it is asked for."""

from __future__ import annotations

from xml.etree import ElementTree

import networkx
import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler import parse, pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.inspection import GRAPH_STAGES, STAGES, GraphStage, inspect_graph

PREDICT_STAGES = [name for name in STAGES if name != "gradient"]


def small(compiled: bool = True) -> gl.Sequential:
    model = gl.Sequential(
        [gl.layers.Flatten(input_shape=(4, 4)), gl.layers.Dense(8, activation="relu"), gl.layers.Dense(3)], name="small"
    )
    if compiled:
        model.compile("sgd", gl.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("mode", "names"), [("train", list(STAGES)), ("evaluate", PREDICT_STAGES), ("predict", PREDICT_STAGES)]
)
def test_stages_come_in_order_and_all_have_text(mode: str, names: list[str]) -> None:
    inspection = small().inspect(batch_size=2, mode=mode)
    assert list(inspection.stages) == names
    for name, stage in inspection.stages.items():
        assert stage.text().strip(), name
        assert isinstance(stage, GraphStage) == (name in GRAPH_STAGES)


def test_graph_stages_print_parse_and_draw() -> None:
    for stage in small().inspect(batch_size=2).stages.values():
        if isinstance(stage, GraphStage):
            assert stage.text() == str(stage.graph)
            assert parse(stage.text()) == stage.graph
            assert stage.dot().startswith("digraph")
            assert isinstance(stage.networkx(), networkx.DiGraph)
            assert ElementTree.fromstring(stage.svg()).tag.endswith("svg")
            assert stage._repr_svg_() == stage.svg()


def test_each_stage_is_what_its_name_says() -> None:
    model = small()
    texts = {name: stage.text() for name, stage in model.inspect(batch_size=2).stages.items()}
    summary: list[str] = []
    model.summary(print_fn=summary.append)
    assert texts["layers"] == "\n".join(summary) + "\n"
    assert texts["forward"] == str(model.forward_graph(2))
    assert texts["gradient"] == str(model.train_graph(2))
    assert "transpose_a" not in texts["forward"] and "transpose_a=true" in texts["gradient"]
    assert "kernel " in texts["fused"] and "kernel " not in texts["simplified"]
    assert "for (" in texts["scheduled"]
    assert "arena" in texts["memory"]
    assert "define " in texts["llvm"]
    assert "ret" in texts["assembly"]


def test_batch_size_and_dtype_are_in_the_graph() -> None:
    model = small(compiled=False)
    for batch_size in (np.int64(7), 2**31 - 1):
        graph = model.inspect(batch_size, mode="predict").stages["fused"].graph  # type: ignore[attr-defined, arg-type]
        assert graph.outputs[0].value.shape == (batch_size, 3)
    graph = model.inspect(batch_size=7, mode="predict", dtype="uint8").stages["forward"].graph
    assert [str(value.type) for value in graph.inputs if value.op.label == "x"] == ["u8[7,4,4]"]
    assert model.inspect(mode="predict").stages["forward"].graph.outputs[0].value.shape == (32, 3)


def test_nothing_is_lowered_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = []
    lower = pipeline.lower
    monkeypatch.setattr(pipeline, "lower", lambda graph, options: lowered.append(graph.name) or lower(graph, options))
    inspection = small().inspect()
    inspection.stages["forward"].text()
    inspection.stages["gradient"].svg()
    assert lowered == []
    inspection.stages["fused"].text()
    inspection.stages["memory"].text()
    assert lowered == ["train"]


def normalized() -> gl.Model:
    x = gl.Input((6, 6, 3))
    y = gl.layers.Conv2D(4, 3, use_bias=False, name="convolution")(x)
    return gl.Model(x, gl.layers.LeakyReLU(0.1)(gl.layers.BatchNormalization(name="normal")(y)))


def test_a_prediction_is_shown_in_the_two_programs_that_are_run() -> None:
    """What the graph stages show is what `predict` computes: the prepare program's results go into the other one."""
    model, rng = normalized(), np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    inspection = model.inspect(batch_size=2, mode="predict")
    prepare = inspection.prepare
    assert prepare is not None and prepare is inspection.prepare and prepare.prepare is None
    assert inspection.stages["forward"].text() == str(model.predict_graph(2))
    assert list(prepare.stages) == list(inspection.stages)[1:]
    assert "convolution/kernel" in prepare.stages["fused"].text()
    assert "convolution/kernel" not in inspection.stages["fused"].text()

    arrays = {variable.path: variable.value for variable in model.weights}
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    for stage in ("simplified", "fused"):
        prepared = interpret(prepare.stages[stage].graph, arrays)
        result = interpret(inspection.stages[stage].graph, {"x": x, **prepared})
        np.testing.assert_allclose(result["predictions"], model.predict(x, verbose=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_a_step_that_writes_onto_its_inputs_prepares_nothing(mode: str) -> None:
    model = normalized()
    model.compile("sgd", "mean_squared_error")
    assert model.inspect(batch_size=2, mode=mode).prepare is None


def test_a_prediction_without_work_on_weights_alone_prepares_nothing() -> None:
    assert small(compiled=False).inspect(mode="predict").prepare is None


def test_decisions_of_fusion_come_with_reasons() -> None:
    decisions = small().inspect(mode="predict").decisions
    assert decisions and all(decision.reason for decision in decisions)


def test_prediction_needs_no_compile_and_training_does() -> None:
    model = small(compiled=False)
    assert model.inspect(mode="predict").stages["fused"].text()
    for mode in ("train", "evaluate"):
        with pytest.raises(ValueError, match="compile"):
            model.inspect(mode=mode)


def test_wrong_arguments_are_named() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"train, evaluate, predict.*mode='trian' \(did you mean 'train'\?\)"):
        model.inspect(mode="trian")
    for batch_size in (0, -1, True, 2.0, "2", None):
        with pytest.raises(ValueError, match=f"positive integer. Received: batch_size={batch_size!r}"):
            model.inspect(batch_size=batch_size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most 2,147,483,647. Received: batch_size=1,099,511,627,776"):
        model.inspect(batch_size=2**40)
    with pytest.raises(ValueError, match=r"layers, forward,.*'fusd' \(did you mean 'fused'\?\)"):
        model.inspect().stage("fusd")
    with pytest.raises(ValueError, match="input"):
        gl.Sequential([gl.layers.Dense(3)]).inspect(mode="predict")
    assert repr(model.inspect(mode="predict")).startswith(
        "<inspection of 'small' (mode 'predict', batch size 32): layers → "
    )


def test_inspecting_changes_no_weights() -> None:
    model = small()
    before = [np.array(weight) for weight in model.get_weights()]
    for stage in model.inspect(batch_size=2).stages.values():
        stage.text()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_functions_are_inspected_too() -> None:
    inspection = gl.inspect(lambda x: gl.ops.sum(gl.ops.exp(x)), gl.TensorSpec((3, 4), "float32"))
    assert list(inspection.stages) == [name for name in STAGES if name not in ("layers", "gradient")]
    assert "exp %0" in inspection.stages["forward"].text()
    assert "define " in inspection.stages["llvm"].text()


def test_a_fused_graph_goes_on_from_there() -> None:
    text = small().inspect(mode="predict").stages["fused"].text()
    inspection = inspect_graph(parse(text))
    assert list(inspection.stages) == ["fused", "scheduled", "memory", "llvm", "assembly"]
    assert parse(inspection.stages["fused"].text()) == parse(text)
