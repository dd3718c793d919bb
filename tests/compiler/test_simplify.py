"""Simplification: each rule asserts graph and value, and random graphs keep every bit of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, Op, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, Maximum, Minimum, Multiply, Power, Subtract
from gradloom.compiler.ops.comparison import Equal, Less, LogicalAnd, LogicalNot, LogicalOr, LogicalXor, Select
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.elementwise import Convert, Exp, Log, Negative, Sqrt
from gradloom.compiler.ops.indexing import Gather
from gradloom.compiler.ops.markers import StopGradient
from gradloom.compiler.ops.movement import BroadcastTo, Concatenate, Pad, Reshape, Reverse, Slice, Transpose
from gradloom.compiler.ops.reductions import Max, Sum
from gradloom.compiler.passes.rewrite import rewrite
from gradloom.compiler.passes.simplify import RULES, simplify
from gradloom.compiler.types import BOOL, F32, F64, I32, I64, OPEN, U8, DType, TensorType

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


class Sketch:
    """Builds a test graph: `n.x(shape)` adds an input, `n(op, …)` a node, `n.c(…)` a literal."""

    def __init__(self) -> None:
        self.graph = Graph("sketch")

    def __call__(self, op: Op, *operands: Value) -> Value:
        return self.graph.apply(op, *operands)

    def x(self, *shape: int, dtype: DType = F32, role: str = "argument") -> Value:
        return self.graph.input(f"x{len(self.graph.inputs)}", TensorType(dtype, shape), role)

    def c(self, value: object, dtype: DType = F32) -> Value:
        return self.graph.constant(np.asarray(value, dtype.numpy))


@dataclass(frozen=True)
class Case:
    """A graph on which `rule` fires: the ops left, and whether every bit stays (else: about the same numbers)."""

    rule: str
    build: Callable[[Sketch], Value | Sequence[Value]]
    left: str
    exact: bool = True
    zero_signs: bool = True


V = 16
"""Elements of a test vector."""


def softmax(n: Sketch, x: Value) -> Value:
    powers = n(Exp(), n(Subtract(), x, n(Reshape((x.shape[0], 1)), n(Max((1,)), x))))
    return n(Divide(), powers, n(Reshape((x.shape[0], 1)), n(Sum((1,)), powers)))


CASES = [
    Case("fold", lambda n: n(Add(), n.x(V), n(Sqrt(), n(Multiply(), n.c(2), n.c(8)))), "constant add"),
    Case("fold", lambda n: n(Transpose((1, 0)), n.c([[1, 2, 3], [-0.0, np.nan, 6]])), "constant"),
    Case("fold", lambda n: n(Multiply(), n.x(3), n(Convert(F32), n(Less(), n.c(1), n.c(2)))), ""),
    Case("literal_last", lambda n: n(Multiply(), n.c(3), n.x(V)), "constant multiply"),
    Case("add_zero", lambda n: n(Add(), n.x(V, dtype=I32), n.c(0, I32)), ""),
    Case("add_zero", lambda n: n(Add(), n.x(V), n.c(-0.0)), ""),
    Case("add_zero", lambda n: n(Add(), n.x(1, V), n.c(np.full((3, 1), -0.0))), "broadcast_to"),
    Case("subtract_zero", lambda n: n(Subtract(), n.x(V), n.c(0)), ""),
    Case("add_negative", lambda n: n(Add(), n.x(V), n(Negative(), n.x(V))), "subtract"),
    Case("add_negative", lambda n: n(Add(), n(Negative(), n.x(V)), n.x(V)), "subtract"),
    Case("subtract_negative", lambda n: n(Subtract(), n.x(V), n(Negative(), n.x(V))), "add"),
    Case("multiply_one", lambda n: n(Multiply(), n.x(V), n.c(1)), ""),
    Case("multiply_one", lambda n: n(Divide(), n.x(V), n.c([1.0] * V)), ""),
    Case("multiply_zero", lambda n: n(Multiply(), n.x(V, dtype=I32), n.c(0, I32)), "constant broadcast_to"),
    Case("multiply_minus_one", lambda n: n(Multiply(), n.x(V), n.c(-1)), "negative"),
    Case("multiply_minus_one", lambda n: n(Divide(), n.x(V), n.c(-1)), "negative"),
    Case("multiply_literals", lambda n: n(Multiply(), n(Multiply(), n.x(V), n.c(4)), n.c(-8)), "constant multiply"),
    Case(
        "multiply_literals",
        lambda n: n(Multiply(), n(Multiply(), n.x(V, dtype=I32), n.c(65537, I32)), n.c(65539, I32)),
        "constant multiply",
    ),
    Case("divide_power_of_two", lambda n: n(Divide(), n.x(V), n.c(32)), "constant multiply"),
    Case("divide_power_of_two", lambda n: n(Divide(), n.x(V), n.c(-0.125)), "constant multiply"),
    Case("negative_negative", lambda n: n(Negative(), n(Negative(), n.x(V))), ""),
    Case("negative_product", lambda n: n(Negative(), n(Multiply(), n.x(V), n.c(3))), "constant multiply"),
    Case("negative_product", lambda n: n(Negative(), n(Divide(), n.x(V), n.c(3))), "constant divide"),
    Case("product_of_negatives", lambda n: n(Multiply(), n(Negative(), n.x(V)), n.c(3)), "constant multiply"),
    Case("product_of_negatives", lambda n: n(Divide(), n(Negative(), n.x(V)), n(Negative(), n.x(V))), "divide"),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(0)), "constant broadcast_to"),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(1)), ""),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(2)), "multiply", exact=False),
    Case("power_literal", lambda n: n(Power(), n.x(V), n.c(-1)), "constant divide", exact=False),
    Case("idempotent", lambda n: n(Maximum(), x := n.x(V), x), ""),
    Case("idempotent", lambda n: n(LogicalAnd(), x := n.x(V, dtype=BOOL), x), ""),
    Case(
        "log_of_softmax",
        lambda n: n(Log(), softmax(n, n.x(4, V))),
        "max reshape subtract exp sum reshape log subtract",
        exact=False,
    ),
    Case("convert_to_same", lambda n: n(Convert(F32), n.x(V)), ""),
    Case("convert_convert", lambda n: n(Convert(F32), n(Convert(F64), n.x(V))), ""),
    Case("convert_convert", lambda n: n(Convert(F32), n(Convert(I64), n.x(V, dtype=U8))), "convert"),
    Case("convert_convert", lambda n: n(Convert(I32), n(Convert(F32), n.x(V, dtype=U8))), "convert"),
    Case("select_known", lambda n: n(Select(), n.c(True, BOOL), n.x(V), n.x(V)), ""),
    Case("select_known", lambda n: n(Select(), n.c([False] * V, BOOL), n.x(V), n.x(1)), "broadcast_to"),
    Case("select_same", lambda n: n(Select(), n.x(V, dtype=BOOL), x := n.x(V), x), ""),
    Case("select_not", lambda n: n(Select(), n(LogicalNot(), n.x(V, dtype=BOOL)), n.x(V), n.x(V)), "select"),
    Case("not_not", lambda n: n(LogicalNot(), n(LogicalNot(), n.x(V, dtype=BOOL))), ""),
    Case("logic_literal", lambda n: n(LogicalAnd(), n.c(True, BOOL), n.x(V, dtype=BOOL)), ""),
    Case("logic_literal", lambda n: n(LogicalOr(), n.x(V, dtype=BOOL), n.c(True, BOOL)), "constant broadcast_to"),
    Case("marker", lambda n: n(StopGradient(), n.x(V)), ""),
    Case("reshape_to_same", lambda n: n(Reshape((2, 3)), n.x(2, 3)), ""),
    Case("reshape_reshape", lambda n: n(Reshape((4, 4)), n(Reshape((2, 8)), n.x(V))), "reshape"),
    Case(
        "reshape_gather",
        lambda n: n(Reshape((2, 4)), n(Gather(), n.x(5, 2, 2), n.c([4, 1], I32))),
        "constant reshape gather",
    ),
    Case(
        "convolve_padded",
        lambda n: n(Conv2D(), n(Pad((0, 1, 0, 0), (0, 1, 2, 0), (0, 0, 0, 0)), n.x(1, 4, 3, 2)), n.x(3, 3, 2, 2)),
        "conv2d",
    ),
    Case(
        "convolve_padded",
        lambda n: n(
            Conv2DKernelGrad((3, 3)), n(Pad((0, 1, 1, 0), (0, 1, 1, 0), (0, 0, 0, 0)), n.x(1, 3, 3, 2)), n.x(1, 3, 3, 2)
        ),
        "conv2d_kernel_grad",
    ),
    Case(
        "slice_input_grad",
        lambda n: n(
            Slice((0, 1, 0, 0), (1, 4, 3, 2), (1, 1, 1, 1)),
            n(Conv2DInputGrad((5, 3), padding=((0, 0), (0, 2))), n.x(1, 3, 3, 2), n.x(3, 3, 2, 2)),
        ),
        "conv2d_input_grad",
    ),
    Case("transpose_identity", lambda n: n(Transpose((0, 1, 2)), n.x(2, 3, 4)), ""),
    Case("transpose_transpose", lambda n: n(Transpose((1, 2, 0)), n(Transpose((1, 2, 0)), n.x(2, 3, 4))), "transpose"),
    Case("transpose_transpose", lambda n: n(Transpose((2, 0, 1)), n(Transpose((1, 2, 0)), n.x(2, 3, 4))), ""),
    Case("transpose_unit_axes", lambda n: n(Transpose((1, 0, 2)), n.x(1, 3, 4)), "reshape"),
    Case("broadcast_to_same", lambda n: n(BroadcastTo((2, 3)), n.x(2, 3)), ""),
    Case("broadcast_broadcast", lambda n: n(BroadcastTo((4, 2, 3)), n(BroadcastTo((2, 3)), n.x(3))), "broadcast_to"),
    Case("broadcast_leading", lambda n: n(BroadcastTo((5, 3)), n(Reshape((1, 3)), n.x(3))), "broadcast_to"),
    Case("move_filled", lambda n: n(Reshape((6,)), n(BroadcastTo((2, 3)), n.x(1, 1))), "reshape broadcast_to"),
    Case("move_filled", lambda n: n(Transpose((1, 0)), n(BroadcastTo((2, 3)), n.x())), "broadcast_to"),
    Case("slice_whole", lambda n: n(Slice((0, 0), (2, 3), (1, 1)), n.x(2, 3)), ""),
    Case("slice_slice", lambda n: n(Slice((1,), (5,), (3,)), n(Slice((1,), (12,), (2,)), n.x(V))), "slice"),
    Case("pad_nothing", lambda n: n(Pad((0,), (0,), (0,)), n.x(V)), ""),
    Case("concatenate_one", lambda n: n(Concatenate(0), n.x(V)), ""),
    Case("concatenate_one", lambda n: n(Concatenate(1), n.x(2, 3), n.x(2, 0), n.x(2, 1)), "concatenate"),
    Case("reverse_unit_axes", lambda n: n(Reverse((0, 1)), n.x(1, 3)), "reverse"),
    Case("reverse_unit_axes", lambda n: n(Reverse(()), n.x(3)), ""),
    Case("reverse_reverse", lambda n: n(Reverse((0, 1)), n(Reverse((1, 2)), n.x(2, 3, 4))), "reverse"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(2, 3), n(BroadcastTo((2, 3)), n.x(3))), "add"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(2, 3), n(Reshape((1, 3)), n.x(3))), "add"),
    Case("broadcast_into_elementwise", lambda n: n(Exp(), n(BroadcastTo((2, 3)), n.x(3))), "exp broadcast_to"),
    Case("broadcast_into_elementwise", lambda n: n(Add(), n.x(V), n.c([0.5] * V)), "constant add"),
    Case(
        "reshape_elementwise",
        lambda n: n(Reshape((6,)), n(Multiply(), n.x(2, 3), n.c(0.1))),
        "constant reshape multiply",
    ),
    Case("reduce_unit_axes", lambda n: n(Sum((0,)), n.x(1, V)), "reshape", zero_signs=False),
    Case("reduce_unit_axes", lambda n: n(Max((0, 1)), n.x(1, V, 2)), "reshape max"),
    Case("reduce_unit_axes", lambda n: n(Sum(()), n.x(V)), "", zero_signs=False),
    Case("reduce_reduce", lambda n: n(Max((0, 1)), n(Max((1, 3)), n.x(2, 3, 4, 5))), "max"),
    Case("reduce_reduce", lambda n: n(Sum((0,)), n(Sum((1,)), n.x(2, 3))), "sum", exact=False),
    Case("reduce_transpose", lambda n: n(Max((0, 2)), n(Transpose((2, 1, 0)), n.x(2, 3, 4))), "max"),
    Case("reduce_transpose", lambda n: n(Sum((0,)), n(Transpose((1, 0)), n.x(2, 3))), "sum", exact=False),
    Case(
        "matmul_of_transpose", lambda n: n(Matmul(), n(Transpose((1, 0)), n.x(4, 3)), n.x(4, 5)), "matmul", exact=False
    ),
    Case(
        "matmul_of_transpose",
        lambda n: n(Matmul(False, True), n.x(2, 3, 4), n(Transpose((0, 2, 1)), n.x(2, 4, 5))),
        "matmul",
        exact=False,
    ),
    Case(
        "transpose_of_matmul", lambda n: n(Transpose((1, 0)), n(Matmul(), n.x(3, 4), n.x(4, 5))), "matmul", exact=False
    ),
    Case(
        "transpose_elementwise",
        lambda n: n(Transpose((1, 0)), n(Add(), n(Transpose((1, 0)), n.x(2, 3)), n.x(2))),
        "reshape add",
    ),
]


def graph_of(case: Case) -> Graph:
    sketch = Sketch()
    built = case.build(sketch)
    for number, value in enumerate([built] if isinstance(built, Value) else built):
        sketch.graph.output(f"y{number}", value)
    return sketch.graph


def ops_of(graph: Graph) -> list[str]:
    return [value.op.name for value in graph.live() if not isinstance(value.op, Input)]


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
