"""Layout choice: parameters whose short last axis would leave vector lanes empty are kept transposed by the program.

The last layer of a classifier has weights such as [128,10]. Computed in that layout, products with them have 10 useful
lanes in a vector of 16, forward and backward; as [10,128] the long axis lies in the lanes. So the program asks for the
parameter transposed, and with it for everything of that shape that is combined with it element by element: its
gradient, its update, and the optimizer's state. Callers never see it: an `Input` says by its `permutation` how its
array is stored.
"""

from __future__ import annotations

from collections.abc import Iterable

from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.ops.base import Elementwise
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.movement import Transpose
from gradloom.compiler.passes.movement_rules import transposed_operand
from gradloom.compiler.passes.rewrite import Firing, Rewritten, rewrite, unchanged
from gradloom.compiler.passes.simplify import RULES
from gradloom.compiler.provenance import origin_scope
from gradloom.compiler.types import TensorType

SWAP = (1, 0)

WEIGHT_ROLES = ("parameter", "prepared")
"""The roles of inputs that may be weights: a parameter, or what is computed from parameters once for many steps."""

STORED_ROLES = (*WEIGHT_ROLES, "state")
"""The roles of inputs that stay with the program from step to step, and that it may therefore want otherwise."""


def choose_layouts(graph: Graph, lanes: int = 16) -> Graph:
    """Return the graph with short-rowed parameters transposed, where that leaves no transpose over, else `graph`."""
    return with_layouts(graph, lanes).graph


def with_layouts(graph: Graph, lanes: int = 16) -> Rewritten:
    """Return what `choose_layouts` does, with the rules that applied.

    `graph` is simplified already; `lanes` is the number of elements in a vector. A parameter is a candidate when it is
    a matrix that a matmul reads, with less than two vectors in its last axis and at least two in its first.
    """
    result = unchanged(graph)
    for label in [
        value.op.label for value in graph.inputs if isinstance(value.op, Input) and _short(graph, value, lanes)
    ]:
        # Inputs of one family are transposed together, so that a later one may be done already.
        value = next(value for value in graph.inputs if isinstance(value.op, Input) and value.op.label == label)
        if _short(graph, value, lanes):
            turned = _transpose_family(graph, _family(graph, value))
            turned = turned.then(rewrite(turned.graph, RULES))
            if _transposes(turned.graph) <= _transposes(graph):
                result, graph = result.then(turned), turned.graph
    return result


def _short(graph: Graph, value: Value, lanes: int) -> bool:
    """Whether `value` is a parameter that should be tried the other way round."""
    if not isinstance(value.op, Input) or value.op.role not in WEIGHT_ROLES or value.op.permutation or value.ndim != 2:
        return False
    long, short = value.shape
    if not short < 2 * lanes <= long:
        return False
    return any(isinstance(reader.op, Matmul) for reader in graph.users()[value])


def _transposes(graph: Graph) -> int:
    return sum(isinstance(value.op, Transpose) for value in graph.live())


def _family(graph: Graph, parameter: Value) -> set[Value]:
    """All values of the parameter's shape that elementwise ops or donated memory connect with it.

    Inputs that are no state are left out: their arrays are the caller's.
    """
    users = graph.users()
    family: set[Value] = set()
    pending = [parameter]
    while pending:
        value = pending.pop()
        if value in family or value.shape != parameter.shape:
            continue
        if not isinstance(value.op, Elementwise) and not _is_stored(value):
            continue
        family.add(value)
        pending += value.inputs
        pending += [reader for reader in users[value] if isinstance(reader.op, Elementwise)]
        pending += [out.value for out in graph.outputs if out.donor is value]
        pending += [out.donor for out in graph.outputs if out.value is value and out.donor is not None]
    return family


def _is_stored(value: Value) -> bool:
    return isinstance(value.op, Input) and value.op.role in STORED_ROLES and not value.op.permutation


def _transpose_family(graph: Graph, family: Iterable[Value]) -> Rewritten:
    """Rebuild the graph with every member of `family` computed transposed, and transposes wherever others meet them.

    A donated output is left transposed, as its donor is; any other output that is a member is transposed back.
    """
    family = set(family)
    result = Graph(graph.name)
    result.captured = dict(graph.captured)
    plain: dict[Value, Value] = {}
    turned: dict[Value, Value] = {}

    def as_plain(value: Value) -> Value:
        if value not in plain:
            # A transpose belongs to who made what it turns, whoever reads it.
            with origin_scope(graph.provenance[value]):
                plain[value] = result.apply(Transpose(SWAP), turned[value])
        return plain[value]

    def as_turned(value: Value) -> Value:
        if value in turned:
            return turned[value]
        with origin_scope(graph.provenance[value]):
            return transposed_operand(plain[value], SWAP)

    for value in graph.live():
        with origin_scope(graph.provenance[value]):
            if value not in family:
                plain[value] = result.apply(value.op, *map(as_plain, value.inputs))
            elif isinstance(value.op, Input):
                swapped = TensorType(value.dtype, value.shape[::-1])
                turned[value] = result.input(value.op.label, swapped, value.op.role, SWAP)
            else:
                turned[value] = result.apply(value.op, *map(as_turned, value.inputs))
    for out in graph.outputs:
        with origin_scope(graph.provenance[out.value]):
            if out.donor in turned:
                result.output(out.name, as_turned(out.value), turned[out.donor])
            else:
                result.output(out.name, as_plain(out.value), None if out.donor is None else plain[out.donor])
    firings = [Firing("choose_layouts", old, new) for old, new in turned.items() if isinstance(old.op, Input)]
    return Rewritten(result, firings, plain | turned)
