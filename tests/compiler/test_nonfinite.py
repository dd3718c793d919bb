"""Following NaN and infinities back: through all that moves or combines numbers, to the place where they arose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.nonfinite import Origin, find_origin, worsened
from gradloom.compiler.passes.rewrite import rewrite
from gradloom.compiler.passes.simplify import RULES
from gradloom.compiler.types import F32, TensorType

STEPS: dict[str, Callable[[Value], Value]] = {
    "transpose": lambda x: ops.transpose(x),
    "flip": lambda x: ops.flip(x, axis=0),
    "reshape": lambda x: ops.reshape(x, (x.type.size,)),
    "slice": lambda x: x[::2],
    "pad": lambda x: ops.pad(x, [(2, 1)] + [(0, 0)] * (x.ndim - 1)),
    "concatenate": lambda x: ops.concatenate([x * 2.0, x + 1.0], axis=0),
    "joined": lambda x: ops.concatenate([x[:0], x, x[1:]], axis=0),
    "broadcast": lambda x: ops.broadcast_to(x, (2, *x.shape)),
    "rows": lambda x: ops.take(x, np.array([1, 0, 1]), axis=0),
    "sum": lambda x: ops.sum(x, axis=0),
    "maximum of rows": lambda x: ops.max(x, axis=-1, keepdims=True) + x,
    "matrix product": lambda x: x @ ops.ones((x.shape[-1], 3)),
    "select": lambda x: ops.where(ops.isnan(x), x, 0.0 * x),
}

MOVES = ["transpose", "flip", "reshape", "slice", "pad", "broadcast", "rows", "joined"]


def traced(*functions: Callable[[Value], Value]) -> Graph | None:
    """The graph that applies functions to x one after the other; None where one does not fit the shape."""
    with building(Graph("chain")) as graph:
        value = graph.input("x", TensorType(F32, (3, 4)))
        for function in functions:
            if not value.ndim or (function is STEPS["rows"] and value.shape[0] < 2):
                return None
            value = function(value)
        graph.output("result", value)
    return graph


def origin_in(graph: Graph, x: np.ndarray) -> Origin | None:
    with np.errstate(all="ignore"):
        return find_origin(graph, {"x": x}, ["result"])


chains = st.lists(st.sampled_from(list(STEPS)), max_size=4)
places = st.tuples(st.integers(0, 2), st.integers(0, 3))


@given(chains, places, st.sampled_from([np.nan, np.inf]), st.booleans())
def test_what_comes_in_is_found_at_its_place(
    names: list[str], at: tuple[int, int], number: float, simplify: bool
) -> None:
    graph = traced(*(STEPS[name] for name in names))
    if graph is None:
        return
    graph = rewrite(graph, RULES).graph if simplify else graph
    x = np.full((3, 4), 0.5, np.float32)
    x[at] = number
    with np.errstate(all="ignore"):
        result = interpret(graph, {"x": x})["result"]
    if np.isfinite(result).all():
        return
    origin = origin_in(graph, x)
    assert origin is not None and origin.node.op.name == "input"
    assert origin.at == at and str(origin.number) == str(number)


@given(chains, chains, places)
def test_the_op_that_makes_it_is_found_amid_others(before: list[str], after: list[str], at: tuple[int, int]) -> None:
    movements = [name for name in before if name in ("transpose", "flip", "reshape", "broadcast")]
    graph = traced(*(STEPS[name] for name in movements), ops.log, *(STEPS[name] for name in after))
    if graph is None:
        return
    x = np.full((3, 4), 0.5, np.float32)
    x[at] = -2
    with np.errstate(all="ignore"):
        if np.isfinite(interpret(graph, {"x": x})["result"]).all():
            return
    origin = origin_in(graph, x)
    assert origin is not None and origin.at is not None
    assert (origin.node.op.name, origin.operands) == ("log", ((-2.0,),))


@given(st.data(), st.lists(st.sampled_from(MOVES), max_size=4))
def test_of_many_the_one_is_found_that_was_moved_to_the_result(data: st.DataObject, names: list[str]) -> None:
    """Everything that comes in is NaN, and one number comes out: whose it is say the same moves of whole numbers."""
    graph = traced(*(STEPS[name] for name in names))
    if graph is None:
        return
    (output,) = graph.outputs
    at = tuple(data.draw(st.integers(0, size - 1)) for size in output.value.shape)
    whole = 1 + np.arange(12, dtype=np.float32).reshape(3, 4)
    moved = int(interpret(graph, {"x": whole})["result"][at])
    if not moved:
        return
    graph.outputs.clear()
    graph.output("result", output.value[at])
    origin = origin_in(graph, np.full((3, 4), np.nan, np.float32))
    assert origin is not None and origin.at == np.unravel_index(moved - 1, (3, 4))


def test_what_is_read_to_combine_or_to_choose_is_followed_no_further() -> None:
    x = np.full((3, 4), np.nan, np.float32)
    cases: list[tuple[Callable[[Value], Value], tuple[int, int]]] = [
        (lambda x: ops.sum(x, axis=0)[2], (0, 2)),
        (lambda x: ops.max(x, axis=1)[2], (2, 0)),
        (lambda x: (x[1:2] + x[:, 3:])[2, 1], (1, 1)),
    ]
    for function, at in cases:
        graph = traced(function)
        assert graph is not None
        origin = origin_in(graph, x)
        assert origin is not None and origin.at == at

    def choice(x: Value) -> Value:
        left_out, chosen = ops.log(x - 10.0), ops.exp(1000.0 * x)
        return ops.where(x > 0.0, chosen, left_out)

    graph = traced(choice)
    assert graph is not None
    origin = origin_in(graph, np.ones((3, 4), np.float32))
    assert origin is not None and origin.node.op.name == "exp"


def test_the_first_of_several_is_found() -> None:
    graph = traced(lambda x: ops.log(x) + ops.sqrt(ops.exp(x * x)))
    assert graph is not None
    x = np.full((3, 4), 0.5, np.float32)
    for place, number, op in (((2, 1), 1000, "exp"), ((2, 3), -1000, "log"), ((1, 3), -1, "log")):
        x[place] = number
        origin = origin_in(graph, x)
        assert origin is not None and (origin.node.op.name, origin.at) == (op, place)


def test_a_state_is_followed_back_from_where_it_is_worse() -> None:
    graph = Graph("step")
    state = graph.input("state", TensorType(F32, (2,)), "state")
    graph.output("state", state + ops.exp(graph.input("x", TensorType(F32, (2,)))), donor=state)
    arrays = {"state": np.float32([np.inf, 0]), "x": np.float32([0, 1000])}
    with np.errstate(all="ignore"):
        origin = find_origin(graph, arrays, ["state"])
    assert origin is not None and (origin.node.op.name, origin.at) == ("exp", (1,))


def test_all_are_followed_where_the_first_is_as_somebody_wished() -> None:
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (2,)))
    graph.output("masked", ops.where(x > 0.0, x, -np.inf))
    graph.output("logarithm", ops.log(x))
    with np.errstate(all="ignore"):
        assert find_origin(graph, {"x": np.float32([-1, 1])}, ["masked"]) is None
        origin = find_origin(graph, {"x": np.float32([-1, 1])}, ["masked", "logarithm"])
    assert origin is not None and (origin.node.op.name, origin.at) == ("log", (0,))


def test_an_overflow_of_a_sum_and_of_a_product_says_what_it_was_made_of() -> None:
    x = np.full((3, 4), 2e38, np.float32)
    for function, operands in ((ops.sum, 1), (lambda x: x @ ops.transpose(x), 2)):
        graph = traced(function)
        assert graph is not None
        origin = origin_in(graph, x)
        assert origin is not None and origin.operands == ((x[0, 0], x[0, 0]),) * operands


def test_numbers_that_are_finite_one_by_one_are_laid_to_the_result() -> None:
    graph = traced(ops.exp)
    assert graph is not None
    origin = origin_in(graph, np.zeros((3, 4), np.float32))
    assert origin is not None and origin.at is None and origin.node is graph.outputs[0].value


def test_what_was_not_finite_before_is_not_worse() -> None:
    cases: list[tuple[Any, Any, bool]] = [
        (np.inf, 1, True),
        (np.nan, 1, True),
        (np.nan, np.inf, True),
        (np.inf, np.inf, False),
        (-np.inf, np.inf, False),
        (np.nan, np.nan, False),
        (1, np.nan, False),
    ]
    for new, old, worse in cases:
        assert worsened(np.float32([new]), np.float32([old])).tolist() == [worse], (new, old)
