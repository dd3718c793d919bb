"""Index arithmetic against brute force over all loop iterations and lanes; the builder's sharing and scoping."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_runner import run_kernel

from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr, VType
from gradloom.compiler.loops.index import Index, LoopRange
from gradloom.compiler.types import F32, I64, TensorType

LANES = 4


def loop_variable(name: str, low: int, high: int) -> Expr:
    return Expr("var", VType(I64), (), LoopRange(name, low, high))


@st.composite
def affine_indices(draw: st.DrawFn) -> Index:
    """Non-negative sums of loop variables, a constant and perhaps lanes, as kernels make them."""
    index = ix.constant(0)
    for number in range(draw(st.integers(0, 3))):
        low = draw(st.integers(0, 2))
        variable = loop_variable(f"i{number}", low, low + draw(st.integers(0, 4)))
        index = index + ix.of(variable).scaled(draw(st.sampled_from([-3, -1, 1, 2, 3, 4, 6, 12, 24])))
    if draw(st.booleans()):
        index = ix.lanes(index, draw(st.integers(1, LANES)), draw(st.sampled_from([-6, -1, 1, 2, 3, 6, 12])))
    index = index + draw(st.integers(0, 30))
    return index + max(0, -index.low)


def lane_count(index: Index) -> int:
    """How many lanes the bounds of an index account for: recovered from the bounds' excess over the terms."""
    if index.stride == 0:
        return 1
    span = index.high - index.low - sum(abs(c) * (v.attr.high - v.attr.low) for v, c in index.terms)
    return span // abs(index.stride) + 1


def values(index: Index, assignment: dict[Expr, int], lanes: int) -> list[int]:
    """The value of an index in each lane when its variables are as assigned."""
    start = index.constant + sum(coefficient * assignment[variable] for variable, coefficient in index.terms)
    return [start + lane * index.stride for lane in range(lanes)]


def assignments(index: Index) -> list[dict[Expr, int]]:
    variables = [variable for variable, _ in index.terms]
    ranges = [range(variable.attr.low, variable.attr.high + 1) for variable in variables]
    return [dict(zip(variables, point, strict=True)) for point in itertools.product(*ranges)]


@given(affine_indices(), st.integers(1, 24))
def test_split_is_quotient_and_remainder(index: Index, divisor: int) -> None:
    parts = index.split(divisor)
    if parts is None:
        return
    lanes = lane_count(index)
    for assignment in assignments(index):
        whole, rest = (values(part, assignment, lanes) for part in parts)
        for value, quotient, remainder in zip(values(index, assignment, lanes), whole, rest, strict=True):
            assert (quotient, remainder) == divmod(value, divisor)
            assert parts[0].low <= quotient <= parts[0].high
            assert parts[1].low <= remainder <= parts[1].high


@given(affine_indices(), affine_indices(), st.integers(-4, 9))
def test_bounds_hold_after_arithmetic(x: Index, y: Index, factor: int) -> None:
    total = x.scaled(factor) + Index(y.terms, y.constant, 0, None, y.low, y.high)
    everything = Index(tuple({variable: 1 for variable, _ in (*x.terms, *y.terms)}.items()))
    for assignment in assignments(everything):
        for one, other in zip(values(x, assignment, lane_count(x)), itertools.repeat(values(y, assignment, 1)[0])):
            assert total.low <= one * factor + other <= total.high


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (5, 1, 2), (7,), ()])
def test_ravel_and_unravel_are_inverse_without_division(shape: tuple[int, ...]) -> None:
    b = Builder("unravel")
    index = tuple(
        ix.of(loop_variable(f"i{axis}", 0, size - 1)) if size > 1 else ix.constant(0) for axis, size in enumerate(shape)
    )
    offset = b.ravel(index, shape)
    assert b.unravel(offset, shape) == index
    assert not any(isinstance(s, Expr) and s.op in ("div", "rem") for s in b.body.statements)


def test_lanes_along_an_outer_axis_split_into_quotients() -> None:
    inner = loop_variable("k", 0, 9)
    index = ix.lanes(ix.of(inner), 8, stride=10)
    whole, rest = index.split(10)
    assert (whole.stride, whole.terms, rest.stride, rest.terms) == (1, (), 0, ((inner, 1),))


