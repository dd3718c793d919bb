"""Simplification: each rule asserts graph and value, and random graphs keep every bit of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, Minimum, Multiply, Power, Subtract
from gradloom.compiler.ops.comparison import Equal, Less, LogicalAnd, LogicalNot, LogicalOr, LogicalXor, Select
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.elementwise import Convert, Exp, Log, Negative
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.reductions import Max, Sum
from gradloom.compiler.passes.rewrite import rewrite
from gradloom.compiler.passes.simplify import RULES, simplify
from gradloom.compiler.types import BOOL, F32, F64, I32, OPEN, U8, TensorType
from rule_cases import CASES, Case, Sketch, V, graph_of, ops_of, softmax

SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 3e38, -3e38, 0.1, -7.25, 16777217.0, 1e-20]
INTEGERS = [0, 1, -1, 2, 3, -7, 100, 255, 2**31 - 1, -(2**31)]


def samples(type_: TensorType, seed: int = 0, tame: bool = False) -> np.ndarray:
    """An array rich in special values; a tame one has none."""
    rng = np.random.default_rng([seed, type_.size])
    if tame:
        return rng.normal(size=type_.shape).astype(type_.dtype.numpy)
    if type_.dtype == BOOL:
        return rng.integers(0, 2, type_.shape).astype(bool)
    pool = np.array(SPECIAL if type_.dtype.is_float else INTEGERS)
    with np.errstate(all="ignore"):
        return rng.choice(pool, type_.shape).astype(type_.dtype.numpy)


def assert_same_bits(got: np.ndarray, wanted: np.ndarray, zero_signs: bool = True) -> None:
    """Equal dtype, shape and bits, perhaps but for the signs of zeros; a NaN equals any NaN."""
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(got, wanted)
    if got.dtype.kind == "f" and zero_signs:
        numbers = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(wanted[numbers]))


def run(graph: Graph, tame: bool = False) -> dict[str, np.ndarray]:
    arrays = {value.op.label: samples(value.type, seed, tame) for seed, value in enumerate(graph.inputs)}  # type: ignore[attr-defined]
    with np.errstate(all="ignore"):
        return interpret(graph, arrays)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    graph = graph_of(case)
    result = rewrite(graph, RULES)
    result.graph.verify()
    assert case.rule in [firing.rule for firing in result.firings]
    assert ops_of(result.graph) == case.left.split()
    wanted, got = run(graph, tame=not case.exact), run(result.graph, tame=not case.exact)
    for name, array in wanted.items():
        if case.exact:
            assert_same_bits(got[name], array, case.zero_signs)
        else:
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6)


def test_every_rule_has_a_case_and_an_equation() -> None:
    assert {rule.name for rule in RULES} == {case.rule for case in CASES}
    assert all("→" in rule.equation for rule in RULES)


UNTOUCHED: dict[str, Callable[[Sketch], Value | Sequence[Value]]] = {
    "+0 changes −0": lambda n: n(Add(), n.x(V), n.c(0.0)),
    "−(−0) changes −0": lambda n: n(Subtract(), n.x(V), n.c(-0.0)),
    "0 times infinity": lambda n: n(Multiply(), n.x(V), n.c(0.0)),
    "two roundings": lambda n: n(Multiply(), n(Multiply(), n.x(V), n.c(0.1)), n.c(3)),
    "overflow in between": lambda n: n(Multiply(), n(Multiply(), n.x(V), n.c(2.0**100)), n.c(2.0**-100)),
    "the inverse is subnormal": lambda n: n(Divide(), n.x(V), n.c(2.0**127)),
    "no power of two": lambda n: n(Divide(), n.x(V), n.c(10)),
    "wrapping is not saturating": lambda n: n(Convert(U8), n(Convert(F64), n.x(V, dtype=I32))),
    "rounding on the way": lambda n: n(Convert(F64), n(Convert(F32), n.x(V, dtype=I32))),
    "a power of one half": lambda n: n(Power(), n.x(V), n.c(0.5)),
    "exponentials are not folded": lambda n: n(Exp(), n.c(1)),
    "large literals are not folded": lambda n: n(Negative(), n.c(np.arange(300))),
    "a shared product": lambda n: [y := n(Matmul(), n.x(3, 4), n.x(4, 5)), n(Transpose((1, 0)), y)],
    "a reshape above a product": lambda n: n(Reshape((15,)), n(Exp(), n(Matmul(), n.x(3, 4), n.x(4, 5)))),
    "a reshape above a broadcast row": lambda n: n(Reshape((6,)), n(Add(), n.x(2, 3), n.x(3))),
    "a matmul's batch axes": lambda n: n(Matmul(), n(Transpose((1, 0, 2)), n.x(2, 2, 3)), n.x(2, 3, 4)),
    "a sum that leaves axes in another order": lambda n: n(Sum((0,)), n(Transpose((2, 1, 0)), n.x(2, 3, 4))),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_left_alone(name: str) -> None:
    graph = graph_of(Case("", UNTOUCHED[name], ""))
    assert simplify(graph) == graph


def test_a_batch_is_flattened_where_its_rows_are_read() -> None:
    sketch = Sketch()
    data, rows = sketch.x(OPEN, 4, 4, dtype=U8, role="data"), sketch.x(8, dtype=I32, role="indices")
    batch = sketch(Divide(), sketch(Convert(F32), sketch(Gather(), data, rows)), sketch.c(255))
    sketch.graph.output("y", sketch(Reshape((8, 16)), batch))
    graph = simplify(sketch.graph)
    assert ops_of(graph) == ["constant", "reshape", "gather", "convert", "divide"]
    arrays = {
        "x0": np.arange(160, dtype=np.uint8).reshape(10, 4, 4),
        "x1": np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32),
    }
    assert_same_bits(interpret(graph, arrays)["y"], interpret(sketch.graph, arrays)["y"])


def test_log_of_softmax_does_not_underflow() -> None:
    sketch = Sketch()
    sketch.graph.output("y", sketch(Log(), softmax(sketch, sketch.x(1, 3))))
    logits = np.array([[-200.0, 0.0, -np.inf]], np.float32)
    with np.errstate(all="ignore"):
        assert interpret(sketch.graph, {"x0": logits})["y"][0, 0] == -np.inf
        got = interpret(simplify(sketch.graph), {"x0": logits})["y"]
    np.testing.assert_array_equal(got, logits)


FLOAT_OPS: list[Op] = [Add(), Subtract(), Multiply(), Divide(), Equal(), Less()]
# No float extrema: the signs of their zeros are free, and 1/0 would show them.
LITERALS = [0.0, -0.0, 1.0, -1.0, 2.0, -4.0, 0.5, 3.0, np.inf, np.nan]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Random graphs of ops that NumPy computes exactly, over small tensors with axes of size 1."""
    n = Sketch()
    pool = [n.x(2, 3), n.x(3), n.x(2, 1), n.x(1, 3, dtype=I32), n.x(2, 3, dtype=BOOL)]
    for _ in range(draw(st.integers(1, 14))):
        x = draw(st.sampled_from(pool))
        made = draw(st.sampled_from([_binary, _unary, _move, _literal]))(draw, n, pool, x)
        if made is not None and made.type.size <= 64:
            pool.append(made)
    read = {operand for value in pool for operand in value.inputs}
    for number, value in enumerate(value for value in pool if value not in read):
        n.graph.output(f"y{number}", value)
    return n.graph


