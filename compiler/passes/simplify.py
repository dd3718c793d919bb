"""Simplification: the rewrite rules that make a graph smaller and its layouts plainer, applied until none fits."""

from __future__ import annotations

from gradloom.compiler.ir import Graph
from gradloom.compiler.passes import arithmetic_rules, convolution_rules, fold, movement_rules, reduction_rules
from gradloom.compiler.passes.rewrite import Rule, rewrite

# Transposes of matmuls come before the rules that would make a reshape of a transpose of unit axes.
RULES: tuple[Rule, ...] = (
    *fold.RULES,
    *arithmetic_rules.RULES,
    *reduction_rules.RULES,
    *movement_rules.RULES,
    *convolution_rules.RULES,
)
"""All rules, in the order in which each node is offered to them."""


def simplify(graph: Graph) -> Graph:
    """Return the simplified graph; `rewrite(graph, RULES)` tells as well which rules applied where."""
    return rewrite(graph, RULES).graph
