"""Groups that a text says: those that fusion makes are taken, others are refused before a kernel trusts them."""

from __future__ import annotations

import pytest
from hypothesis import given

from gradloom.compiler import FusionError, parse
from gradloom.compiler.ir import Graph
from gradloom.compiler.passes.groups import check_groups
from gradloom.compiler.pipeline import Options, lower
from gradloom.testing import graphs
from op_cases import CASES, OpCase

INPUTS = """graph "g" fused {
  %0: f32[8,4] = input {label="x"}
  %1: f32[4,8] = input {label="y"}
"""


def kernel(kind: str, *nodes: str, results: str = "", name: str = "k") -> str:
    return f'  kernel "{name}" {kind} {{\n' + "".join(f"    {node}\n" for node in nodes) + f"  }} -> {results}\n"


def text(*kernels: str, output: str) -> str:
    return INPUTS + "".join(kernels) + f'  output "z" = {output}\n}}\n'


EXP, TURNED = "%2: f32[8,4] = exp %0", "%3: f32[4,8] = transpose %2 {permutation=[1, 0]}"
PRODUCT, SUM = "%2: f32[8,8] = matmul %0 %1", "%2: f32[8] = sum %0 {axes=[1]}"
COLUMNS = "%2: f32[4] = sum %0 {axes=[0]}"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (text(kernel("quick", EXP, results="%2"), output="%2"), "one of the kinds map, reduce, .* Received: quick"),
        (text(kernel("map", EXP, TURNED, results="%2 %3"), output="%3"), r"results of one shape.* \(4, 8\)"),
        (text(kernel("map", EXP, results="%2 %2"), output="%2"), "results among its nodes. Received: %2, %2"),
        (text(kernel("map", EXP, results="%0"), output="%0"), "results among its nodes. Received: %0"),
        (text(kernel("map", EXP), output="%0"), "results among its nodes"),
        (text(kernel("map", results="%0"), output="%0"), "one or more nodes in ascending order. Received: 0"),
        (text(kernel("map", EXP, EXP, results="%2"), output="%2"), "ascending order. Received: 2 nodes"),
        (text(kernel("map", TURNED, EXP, results="%3"), output="%3"), "ascending order"),
        (text(kernel("map", EXP, results="%2") * 2, output="%2"), "results that no other kernel has. Received: %2"),
        (
            text(f"  {EXP}\n", kernel("map", "%3: f32[8,4] = sign %0", results="%3"), output="%2"),
            "output 'z': Expected the result of a kernel. Received: %2",
        ),
        (text(f"  {EXP}\n", kernel("map", TURNED, results="%3"), output="%3"), "it or another kernel computes"),
        (text(kernel("map", PRODUCT, results="%2"), output="%2"), "kind map is built. Received: matmul"),
        (text(kernel("contraction", EXP, results="%2"), output="%2"), "contraction is built. Received: none"),
        (text(kernel("reduce", PRODUCT, results="%2"), output="%2"), "reduce is built. Received: matmul"),
        (
            text(kernel("contraction", PRODUCT, "%3: f32[8,8] = matmul %2 %2", results="%3"), output="%3"),
            "Received: matmul, matmul",
        ),
        (
            text(
                kernel("contraction", "%2: f32[8,4] = exp %0", PRODUCT.replace("%2", "%3"), results="%2 %3"),
                output="%3",
            ),
            r"results of shape \(8, 8\)",
        ),
        (
            text(
                kernel("contraction", PRODUCT, "%3: f32[8,8] = transpose %2 {permutation=[1, 0]}", results="%3"),
                output="%3",
            ),
            "%2: .* is read at the position at which it is computed",
        ),
        (text(kernel("rows", COLUMNS, results="%2"), output="%2"), r"kind reduce for the axes \(0,\). Received: rows"),
        (text(kernel("reduce", SUM, results="%2"), output="%2"), r"kind rows for the axes \(1,\). Received: reduce"),
        (
            text(kernel("rows", SUM, "%3: f32[4] = sum %1 {axes=[1]}", results="%2 %3"), output="%3"),
            "Received: others beside them",
        ),
        (
            text(kernel("rows", "%2: f32[4,8] = exp %1", SUM.replace("%2", "%3"), results="%2 %3"), output="%3"),
            r"results of shape \(8,\)",
        ),
        (
            text(
                kernel(
                    "reduce", COLUMNS, "%3: f32[8,4] = multiply %0 %2", "%4: f32[4] = sum %3 {axes=[0]}", results="%4"
                ),
                output="%4",
            ),
            "operands that need no other result of it",
        ),
        (
            text(
                kernel("map", EXP, "%4: f32[4,8] = exp %3", results="%4", name="a"),
                kernel("map", "%3: f32[4,8] = transpose %2 {permutation=[1, 0]}", results="%3", name="b"),
                output="%4",
            ),
            "it or another kernel computes. Received: %2",
        ),
    ],
)
def test_what_no_kernel_can_be_made_of_is_refused(wrong: str, message: str) -> None:
    with pytest.raises(FusionError, match=message):
        _ = lower(parse(wrong)).fused


def test_chains_that_are_too_deep_are_refused() -> None:
    chain = [f"%{n}: f32[8,4] = exp %{n - 1 if n > 2 else 0}" for n in range(2, 52)]
    with pytest.raises(FusionError, match="chains of at most 48 nodes. Received: one of 50 nodes"):
        check_groups(parse(text(kernel("map", *chain, results="%51"), output="%51")))


def test_kernels_that_need_one_another_are_refused() -> None:
    circle = text(
        kernel("map", EXP, "%4: f32[8,4] = negative %3", results="%2 %4", name="a"),
        kernel("map", "%3: f32[8,4] = exp %2", results="%3", name="b"),
        output="%4",
    )
    with pytest.raises(FusionError, match="do not need one another in a circle"):
        _ = lower(parse(circle)).fused


def fused_in_every_way(graph: Graph) -> None:
    for options in (Options(), Options(simplify=False), Options(simplify=False, fuse=False)):
        check_groups(lower(graph, options).fused)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_fusion_makes_of_an_op_is_taken(case: OpCase) -> None:
    fused_in_every_way(case.graph())


@given(graphs(20))
def test_what_fusion_makes_is_taken(case: tuple[Graph, object]) -> None:
    fused_in_every_way(case[0])


def test_what_a_text_says_but_nothing_needs_is_left_out() -> None:
    unneeded = text(kernel("map", EXP, results="%2"), kernel("map", TURNED, results="%3", name="dead"), output="%2")
    graph = parse(unneeded)
    copy, _ = graph.rebuild()
    assert [group.name for group in copy.groups] == ["k"]
    assert copy == graph
