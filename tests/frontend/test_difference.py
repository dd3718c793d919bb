"""Differences between stages: only what changed, with the rules that did it."""

from __future__ import annotations

import pytest

import gradloom as gl
import networks
from gradloom.compiler import parse
from gradloom.compiler.ir import Constant, Input
from gradloom.compiler.passes.rewrite import rewrite
from gradloom.compiler.passes.simplify import RULES
from gradloom.inspection import inspect_graph

TEXT = """
graph "g" forward {
  %0: f32[4] = input {label="x"}
  %1: f32[] = constant {value=1.0}
  %2: f32[4] = multiply %0 %1
  %3: f32[4] = exp %2
  %4: f32[4] = tanh %3
  output "y" = %4
}
"""


def test_a_rule_is_named_where_it_applied_and_nowhere_else() -> None:
    difference = inspect_graph(parse(TEXT)).diff("forward", "simplified")
    gone = {value.op.name for change in difference.changes for value in change.before}
    assert gone == {"constant", "multiply"}
    (product,) = [change for change in difference.changes if any(v.op.name == "multiply" for v in change.before)]
    assert product.rules == ("multiply_one",) and not product.after
    assert difference.unchanged == 3
    text = difference.text()
    assert "- %2: f32[4] = multiply %0 %1" in text and "exp" not in text and "tanh" not in text
    assert "multiply_one" in difference._repr_html_()


def test_nothing_differs_where_nothing_was_done() -> None:
    stages = inspect_graph(parse(TEXT.replace("multiply %0 %1", "add %0 %1")))
    difference = stages.diff("forward", "simplified")
    assert difference.changes == () and difference.unchanged == 5
    assert stages.diff("simplified", "simplified").changes == ()


@pytest.mark.parametrize("make", [networks.mlp, networks.branched, networks.darknet], ids=lambda make: make.__name__)
def test_changes_and_the_unchanged_make_up_both_graphs(make: object) -> None:
    """What was is gone or still there, and what is came or was there: counted on both sides."""
    inspection = make().inspect(batch_size=2)  # type: ignore[operator]
    names = ("gradient", "simplified")
    before, after = (inspection.stages[name].graph for name in names)
    difference = inspection.diff(*names)
    gone = [value for change in difference.changes for value in change.before]
    come = [value for change in difference.changes for value in change.after]
    assert len(set(gone)) == len(gone) and len(set(come)) == len(come)
    assert len(come) + difference.unchanged == len(after.live())
    kept = set(before.live()) - set(gone)
    # Several nodes may have become one.
    assert len(kept) >= difference.unchanged
    lines = after.live()
    for value in kept:
        (number,) = inspection.became("gradient", value)
        twin = next(node for node in lines if node.number == number)
        assert (twin.op, twin.type) == (value.op, value.type)


def test_all_rules_that_applied_are_named() -> None:
    inspection = networks.mlp().inspect(batch_size=2)
    named = {rule for change in inspection.diff("gradient", "simplified").changes for rule in change.rules}
    alone = {firing.rule for firing in rewrite(inspection.stages["gradient"].graph, RULES).firings}  # type: ignore[attr-defined]
    assert alone <= named and "choose_layouts" in named


def test_what_prediction_folds_and_prepares_is_said() -> None:
    inspection = networks.convolutional().inspect(batch_size=2, mode="predict")
    changes = inspection.diff("forward", "simplified").changes
    rules = {rule for change in changes for rule in change.rules}
    assert {"fold_into_weights", "split_prepare", "computed once per set of weights"} <= rules


def test_algorithms_are_said() -> None:
    x = gl.Input((32, 32, 32))
    model = gl.Model(x, gl.layers.Conv2D(64, 3, padding="same")(x))
    changes = model.inspect(batch_size=1, mode="predict").diff("forward", "simplified").changes
    assert any("winograd_conv2d" in change.rules for change in changes)


