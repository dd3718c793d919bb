"""Functions with the names of keras.ops against NumPy, the operands that they take, and what they refuse."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from function_runner import Function, run, sample
from gradloom import ops as public
from gradloom.compiler import ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.types import F32, F64, I32, OPEN, U8, TensorType

NAN, INF = np.nan, np.inf
seeds = st.integers(0, 2**32 - 1)


A, B = sample(1, 3, 4), sample(2, 4)
POSITIVE = np.abs(A) + 0.5
WHOLE = np.array([[7, -7, 0, 3], [2, 5, -4, -1]], np.int32)
OTHER = np.array([2, -2, 3, 5], np.int32)
TRUTH = np.array([[True, False, True], [False, False, True]])
WITH_NAN = np.array([[1.0, NAN, 3.0], [4.0, 2.0, 4.0]])

AGAINST_NUMPY: list[tuple[Function, Function, Sequence[Any]]] = [
    (ops.add, np.add, (A, B)),
    (ops.subtract, np.subtract, (A, B)),
    (ops.multiply, np.multiply, (A, B)),
    (ops.divide, np.divide, (A, B)),
    (ops.true_divide, np.divide, (A, B)),
    (ops.floor_divide, np.floor_divide, (A, B)),
    (ops.floor_divide, np.floor_divide, (WHOLE, OTHER)),
    (ops.mod, np.mod, (A, B)),
    (ops.mod, np.mod, (WHOLE, OTHER)),
    (ops.power, np.power, (POSITIVE, B)),
    (lambda x: ops.power(x, 3), lambda x: x**3, (A,)),
    (lambda x: ops.power(x, 0), np.ones_like, (A,)),
    (lambda x: x**-2, lambda x: x**-2.0, (A,)),
    (lambda x: x**5, lambda x: x**5, (WHOLE,)),
    (ops.negative, np.negative, (A,)),
    (ops.abs, np.abs, (A,)),
    (ops.sign, np.sign, (A,)),
    (ops.square, np.square, (WHOLE,)),
    (ops.sqrt, np.sqrt, (POSITIVE,)),
    (ops.rsqrt, lambda x: 1 / np.sqrt(x), (POSITIVE,)),
    (ops.reciprocal, np.reciprocal, (A,)),
    (ops.exp, np.exp, (A,)),
    (ops.expm1, np.expm1, (A,)),
    (ops.log, np.log, (POSITIVE,)),
    (ops.log1p, np.log1p, (POSITIVE,)),
    (ops.log2, np.log2, (POSITIVE,)),
    (ops.log10, np.log10, (POSITIVE,)),
    (ops.logaddexp, np.logaddexp, (A * 300, B)),
    (ops.tanh, np.tanh, (A,)),
    (ops.maximum, np.maximum, (A, B)),
    (ops.minimum, np.minimum, (A, B)),
    (lambda x: ops.clip(x, -0.5, 1), lambda x: np.clip(x, -0.5, 1), (A,)),
    (ops.floor, np.floor, (A,)),
    (ops.ceil, np.ceil, (A,)),
    (ops.round, np.round, (A * 3,)),
    (lambda x: ops.round(x, 2), lambda x: np.round(x, 2), (A,)),
    (ops.equal, np.equal, (WHOLE, OTHER)),
    (ops.not_equal, np.not_equal, (WHOLE, OTHER)),
    (ops.less, np.less, (A, B)),
    (ops.less_equal, np.less_equal, (WHOLE, OTHER)),
    (ops.greater, np.greater, (A, B)),
    (ops.greater_equal, np.greater_equal, (WHOLE, OTHER)),
    (ops.logical_and, np.logical_and, (TRUTH, TRUTH[0])),
    (ops.logical_or, np.logical_or, (TRUTH, TRUTH[0])),
    (ops.logical_xor, np.logical_xor, (TRUTH, TRUTH[0])),
    (ops.logical_not, np.logical_not, (WHOLE,)),
    (ops.where, np.where, (WHOLE > 0, WHOLE, OTHER)),
    (ops.isnan, np.isnan, (WITH_NAN,)),
    (ops.isinf, np.isinf, (np.array([INF, -INF, NAN, 1]),)),
    (ops.isfinite, np.isfinite, (np.array([INF, -INF, NAN, 1]),)),
    (ops.sum, np.sum, (A,)),
    (lambda x: ops.sum(x, axis=-1, keepdims=True), lambda x: np.sum(x, -1, keepdims=True), (A,)),
    (lambda x: ops.mean(x, axis=(0, -1)), lambda x: np.mean(x, (0, 1)), (A,)),
    (lambda x: ops.prod(x, axis=0), lambda x: np.prod(x, 0), (A,)),
    (lambda x: ops.var(x, 1), lambda x: np.var(x, 1), (A,)),
    (lambda x: ops.std(x, 0, keepdims=True), lambda x: np.std(x, 0, keepdims=True), (A,)),
    (lambda x: ops.max(x, 1), lambda x: np.max(x, 1), (WITH_NAN,)),
    (lambda x: ops.max(x, 1, initial=0.5), lambda x: np.max(x, 1, initial=0.5), (A,)),
    (lambda x: ops.amin(x, 1), lambda x: np.min(x, 1), (WITH_NAN,)),
    (lambda x: ops.any(x, 1), lambda x: np.any(x, 1), (TRUTH,)),
    (lambda x: ops.all(x, 0), lambda x: np.all(x, 0), (WHOLE,)),
    (lambda x: ops.argmax(x, 1), lambda x: np.argmax(x, 1).astype("i4"), (WITH_NAN,)),
    (lambda x: ops.argmin(x, 1, keepdims=True), lambda x: np.argmin(x, 1, keepdims=True).astype("i4"), (WITH_NAN,)),
    (ops.argmax, lambda x: np.argmax(x).astype("i4"), (WHOLE,)),
    (lambda x: ops.count_nonzero(x, 1), lambda x: np.count_nonzero(x, 1).astype("i4"), (WHOLE,)),
    (lambda x: ops.logsumexp(x, 1), lambda x: np.log(np.sum(np.exp(x), 1)), (A,)),
    (ops.norm, np.linalg.norm, (A,)),
    (lambda x: ops.norm(x, 1, axis=1), lambda x: np.linalg.norm(x, 1, axis=1), (A,)),
    (lambda x: ops.norm(x, INF, axis=0), lambda x: np.linalg.norm(x, INF, axis=0), (A,)),
    (lambda x: ops.norm(x, 3, axis=0), lambda x: np.linalg.norm(x, 3, axis=0), (A,)),
    (lambda x: ops.reshape(x, (2, -1)), lambda x: x.reshape(2, -1), (A,)),
    (lambda x: ops.reshape(x, -1), lambda x: x.reshape(-1), (TRUTH,)),
    (ops.ravel, np.ravel, (A,)),
    (ops.transpose, np.transpose, (A,)),
    (lambda x: ops.transpose(x, (2, 0, 1)), lambda x: np.transpose(x, (2, 0, 1)), (sample(3, 2, 3, 4),)),
    (lambda x: ops.swapaxes(x, 0, -1), lambda x: np.swapaxes(x, 0, -1), (sample(3, 2, 3, 4),)),
    (lambda x: ops.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), (sample(3, 2, 3, 4),)),
    (lambda x: ops.moveaxis(x, (0, 2), (1, 0)), lambda x: np.moveaxis(x, (0, 2), (1, 0)), (sample(3, 2, 3, 4),)),
    (lambda x: ops.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1)), (A,)),
    (lambda x: ops.squeeze(x, 1), lambda x: np.squeeze(x, 1), (A[:, None],)),
    (ops.squeeze, np.squeeze, (A[:, None, :, None],)),
    (lambda x: ops.broadcast_to(x, (2, 3, 4)), lambda x: np.broadcast_to(x, (2, 3, 4)), (B,)),
    (lambda x, y: ops.concatenate([x, y], -1), lambda x, y: np.concatenate([x, y], -1), (A, A[:, :2])),
    (lambda x, y: ops.stack([x, y], 1), lambda x, y: np.stack([x, y], 1), (A, A * 2)),
    (lambda x: ops.split(x, 2, axis=1), lambda x: np.split(x, 2, axis=1), (A,)),
    (lambda x: ops.split(x, [1, -1], axis=1), lambda x: np.split(x, [1, -1], axis=1), (A,)),
    (ops.flip, np.flip, (A,)),
    (lambda x: ops.flip(x, 1), lambda x: np.flip(x, 1), (A,)),
    (lambda x: ops.pad(x, 1), lambda x: np.pad(x, 1), (A,)),
    (
        lambda x: ops.pad(x, ((1, 0), (0, 2)), constant_values=7),
        lambda x: np.pad(x, ((1, 0), (0, 2)), constant_values=7),
        (WHOLE,),
    ),
    (lambda x: ops.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3)), (A,)),
    (lambda x: ops.tile(x, 2), lambda x: np.tile(x, 2), (A,)),
    (lambda x: ops.repeat(x, 3), lambda x: np.repeat(x, 3), (A,)),
    (lambda x: ops.repeat(x, 2, axis=-1), lambda x: np.repeat(x, 2, axis=-1), (A,)),
    (lambda x: ops.slice(x, (1, 0), (2, 3)), lambda x: x[1:3, 0:3], (A,)),
    (lambda x, i: ops.take(x, i, axis=1), lambda x, i: np.take(x, i, axis=1), (A, np.array([[3, -1], [0, -4]]))),
    (lambda x, i: ops.take(x, i), lambda x, i: np.take(x, i), (A, np.array([11, -12], np.int32))),
    (lambda x: ops.take(x, -1, axis=0), lambda x: x[-1], (A,)),
    (
        lambda x, i: ops.take_along_axis(x, i, axis=1),
        lambda x, i: np.take_along_axis(x, i, axis=1),
        (A, np.array([[3, -1], [0, 1], [2, 2]])),
    ),
    (lambda x: ops.one_hot(x, 4), lambda x: np.eye(4, dtype="f4")[x], (np.array([[0, 3], [1, 1]], np.uint8),)),
    (lambda x: ops.one_hot(x, 4, axis=0), lambda x: np.eye(4, dtype="f4")[x].T, (np.array([2, 0, 3]),)),
    (ops.matmul, np.matmul, (A, A.T)),
    (ops.matmul, np.matmul, (A, B)),
    (ops.matmul, np.matmul, (B, A.T)),
    (ops.matmul, np.matmul, (B, B)),
    (ops.matmul, np.matmul, (sample(4, 2, 3, 4), sample(5, 4, 5))),
    (ops.matmul, np.matmul, (sample(4, 2, 1, 3, 4), sample(5, 3, 4, 5))),
    (ops.matmul, np.matmul, (WHOLE, OTHER)),
    (ops.dot, np.dot, (sample(4, 2, 3, 4), sample(5, 6, 4, 5))),
    (ops.dot, np.dot, (A, B)),
    (ops.dot, np.dot, (A, np.float64(3))),
    (ops.outer, np.outer, (A, B)),
    (lambda x, y: ops.tensordot(x, y, 1), lambda x, y: np.tensordot(x, y, 1), (A, sample(3, 4, 2, 3))),
    (
        lambda x, y: ops.tensordot(x, y, ((0, 1), (2, 0))),
        lambda x, y: np.tensordot(x, y, ((0, 1), (2, 0))),
        (A, sample(3, 4, 2, 3)),
    ),
    *[
        (lambda *xs, s=subscripts: ops.einsum(s, *xs), lambda *xs, s=subscripts: np.einsum(s, *xs), operands)
        for subscripts, operands in [
            ("ij,kj->ik", (A, A)),
            ("bij,bjk->bik", (sample(4, 2, 3, 4), sample(5, 2, 4, 5))),
            ("ij->ji", (A,)),
            ("ij,j", (A, B)),
            ("ij,j->", (A, B)),
            ("i,j,jk->ki", (B, B, A.T)),
        ]
    ],
    (lambda: ops.arange(5), lambda: np.arange(5, dtype="i4"), ()),
    (lambda: ops.arange(2, -3, -2), lambda: np.arange(2, -3, -2, dtype="i4"), ()),
    (lambda: ops.arange(0.5, 2, 0.25), lambda: np.arange(0.5, 2, 0.25, dtype="f4"), ()),
    (lambda: ops.eye(3, 4, 1), lambda: np.eye(3, 4, 1, dtype="f4"), ()),
    (lambda: ops.eye(3, k=-1, dtype="int32"), lambda: np.eye(3, k=-1, dtype="i4"), ()),
    (lambda: ops.zeros((2, 3)), lambda: np.zeros((2, 3), "f4"), ()),
    (lambda: ops.ones(3, "int64"), lambda: np.ones(3, "i8"), ()),
    (lambda: ops.full((2,), 2.5), lambda: np.full((2,), 2.5, "f4"), ()),
    (lambda x: ops.zeros_like(x), np.zeros_like, (WHOLE,)),
    (lambda x: ops.ones_like(x, "float32"), lambda x: np.ones(x.shape, "f4"), (WHOLE,)),
    (lambda x: ops.full_like(x, 3), lambda x: np.full_like(x, 3), (A,)),
    (lambda x: ops.cast(x, "int32"), lambda x: x.astype("i4"), (A * 5,)),
    (lambda: ops.convert_to_tensor([[1, 2], [3, 4]]), lambda: np.array([[1, 2], [3, 4]], "i4"), ()),
    (lambda: ops.convert_to_tensor([1.5, 2]), lambda: np.array([1.5, 2], "f4"), ()),
]


@pytest.mark.parametrize(("function", "expected", "arrays"), AGAINST_NUMPY)
def test_against_numpy(function: Function, expected: Function, arrays: Sequence[np.ndarray]) -> None:
    found, wanted = run(function, *arrays), expected(*arrays)
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, list) else [(found, np.asarray(wanted))]
    for result, right in pairs:
        assert (result.dtype, result.shape) == (right.dtype, right.shape)
        np.testing.assert_allclose(result, right, rtol=1e-12 if right.dtype == np.float64 else 1e-6, atol=1e-14)


def test_public_names_are_the_functions() -> None:
    for name in public.__all__:
        # The public ones take symbolic tensors besides, and hand everything else on.
        assert inspect.unwrap(getattr(public, name)) is inspect.unwrap(getattr(ops, name))


# Indexing.


@settings(max_examples=150)
@given(data=st.data(), shape=array_shapes(min_dims=1, max_dims=4, max_side=5))
def test_basic_indexing_as_numpy(data: st.DataObject, shape: tuple[int, ...]) -> None:
    key = data.draw(basic_indices(shape, allow_newaxis=True))
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    np.testing.assert_array_equal(run(lambda v: v[key], x), x[key])


@settings(max_examples=50)
@given(seed=seeds, axis=st.integers(0, 2), rank=st.integers(0, 2))
def test_indexing_by_a_tensor_as_numpy(seed: int, axis: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 99, (3, 4, 5))
    index = rng.integers(-x.shape[axis], x.shape[axis], (2, 3)[:rank])
    before = (slice(None),) * axis
    np.testing.assert_array_equal(run(lambda v, i: v[(*before, i)], x, index), x[(*before, index)])


def test_iteration_and_unpacking() -> None:
    x = sample(0, 2, 3)
    first, second = run(lambda v: list(v), x)
    np.testing.assert_array_equal([first, second], x)


def test_indices_outside_take_the_nearest_row_and_python_integers_raise() -> None:
    found = run(lambda v, i: ops.take(v, i, 0), np.arange(4.0), np.array([9, -9]))
    assert found.tolist() == [3, 0]
    with pytest.raises(ShapeError, match="index from -4 to 3"):
        run(lambda v: v[4], np.arange(4.0))


@pytest.mark.parametrize("key", [True, 1.5, "a", np.array([True, False]), (0, np.array([1]))])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="Expected"):
        run(lambda v: v[key], np.zeros((2, 2)))


# Dtypes.


@pytest.mark.parametrize(
    ("function", "arrays", "dtype"),
    [
        (ops.add, (np.float32(1), np.int64(1)), "float32"),
        (ops.add, (np.uint8(1), np.int32(1)), "int32"),
        (ops.add, (np.float32(1), np.float64(1)), "float64"),
        (lambda x: x + 1, (np.uint8(1),), "uint8"),
        (lambda x: x + 1.5, (np.uint8(1),), "float32"),
        (lambda x: x * True, (np.float64(1),), "float64"),
        (lambda x: x + 1, (np.bool_(True),), "int32"),
        (lambda x: 1.5 - x, (np.float64(1),), "float64"),
        (lambda x: x * np.float64(0.5), (np.float32(1),), "float32"),
        (lambda x: x / 2, (np.int64(1),), "float32"),
        (lambda x: x // 2, (np.int64(1),), "int64"),
        (ops.mean, (np.arange(3),), "float32"),
        (ops.sum, (np.array([True]),), "int32"),
        (ops.sum, (np.array([1], np.uint8),), "int32"),
        (ops.exp, (np.int32(1),), "float32"),
        (ops.floor, (np.int32(1),), "int32"),
        (lambda c: ops.where(c, 1, 0), (np.array([True]),), "int32"),
        (lambda c: ops.where(c, 1.0, 0), (np.array([True]),), "float32"),
        (ops.add, (np.bool_(True), np.bool_(True)), "bool"),
    ],
)
def test_promotion(function: Function, arrays: Sequence[Any], dtype: str) -> None:
    assert run(function, *arrays).dtype == dtype


def test_a_number_that_the_dtype_cannot_hold_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"uint8 holds: 0 to 255. Received: 256"):
        run(lambda x: x + 256, np.uint8(1))


# Operands.


def test_without_a_graph_functions_point_to_gl_function() -> None:
    with pytest.raises(TypeError, match=r"add builds a graph.*gl\.function.*Received: float, ndarray"):
        ops.add(1.0, np.zeros(3))
    with pytest.raises(TypeError, match=r"arange builds a graph.*gl\.function"):
        ops.arange(3)


def test_what_is_no_operand_is_refused() -> None:
    with pytest.raises(TypeError, match=r"add: expected a tensor.*Received: 'text'"):
        run(lambda x: ops.add(x, "text"), np.zeros(3))
    with pytest.raises(TypeError, match=r"gl\.ops\.stack"):
        run(lambda x: ops.add(x, [x, x]), np.zeros(3))


def test_small_arrays_become_literals_and_large_ones_arguments() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(F64, ()))
    small, large = np.arange(128.0), np.arange(129.0)
    first, second, third = x + small, x + large, x * large
    assert first.inputs[1].op.name == "constant"
    assert second.inputs[1] is third.inputs[1]
    assert list(graph.captured) == ["captured_0"]
    large[:] = 0
    graph.output("sum", ops.sum(second))
    rebuilt, _ = graph.rebuild()
    assert interpret(rebuilt, {"x": np.array(0.0)})["sum"] == 128 * 129 / 2


def test_strided_and_big_endian_arrays_are_captured_by_value() -> None:
    x = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(run(lambda: ops.convert_to_tensor(x)), x)
    assert run(lambda: ops.convert_to_tensor(x)).dtype == np.float32


def test_a_variable_gives_its_value() -> None:
    class Variable:
        def symbolic(self, graph: Graph) -> Value:
            return graph.input("weight", TensorType(F32, (3,)), role="parameter")

    graph = Graph()
    x = graph.input("x", TensorType(F32, (3,)))
    assert (x * Variable()).inputs == (x, graph.values[1])
    assert ops.multiply(Variable(), x).inputs[0] is graph.values[1]
    with building(graph):
        assert ops.relu(Variable()).inputs[0] is graph.values[1]


def test_array_operators_yield_to_values() -> None:
    found = run(lambda x: [np.ones(3) - x, np.float32(2) * x, np.eye(3) @ x], np.arange(3.0))
    np.testing.assert_array_equal(found, [[1, 0, -1], [0, 2, 4], [0, 1, 2]])


# Shapes and axes.


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: ops.sum(x, axis=2), r"sum: expected an axis from -2 to 1. Received: axis=2"),
        (lambda x: ops.mean(x, axis=(0, -2)), r"expected different axes"),
        (lambda x: ops.reshape(x, (4, -1)), r"reshape: expected a shape of 6 elements. Received: \(4, -1\)"),
        (lambda x: ops.reshape(x, (4,)), r"6 elements"),
        (lambda x: ops.squeeze(x, 0), r"squeeze: expected axes of size 1"),
        (lambda x: ops.matmul(x, x), r"matmul: expected the last size of the first operand"),
        (lambda x: ops.max(x[:0]), r"max: expected at least one element"),
        (lambda x: ops.argmax(x, axis=5), r"argmax: expected an axis"),
        (lambda x: ops.split(x, 4, axis=1), r"split: expected a number of sections that divides 3"),
        (lambda x: ops.stack([x, x[0]]), r"stack: expected tensors of one shape"),
        (lambda x: ops.concatenate([]), r"at least one tensor"),
        (lambda x: ops.tensordot(x, x, ((0,), (1,))), r"pairs of axes of equal size"),
        (lambda x: ops.einsum("ij,jk->ik", x, x), r"einsum: expected one size for 'j'"),
        (lambda x: ops.einsum("ijk->i", x), r"einsum: expected subscripts"),
        (lambda x: ops.zeros((2, 1.5)), r"zeros: expected a shape of integers|full: expected a shape of integers"),
        (lambda x: ops.softmax(x, axis=3), r"expected an axis from -2 to 1"),
        (lambda x: ops.pad(x, ((1, 1), (1, 1), (1, 1))), r"pad: expected one pair of counts"),
        (lambda x: ops.sparse_categorical_crossentropy([0, 1, 2], x), r"one class for each row of the output"),
        (lambda x: ops.categorical_crossentropy([0.0, 1, 2], x), r"categorical_crossentropy: expected one shape"),
    ],
)
def test_misfits_are_refused(function: Function, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        run(function, sample(0, 2, 3))


def test_a_data_set_is_not_an_operand() -> None:
    graph = Graph()
    data = graph.input("x", TensorType(U8, (OPEN, 3)), role="data")
    for function in (ops.relu, ops.sum, ops.ravel, ops.transpose, lambda x: x[0]):
        with pytest.raises(ShapeError, match=r"known shape"):
            function(data)


def test_values_have_python_operators() -> None:
    x, y = np.array([7.0, -7.0]), np.array([2.0, 2.0])

    def all_of_them(a: Value, b: Value) -> list[Value]:
        return [
            a + b,
            a - b,
            a * b,
            a / b,
            a // b,
            a % b,
            b**a,
            -a,
            abs(a),
            a @ b,
            ops.cast(~((a < b) & (a >= b)), F64),
        ]

    found = run(all_of_them, x, y)
    expected = [x + y, x - y, x * y, x / y, x // y, x % y, y**x, -x, abs(x), x @ y, np.ones(2)]
    for result, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(result, right)


def test_shape_functions_answer_in_python() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(I32, (2, 3)))
    assert (ops.shape(x), ops.ndim(x), ops.size(x), len(x)) == ((2, 3), 2, 6, 2)