def test_lanes_that_run_backwards_over_a_row_end_do_not_split() -> None:
    row = loop_variable("row", 0, 3)
    index = ix.lanes(ix.of(row).scaled(10) + 15, 8, stride=-1)
    assert index.split(10) is None


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("shape", [(28, 28), (7, 4, 28), (2, 1, 14, 28), (784,)])
def test_a_reshape_and_its_inverse_cancel(shape: tuple[int, ...], lanes: int) -> None:
    """The divisions of an index over 784 elements vanish when the offset is taken again: lanes stay adjacent."""
    b = Builder("reshape")
    with b.vectorized(lanes):
        offset = ix.of(loop_variable("k", 0, 784 - lanes))
        if lanes > 1:
            offset = ix.lanes(offset, lanes)
        assert b.ravel(b.unravel(offset, shape), shape) == offset
        transposed = b.unravel(offset, (28, 28))[::-1]
        assert b.ravel(transposed, (28, 28)) != offset
        assert b.ravel(b.unravel(offset, (28, 28)), (28, 29)) != offset


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 7))
def test_unravel_with_division_in_a_kernel(rows: int, columns: int, offset: int) -> None:
    """Reading a matrix in transposed order by unravelling flat offsets that no loop shape matches."""
    x = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    b = Builder("transpose")
    source, target = (b.param(Buffer(name, TensorType(F32, (x.size,)))) for name in ("x", "y"))
    with b.loop(0, x.size) as loop:
        column, row = b.unravel(loop.index, (columns, rows))
        b.store(target, loop.index, b.load(source, b.ravel((row, column), (rows, columns))))
    y = np.empty(x.size, np.float32)
    run_kernel(b.kernel(1), x, y)
    np.testing.assert_array_equal(y, x.T.ravel())


def test_equal_expressions_are_shared_within_their_block_only() -> None:
    b = Builder("shared")
    x, y = b.const(1.0, F32), b.const(2.0, F32)
    assert b.add(x, y) is b.add(x, y)
    with b.loop(0, 4) as loop:
        inner = b.mul(x, y)
        assert b.add(x, y) is b.add(x, y)
        assert loop.index.high == 3
    assert b.mul(x, y) is not inner


def test_literals_are_told_apart_by_their_bits() -> None:
    b = Builder("literals")
    assert b.const(0.0, F32) is not b.const(-0.0, F32)
    assert b.const(float("nan"), F32) is b.const(float("nan"), F32)
    assert b.const(1, F32) is not b.const(1, I64)


def test_kernels_print_as_pseudo_c() -> None:
    b = Builder("relu_sum")
    x, y = (b.param(Buffer(name, TensorType(F32, (100,)))) for name in ("x", "y"))
    total = b.param(Buffer("total", TensorType(F32, ())))
    with b.parallel(1):
        with b.vectorized(16), b.loop(0, 96, 16, [b.zero(F32, 16)]) as loop:
            at = ix.lanes(loop.index, 16)
            value = b.binary("max", b.load(x, at), 0.0)
            b.store(y, at, value)
            loop.next(b.add(loop.carried[0], value))
        with b.vectorized(16, active=4):
            tail = ix.lanes(ix.constant(96), 16)
            b.store(y, tail, b.load(x, tail))
        b.store(total, 0, b.reduce("add", loop.results[0]))
    assert (
        str(b.kernel(1))
        == """\
kernel relu_sum(f32 x[100], out f32 y[100], out f32 total[]) over 1 block {
    parallel for (block1 = begin; block1 < end; block1++) {
        f32x16 i2_0 = 0.0;
        for (i2 = 0; i2 < 96; i2 += 16) {
            f32x16 v1 = max(x[i2 : +16], 0.0);
            y[i2 : +16] = v1;
            i2_0 = i2_0 + v1;
        }
        y[96 : +4/16] = x[96 : +4/16];
        total[0] = reduce_add(i2_0);
    }
}
"""
    )


def test_printing_keeps_loads_before_the_stores_that_change_them() -> None:
    b = Builder("swap")
    x = b.param(Buffer("x", TensorType(F32, (2,))))
    first, second = b.load(x, 0), b.load(x, 1)
    b.store(x, 0, second)
    b.store(x, 1, first)
    assert str(b.kernel(1)).splitlines()[1:-1] == ["    f32 v1 = x[0];", "    x[0] = x[1];", "    x[1] = v1;"]


def test_printing_assigns_carried_values_at_once_where_they_mix() -> None:
    b = Builder("fibonacci")
    y = b.param(Buffer("y", TensorType(I64, ())))
    with b.loop(0, 10, initial=[b.const(0, I64), b.const(1, I64)]) as loop:
        one, other = loop.carried
        loop.next(other, b.add(one, other))
    b.store(y, 0, loop.results[0])
    kernel = b.kernel(1)
    assert "(i1_0, i1_1) = (i1_1, i1_0 + i1_1);" in str(kernel)
    result = np.zeros((), np.int64)
    run_kernel(kernel, result)
    assert result == 55