def _fits(x: Value, y: Value) -> bool:
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return False
    return x.dtype == y.dtype


def _binary(draw: st.DrawFn, n: Sketch, pool: list[Value], x: Value) -> Value | None:
    y = draw(st.sampled_from([y for y in pool if _fits(x, y)]))
    if x.dtype == BOOL:
        z = draw(st.sampled_from([z for z in pool if _fits(y, y) and z.dtype == F32]))
        if draw(st.booleans()) and _fits(x, n(Convert(BOOL), z)):
            return n(Select(), x, z, n(Negative(), z))
        return n(draw(st.sampled_from([LogicalAnd(), LogicalOr(), LogicalXor()])), x, y)
    return n(draw(st.sampled_from(FLOAT_OPS if x.dtype.is_float else [Add(), Subtract(), Multiply(), Minimum()])), x, y)


def _unary(draw: st.DrawFn, n: Sketch, pool: list[Value], x: Value) -> Value | None:
    if draw(st.booleans()):
        return n(Convert(draw(st.sampled_from([F32, F64, I32, U8, BOOL]))), x)
    return n(LogicalNot() if x.dtype == BOOL else Negative(), x)


def _literal(draw: st.DrawFn, n: Sketch, pool: list[Value], x: Value) -> Value | None:
    if x.dtype == BOOL:
        return n(LogicalAnd(), x, n.c(draw(st.booleans()), BOOL))
    if not x.dtype.is_float:
        return (
            n(draw(st.sampled_from([Add(), Multiply()])), x, n.c(draw(st.sampled_from([0, 1, -1, 3])), x.dtype))
            if x.dtype != U8
            else None
        )
    c = n.c(draw(st.sampled_from(LITERALS)), x.dtype)
    op = draw(st.sampled_from([Add(), Subtract(), Multiply(), Divide()]))
    return n(op, x, c) if draw(st.booleans()) else n(op, c, x)


def _move(draw: st.DrawFn, n: Sketch, pool: list[Value], x: Value) -> Value | None:
    match draw(st.integers(0, 6)):
        case 0:
            sizes = [s for s in x.shape if s != 1] + [1] * draw(st.integers(0, 2))
            return n(Reshape(tuple(sizes) if draw(st.booleans()) else (x.type.size,)), x)
        case 1:
            return n(Transpose(tuple(draw(st.permutations(range(x.ndim))))), x)
        case 2:
            return n(BroadcastTo((*draw(st.sampled_from([(), (1,), (2,)])), *(2 if s == 1 else s for s in x.shape))), x)
        case 3:
            spans = [sorted((draw(st.integers(0, s)), draw(st.integers(0, s)))) for s in x.shape]
            stride = tuple(draw(st.integers(1, 2)) for _ in x.shape)
            return n(Slice(tuple(a for a, _ in spans), tuple(b for _, b in spans), stride), x)
        case 4:
            counts = [tuple(draw(st.integers(0, 1)) for _ in x.shape) for _ in range(3)]
            return n(Pad(*counts), x)
        case 5:
            return n(Concatenate(x.ndim - 1), *[x] * draw(st.integers(1, 2))) if x.ndim else None
        case _:
            axes = tuple(axis for axis in range(x.ndim) if draw(st.booleans()))
            return n(Reverse(axes) if x.dtype.is_float or draw(st.booleans()) else Max(axes), x)


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_random_graphs_keep_every_bit(graph: Graph) -> None:
    before = str(graph)
    simple = simplify(graph)
    simple.verify()
    assert str(graph) == before
    assert [value.op for value in simple.inputs] == [value.op for value in graph.inputs]
    assert simplify(simple) == simple
    wanted, got = run(graph), run(simple)
    assert list(wanted) == list(got)
    for name in wanted:
        assert_same_bits(got[name], wanted[name])