def test_what_training_adds_is_put_together_by_what_it_is_for() -> None:
    inspection = networks.mlp().inspect(batch_size=2)
    changes = inspection.diff("forward", "gradient").changes
    reasons = [change.rules for change in changes]
    assert len(set(reasons)) == len(reasons)
    assert {("adam",), ("accuracy",), ("gradient of dense",), ("gradient of loss",)} <= set(reasons)
    graph = inspection.stages["gradient"].graph  # type: ignore[attr-defined]
    added = {value for change in changes for value in change.after}
    assert len(added) == len(graph.live()) - len(inspection.stages["forward"].graph.live())  # type: ignore[attr-defined]


def test_fusion_changes_no_node_and_makes_kernels() -> None:
    inspection = networks.mlp().inspect(batch_size=2)
    difference = inspection.diff("simplified", "fused")
    assert difference.unchanged == len(inspection.stages["fused"].graph.live())  # type: ignore[attr-defined]
    assert [change.kernel for change in difference.changes] == list(inspection.stages["fused"].graph.groups)  # type: ignore[attr-defined]
    whole = inspection.diff("gradient", "fused")
    assert {change.rules for change in whole.changes} > {("fuse",)}
    inside = {v for c in difference.changes for v in c.after if not isinstance(v.op, Input | Constant)}
    assert all(value.graph is inspection.stages["fused"].graph for value in inside)  # type: ignore[attr-defined]


def deep(count: int) -> gl.Model:
    layers = [gl.layers.Dense(4, activation="tanh", name=f"dense_{number}") for number in range(count)]
    model = gl.Sequential([gl.Input((4,)), *layers, gl.layers.Dense(2, name="last")], name="deep")
    model.compile("sgd", "mse")
    return model


def test_changes_of_one_kind_are_folded_and_all_of_them_can_be_had() -> None:
    inspection = deep(9).inspect(batch_size=2)
    for first, last in (("forward", "gradient"), ("gradient", "simplified"), ("simplified", "fused")):
        difference = inspection.diff(first, last)
        shown = difference.by_kind()
        # Kinds of more than three are together; each change is in one place, in order, and all are in the long text.
        assert sorted(map(id, (c for alike in shown for c in alike))) == sorted(map(id, difference.changes))
        assert all(len({change.kind for change in alike}) == 1 for alike in shown)
        assert len({alike[0].kind for alike in shown if len(alike) > 1}) == sum(len(alike) > 1 for alike in shown)
        whole = difference.text(folded=False)
        assert all(line in whole for change in difference.changes for line in change.lines())
        assert all(alike[0].title in difference.text() for alike in shown) and len(difference.text()) <= len(whole)
    text = inspection.diff("forward", "gradient").text()
    assert "new: gradient of dense_8; and 7 like it, in dense_8 … dense_1 (8 layers)" in text
    assert "gradient of dense_4" not in text and "gradient of last\n" in text
    assert "; and 7 like it" in inspection.diff("forward", "gradient")._repr_html_()


def test_what_is_folded_does_not_grow_with_the_network() -> None:
    short, long = (deep(count).inspect(batch_size=2).diff("simplified", "fused") for count in (18, 54))
    assert len(long.text(folded=False)) > 2 * len(short.text(folded=False))
    assert len(long.text().splitlines()) <= len(short.text().splitlines()) + 2


def test_few_alike_are_all_shown() -> None:
    difference = deep(4).inspect(batch_size=2).diff("forward", "gradient")
    assert all(len(alike) == 1 for alike in difference.by_kind())


def test_a_difference_is_a_line_where_it_is_an_object() -> None:
    difference = deep(9).inspect(batch_size=2).diff("gradient", "simplified")
    assert repr(difference) == f"<difference {str(difference).splitlines()[0]}>"


def test_wrong_stages_are_named() -> None:
    inspection = networks.mlp().inspect(batch_size=2)
    with pytest.raises(ValueError, match="graph stages forward, gradient, simplified, fused. Received: 'llvm'"):
        inspection.diff("fused", "llvm")
    with pytest.raises(ValueError, match=r"'simplifed' \(did you mean 'simplified'\?\)"):
        inspection.diff("gradient", "simplifed")
    with pytest.raises(ValueError, match="earlier stage first. Received: 'fused', 'gradient'"):
        inspection.diff("fused", "gradient")
