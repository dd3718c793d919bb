"""What stays the same from one prediction to the next: values that depend on parameters and literals alone."""

from __future__ import annotations

from gradloom.compiler.ir import Constant, Graph, Input, Value

FIXED_ROLES = ("parameter", "state", "captured", "hyperparameter")
"""The roles of inputs that stay the same from one prediction to the next."""


def changes_inputs(graph: Graph) -> bool:
    """Whether the graph writes onto its inputs, so that none of them is fixed."""
    return any(output.donor is not None for output in graph.outputs)


def fixed_values(graph: Graph) -> set[Value]:
    """The values that depend on parameters and literals alone: the same from one prediction to the next."""
    fixed: set[Value] = set()
    for value in graph.live():
        if isinstance(value.op, Input):
            known = value.op.role in FIXED_ROLES
        else:
            known = isinstance(value.op, Constant) or (bool(value.inputs) and fixed.issuperset(value.inputs))
        if known:
            fixed.add(value)
    return fixed


def is_fixed(value: Value) -> bool:
    """Whether one value is among those; of a graph still under construction, too, which has no outputs yet."""
    waiting, seen = [value], set()
    while waiting:
        source = waiting.pop()
        if source in seen:
            continue
        seen.add(source)
        if isinstance(source.op, Input):
            if source.op.role not in FIXED_ROLES:
                return False
        elif not source.inputs and not isinstance(source.op, Constant):
            return False
        waiting += source.inputs
    return True
