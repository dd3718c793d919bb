"""Every op of the registry: typing against reference, refusals, and the reference at special values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Op
from gradloom.compiler.ops import arithmetic, comparison, contractions, elementwise, indexing, movement, reductions
from gradloom.compiler.ops.base import Elementwise, Inline, Reduction, TensorOp
from gradloom.compiler.types import BOOL, F32, I32, I64, U8
from op_cases import CASES, OpCase, types

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
elementwise_cases = pytest.mark.parametrize(
    "case", [case for case in CASES if isinstance(case.op, Elementwise)], ids=lambda case: case.name
)
seeds = st.integers(0, 2**32 - 1)


def test_every_op_has_a_case() -> None:
    covered = {case.op.name for case in CASES}
    missing = {name for name, op in Op.registry.items() if issubclass(op, TensorOp)} - covered
    assert not missing, f"tests/op_cases.py has no line for {sorted(missing)}"


def test_every_op_shows_its_text() -> None:
    for name, op in Op.registry.items():
        if issubclass(op, TensorOp):
            assert f"= {name}" in (op.__doc__ or ""), f"the docstring of {op.__name__} shows no line of IR"


@each_case
@settings(max_examples=5)
@given(seed=seeds, special=st.booleans())
def test_reference_has_the_inferred_type(case: OpCase, seed: int, special: bool) -> None:
    # The interpreter checks each result's shape and dtype; warnings are errors.
    graph = case.graph()
    graph.verify()
    interpret(graph, case.sample(seed, special))


@elementwise_cases
@settings(max_examples=10)
@given(data=st.data())
def test_elementwise_ops_broadcast_as_numpy(case: OpCase, data: st.DataObject) -> None:
    count = len(case.operands)
    drawn = data.draw(mutually_broadcastable_shapes(num_shapes=count, max_dims=3, min_side=0, max_side=3))
    other = case.with_shapes(*drawn.input_shapes)
    operands = other.sample(data.draw(seeds))
    (result,) = interpret(other.graph(), operands).values()
    assert result.shape == drawn.result_shape
    # One element at a time, the op sees no broadcasting.
    whole = np.broadcast_arrays(*operands.values())
    for place in np.ndindex(drawn.result_shape):
        alone = case.op.reference(*(np.asarray(array[place]) for array in whole))
        np.testing.assert_allclose(result[place], alone, rtol=1e-6)


@elementwise_cases
def test_elementwise_ops_refuse_mixed_dtypes(case: OpCase) -> None:
    if len(case.operands) < 2:
        return
    *first, last = case.operands
    mixed = [*first, types("i64[]" if last.dtype != types("i64[]")[0].dtype else "f32[]")[0]]
    with pytest.raises(DTypeError, match="Received"):
        case.op.type_of(*mixed)


@each_case
def test_the_number_of_operands_is_checked(case: OpCase) -> None:
    if case.op.arity is None:
        with pytest.raises(ShapeError, match="at least one operand"):
            case.op.type_of()
        return
    with pytest.raises(ShapeError, match=f"{case.op.arity} operands"):
        case.op.type_of(*case.operands, types("f32[]")[0])


@each_case
def test_a_data_set_is_read_by_gather_only(case: OpCase) -> None:
    if case.op.name in ("gather", "stop_gradient", "custom_gradient", "iota"):
        return
    rank = max(case.operands[0].rank, 1)
    opened = types(f"{case.operands[0].dtype}[{','.join(['?', *['3'] * (rank - 1)])}]")[0]
    with pytest.raises((ShapeError, DTypeError), match="Received"):
        case.op.type_of(opened, *case.operands[1:])


REFUSED: list[tuple[Op, str, type[Exception], str]] = [
    (elementwise.Exp(), "i32[3]", DTypeError, "Expected floats"),
    (elementwise.Negative(), "bool[3]", DTypeError, "Expected numbers"),
    (arithmetic.Add(), "f32[3] f32[4]", ShapeError, "broadcast"),
    (arithmetic.Divide(), "i32[3] i32[3]", DTypeError, "Expected floats"),
    (comparison.LogicalAnd(), "i32[3] i32[3]", DTypeError, "Expected bools"),
    (comparison.Select(), "f32[3] f32[3] f32[3]", DTypeError, "Expected a bool"),
    (movement.Reshape((4,)), "f32[3]", ShapeError, "3 elements"),
    (movement.Reshape((-1,)), "f32[3]", ShapeError, "3 elements"),
    (movement.Transpose((0, 0)), "f32[3,3]", ShapeError, "order of 2 axes"),
    (movement.BroadcastTo((4,)), "f32[3]", ShapeError, "broadcast"),
    (movement.BroadcastTo((1,)), "f32[3]", ShapeError, "broadcasts to"),
    (movement.Slice((0,), (4,), (1,)), "f32[3]", ShapeError, "stop <= 3"),
    (movement.Slice((0,), (3,), (0,)), "f32[3]", ShapeError, "stride >= 1"),
    (movement.Slice((0,), (3,), (1,)), "f32[3,3]", ShapeError, "2 axes"),
    (movement.Pad((-1,), (0,), (0,)), "f32[3]", ShapeError, "not negative"),
    (movement.Concatenate(0), "f32[3,2] f32[3,4]", ShapeError, "equal but along axis 0"),
    (movement.Concatenate(2), "f32[3,2]", ShapeError, "axis below 2"),
    (movement.Concatenate(0), "f32[3] i32[3]", DTypeError, "one dtype"),
    (movement.Reverse((1, 0)), "f32[3,2]", ShapeError, "ascending"),
    (movement.Iota((3,), 1, I32), "", ShapeError, "axis of the shape"),
    (movement.Iota((3,), 0, BOOL), "", DTypeError, "numbers"),
    (reductions.Sum((2,)), "f32[3,2]", ShapeError, "below 2"),
    (reductions.Sum((0,)), "bool[3]", DTypeError, "numbers"),
    (contractions.Matmul(), "f32[3,2] f32[3,2]", ShapeError, "inner sizes 2 and 3"),
    (contractions.Matmul(), "f32[3] f32[3,2]", ShapeError, "rank 2"),
    (contractions.Matmul(), "i32[3,2] i32[2,3]", DTypeError, "float dtype"),
    (indexing.Gather(), "f32[3] f32[2]", DTypeError, "integer dtype"),
    (indexing.Gather(), "f32[0,2] i32[2]", ShapeError, "at least one row"),
    (indexing.ScatterAdd(3), "f32[4,2] i32[3]", ShapeError, "one row for each index"),
    (indexing.ScatterAdd(0), "f32[4] i32[4]", ShapeError, "at least one row"),
]


@pytest.mark.parametrize(("op", "operands", "error", "message"), REFUSED, ids=lambda part: str(part))
def test_an_ill_typed_node_is_refused(op: Op, operands: str, error: type[Exception], message: str) -> None:
    graph = Graph()
    values = [graph.input(f"x{place}", type_) for place, type_ in enumerate(types(operands))]
    with pytest.raises(error, match=message) as caught:
        graph.apply(op, *values)
    assert str(caught.value).startswith(f"{op.name}({', '.join(str(value.type) for value in values)}): ")
    assert "test_ops.py" in str(caught.value)


def test_attributes_compare_by_value_and_share_a_node() -> None:
    graph = Graph()
    x = graph.input("x", types("f32[4,3]")[0])
    assert graph.apply(reductions.Sum((1,)), x) is graph.apply(reductions.Sum((1,)), x)
    assert graph.apply(reductions.Sum((1,)), x) is not graph.apply(reductions.Sum((0,)), x)
    assert graph.constant(0.0) is not graph.constant(-0.0)
    assert graph.constant(np.nan) is graph.constant(np.nan)


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.op, Reduction)], ids=lambda case: case.name)
def test_a_reduction_of_nothing_is_its_identity(case: OpCase) -> None:
    (operand,) = case.operands
    empty = np.zeros(tuple(0 if axis in case.op.axes else size for axis, size in enumerate(operand.shape)), bool)
    result = case.op.reference(empty.astype(operand.dtype.numpy))
    assert np.all(result == case.op.identity(operand.dtype))


def test_costs_rank_ops() -> None:
    costs = {name: op.cost for name, op in Op.registry.items() if issubclass(op, Inline)}
    assert costs["reshape"] == 0 < costs["add"] == 1 < costs["divide"] < costs["exp"]


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        (arithmetic.Maximum(), ([NAN, 1, -INF], [1, NAN, 2]), [NAN, NAN, 2]),
        (arithmetic.Minimum(), ([NAN, 1, INF], [1, NAN, 2]), [NAN, NAN, 2]),
        (elementwise.Sign(), ([NAN, -INF, 3],), [NAN, -1, 1]),
        (elementwise.Sigmoid(), ([-INF, INF, NAN],), [0, 1, NAN]),
        (elementwise.Sigmoid(), ([-1000.0, 1000.0],), [0, 1]),
        (elementwise.Log(), ([0, -1, INF],), [-INF, NAN, INF]),
        (elementwise.Round(), ([0.5, 1.5, -2.5],), [0, 2, -2]),
        (elementwise.Erf(), ([-INF, 0, INF, NAN],), [-1, 0, 1, NAN]),
        (arithmetic.Power(), ([0, NAN, -8, 2], [0, 0, 1 / 3, -1]), [1, 1, NAN, 0.5]),
        (arithmetic.Divide(), ([1, -1, 0], [0, 0, 0]), [INF, -INF, NAN]),
    ],
)
def test_references_at_special_values(op: TensorOp, operands: tuple[list[float], ...], expected: list[float]) -> None:
    result = op.reference(*(np.array(operand, np.float32) for operand in operands))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.array(expected, np.float32), rtol=1e-6)


def test_conversion_to_integers_truncates_and_saturates() -> None:
    x = np.array([NAN, INF, -INF, 1e20, -1e20, 2.9, -2.9, 255.5, 256, -0.5, 2147483520.0, -2147483648.0], np.float32)
    to_u8, to_i32, to_i64 = (elementwise.Convert(dtype).reference(x) for dtype in (U8, I32, I64))
    assert to_u8.tolist() == [0, 255, 0, 255, 0, 2, 0, 255, 255, 0, 255, 0]
    top, bottom = 2**31 - 1, -(2**31)
    assert to_i32.tolist() == [0, top, bottom, top, bottom, 2, -2, 255, 256, 0, 2147483520, bottom]
    assert to_i64[1:5].tolist() == [2**63 - 1, -(2**63), 2**63 - 1, -(2**63)]


def test_integer_division_is_total() -> None:
    x = np.array([7, -7, 7, -7, 5, -(2**31)], np.int32)
    y = np.array([2, 2, -2, -2, 0, -1], np.int32)
    assert arithmetic.FloorDivide().reference(x, y).tolist() == [3, -4, -4, 3, 0, -(2**31)]
    assert arithmetic.Remainder().reference(x, y).tolist() == [1, 1, -1, -1, 0, 0]


def test_gather_clamps_and_scatter_adds_what_gather_read() -> None:
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    indices = np.array([-5, 0, 2, 9, 1], np.int32)
    rows = indexing.Gather().reference(table, indices)
    assert rows[:, 0].tolist() == [0, 0, 4, 4, 2]
    counts = indexing.ScatterAdd(3).reference(np.ones((5, 2), np.float32), indices)
    assert counts.tolist() == [[2, 2], [1, 1], [2, 2]]


@settings(max_examples=30)
@given(seed=seeds, transpose_a=st.booleans(), transpose_b=st.booleans())
def test_matmul_reference_is_the_sum_of_products(seed: int, transpose_a: bool, transpose_b: bool) -> None:
    rng = np.random.default_rng(seed)
    m, k, n = rng.integers(1, 5, 3)
    a, b = rng.normal(size=(2, m, k)), rng.normal(size=(k, n))
    expected = [[[sum(a[s, i, p] * b[p, j] for p in range(k)) for j in range(n)] for i in range(m)] for s in range(2)]
    stored_a = a.transpose(0, 2, 1) if transpose_a else a
    stored_b = b.T if transpose_b else b
    result = contractions.Matmul(transpose_a, transpose_b).reference(stored_a, stored_b)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


def test_iota_wraps_like_its_dtype() -> None:
    assert movement.Iota((300,), 0, U8).reference()[256:259].tolist() == [0, 1, 2]
    assert movement.Iota((2, 3), 1, F32).reference().tolist() == [[0, 1, 2], [0, 1, 2]]
