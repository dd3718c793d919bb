"""Checks of groups that a text says: that kernels can be made of them, each of its kind, and be run one after another.

Fusion makes no others. Kernels trust them: a result of another shape would be written beyond its memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from gradloom.compiler.errors import FusionError
from gradloom.compiler.ir import Constant, Graph, Group, Input, Value
from gradloom.compiler.ops.base import Contraction, Inline, Reduction, Scatter, Windowed
from gradloom.compiler.passes.fuse import DEEPEST, DEEPEST_PROLOGUE
from gradloom.compiler.passes.reading import Labels, labels_below, reads, storage

DEEPEST_KERNEL = DEEPEST + DEEPEST_PROLOGUE
"""What fusion makes at most: a chain on top of one that it had counted as memory, and that is computed anew instead."""

ROOTS: dict[str, type[Contraction] | type[Reduction] | type[Scatter] | None] = {
    "map": None,
    "reduce": Reduction,
    "rows": Reduction,
    "contraction": Contraction,
    "scatter": Scatter,
}
"""The kinds of kernels, and of the nodes that each is built around; everything else is computed in place."""


def check_groups(graph: Graph) -> None:
    """Raise `FusionError`, naming the kernel, unless the graph's groups can compute all that its outputs need.

    A graph without groups has not been divided yet.
    """
    if not graph.groups:
        return
    makers: dict[Value, Group] = {}
    for group in graph.groups:
        _check_members(group)
        for value in group.results:
            if value in makers:
                raise _error(group, f"results that no other kernel has. Received: %{value.number} a second time")
            makers[value] = group
    needs: dict[Group, set[Group]] = {}
    for group in graph.groups:
        read = list(_reads(group))
        for value in read:
            if value not in makers and not isinstance(value.op, Input | Constant):
                raise _error(group, f"operands that it or another kernel computes. Received: {value!r}")
        _check_kind(group)
        needs[group] = {makers[value] for value in read if value in makers}
    for output in graph.outputs:
        value = storage(output.value)
        if value not in makers and not isinstance(value.op, Input | Constant):
            raise FusionError(f"output {output.name!r}: Expected the result of a kernel. Received: {value!r}")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise _error(error.args[1][0], "kernels that do not need one another in a circle") from None


def _error(group: Group, expected: str) -> FusionError:
    return FusionError(f"kernel {group.name!r}: Expected {expected}")


def _reads(group: Group) -> Iterator[Value]:
    """What must lie in memory before the kernel runs."""
    members = set(group.members)
    for member in group.members:
        for operand in member.inputs:
            if operand not in members or (isinstance(member.op, Windowed) and operand is member.inputs[0]):
                yield storage(operand)


def _check_members(group: Group) -> None:
    numbers = [member.number for member in group.members]
    if not numbers or numbers != sorted(set(numbers)):
        raise _error(group, f"one or more nodes in ascending order. Received: {len(numbers)} nodes")
    depth: dict[Value, int] = {}
    for member in group.members:
        depth[member] = 1 + max((depth.get(operand, 0) for operand in reads(member)), default=0)
    deepest = max(depth.values())
    if deepest > DEEPEST_KERNEL:
        raise _error(group, f"chains of at most {DEEPEST_KERNEL} nodes. Received: one of {deepest} nodes")
    if not group.results or len(set(group.results)) < len(group.results) or not {*group.results} <= {*group.members}:
        raise _error(group, f"results among its nodes. Received: {', '.join(f'%{v.number}' for v in group.results)}")


def _check_kind(group: Group) -> None:
    if group.kind not in ROOTS:
        raise _error(group, f"one of the kinds {', '.join(ROOTS)}. Received: {group.kind}")
    roots = [member for member in group.members if not isinstance(member.op, Inline)]
    kind = ROOTS[group.kind]
    several = kind in (None, Reduction)
    if (
        any(kind is None or not isinstance(root.op, kind) for root in roots)
        or (kind is not None and not roots)
        or (len(roots) > 1 and not several)
    ):
        listed = ", ".join(root.op.name for root in roots) or "none"
        raise _error(group, f"the nodes around which a kernel of kind {group.kind} is built. Received: {listed}")
    shapes = {value.shape for value in group.results}
    if kind is None and len(shapes) > 1:
        raise _error(group, f"results of one shape. Received: {', '.join(map(str, shapes))}")
    if kind is Scatter and group.results != (roots[0],):
        raise _error(group, "a scatter as its only result")
    if kind is Contraction and shapes != {roots[0].shape}:
        raise _error(group, f"results of shape {roots[0].shape}. Received: {', '.join(map(str, shapes))}")
    if kind is Reduction:
        _check_reductions(group, roots)
    if kind is not None:
        _check_places(group, set(roots))


def _check_reductions(group: Group, roots: list[Value]) -> None:
    """Reductions of the same positions, over the trailing axes or so that the last one is kept."""
    domain, axes = roots[0].inputs[0].shape, roots[0].op.axes  # type: ignore[attr-defined]
    kept = len(domain) - len(axes)
    if any((root.inputs[0].shape, root.op.axes) != (domain, axes) for root in roots):  # type: ignore[attr-defined]
        raise _error(group, f"reductions of shape {domain} over the axes {axes}. Received: others beside them")
    trailing = axes == tuple(range(kept, len(domain)))
    if trailing != (group.kind == "rows"):
        raise _error(group, f"kind {'rows' if trailing else 'reduce'} for the axes {axes}. Received: {group.kind}")
    for value in group.results:
        wide = trailing and value.shape == domain
        narrow = value.shape[:kept] == roots[0].shape and all(size == 1 for size in value.shape[kept:])
        if not (wide or narrow) or (not trailing and value.shape != roots[0].shape):
            raise _error(group, f"results of shape {roots[0].shape}. Received: {value!r}")


def _check_places(group: Group, roots: set[Value]) -> None:
    """What depends on a root must be read where the root's result is at hand: at the reader's own position."""
    dependent, seen = set[Value](), set[tuple[Value, Labels]]()
    for member in group.members:
        if member in roots or not dependent.isdisjoint(member.inputs):
            dependent.add(member)
    waiting: list[tuple[Value, Labels]] = [(value, tuple(range(value.type.rank))) for value in group.results]
    for root in roots:
        for operand in root.inputs:
            if operand in dependent and group.kind != "rows":
                raise _error(group, f"operands that need no other result of it. Received: {operand!r}")
            waiting.append((operand, tuple(range(operand.type.rank))))
    while waiting:
        value, labels = waiting.pop()
        if (value, labels) in seen or value not in dependent:
            continue
        seen.add((value, labels))
        if value not in roots:
            waiting += [(operand, labels_below(value, operand, labels)) for operand in value.inputs]
        elif any(
            label != axis and size != 1 for axis, (label, size) in enumerate(zip(labels, value.shape, strict=True))
        ):
            raise _error(group, f"that {value!r} is read at the position at which it is computed")
