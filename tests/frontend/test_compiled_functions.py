"""gl.function, gl.grad, gl.value_and_grad and gl.trace."""

from __future__ import annotations

import threading
from collections import namedtuple
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import gradloom as gl
from gradloom.compiler.errors import DTypeError, ShapeError

Pair = namedtuple("Pair", "left right")


def test_trace_names_inputs_by_parameters_and_outputs_by_their_place() -> None:
    def f(x: Any, state: Any, scale: Any) -> Any:
        return {"y": x * scale + state["bias"][0], "twice": (x + x,)}

    spec = gl.TensorSpec((2, 3))
    graph = gl.trace(f, spec, {"bias": [gl.TensorSpec((3,))]}, scale=np.float64(2))
    assert [str(value.op.attributes["label"]) for value in graph.inputs] == ["x", "state.bias.0", "scale"]
    assert [str(value.type) for value in graph.inputs] == ["f32[2,3]", "f32[3]", "f64[]"]
    assert [output.name for output in graph.outputs] == ["result.twice.0", "result.y"]
    assert [str(output.value.type) for output in graph.outputs] == ["f32[2,3]", "f64[2,3]"]
    assert graph.name == "f"
    assert gl.compiler.parse(str(graph)) == graph


def test_trace_refuses_open_shapes() -> None:
    with pytest.raises(ValueError, match=r"Expected a shape of known, non-negative sizes. Received: shape=\(None, 3\)"):
        gl.TensorSpec((None, 3))  # type: ignore[arg-type]


def test_a_function_returns_what_python_would() -> None:
    @gl.function
    def f(x: Any, y: Any) -> Any:
        """Doc."""
        return Pair(x + y, {"product": [x * y, None]})

    x, y = np.arange(6.0).reshape(2, 3), np.full((2, 3), 0.5)
    result = f(x, y=y)
    assert isinstance(result, Pair) and result.right["product"][1] is None
    np.testing.assert_array_equal(result.left, x + y)
    np.testing.assert_array_equal(result.right["product"][0], x * y)
    assert result.left.dtype == np.float64
    assert (f.__name__, f.__doc__) == ("f", "Doc.")


@pytest.mark.parametrize(
    ("argument", "dtype"),
    [
        (1.5, "float32"),
        (2, "int32"),
        (2**40, "int64"),
        ([1.0, 2.0], "float32"),
        ([[1, 2], [3, 4]], "int32"),
        (np.float64(1.5), "float64"),
        (np.array([1, 2]), "int64"),
        (np.array([1.5], np.float16), "float32"),
        (np.array([1.5], ">f8"), "float64"),
        (np.arange(10.0)[::-2], "float64"),
        (np.zeros((0, 3), np.float32), "float32"),
        (True, "bool"),
    ],
    ids=str,
)
def test_arguments_of_any_form(argument: Any, dtype: str) -> None:
    result = gl.function(lambda x: x)(argument)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, argument)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(-(2**63), "int64"), (-(2**31) - 1, "int64"), (-(2**31), "int32"), (2**31 - 1, "int32"), (2**31, "int64")],
)
def test_integers_written_in_python_keep_their_value(number: int, dtype: str) -> None:
    result = gl.function(lambda x: x)(number)
    assert result == number and result.dtype == dtype


def test_scalar_results_are_numpy_scalars() -> None:
    result = gl.function(lambda x: gl.ops.sum(x))(np.ones(3))
    assert isinstance(result, np.float64) and result == 3


def test_arguments_are_not_written_and_results_are_new() -> None:
    x = np.arange(3.0)
    x.flags.writeable = False
    f = gl.function(lambda x: x)
    one, other = f(x), f(x)
    one += 1
    np.testing.assert_array_equal(other, x)
    np.testing.assert_array_equal(x, [0, 1, 2])


def test_each_type_is_traced_once() -> None:
    traced = []

    @gl.function
    def f(x: Any) -> Any:
        traced.append(x.type)
        return x + 1

    for argument in (np.zeros(3), np.ones(3), np.zeros(4), np.zeros(3, np.float32), np.ones(4)):
        f(argument)
    assert list(map(str, traced)) == ["f64[3]", "f64[4]", "f32[3]"]


def test_an_argument_may_be_called_result() -> None:
    def f(result: Any) -> Any:
        return {"a": result[0] + 1}

    np.testing.assert_array_equal(gl.function(f)((np.ones(2), np.zeros(2)))["a"], [2, 2])
    assert [output.name for output in gl.trace(f, [gl.TensorSpec(())]).outputs] == ["result_.a"]


ONE, TWO = np.float32(1), np.float32(2)


def positional_and_keyword(a: Any, *rest: Any, **named: Any) -> Any:
    return rest[0] - named["argument_1"] + 0 * a


@pytest.mark.parametrize(
    ("f", "args", "named", "expected"),
    [
        (lambda d: d["a"]["b"] - d["a.b"], ({"a": {"b": ONE}, "a.b": TWO},), {}, -1),
        (lambda d: d[1] - d["1"], ({1: ONE, "1": TWO},), {}, -1),
        (lambda d: d["x"] - d["x_1"] - d[1]["x"], ({"x": ONE, "x_1": TWO, 1: {"x": TWO}},), {}, -3),
        (positional_and_keyword, (ONE, ONE), {"argument_1": TWO}, -1),
    ],
)
def test_arguments_whose_names_coincide_are_told_apart(f: Any, args: Any, named: Any, expected: float) -> None:
    assert gl.function(f)(*args, **named) == expected
    labels = [value.op.attributes["label"] for value in gl.trace(f, *args, **named).inputs]
    assert len(labels) == len(set(labels))


def test_results_whose_names_coincide_are_told_apart() -> None:
    result = gl.function(lambda x: {"a": {"b": x}, "a.b": x + 1, 1: x + 2, "1": x + 3})(ONE)
    assert result == {"a": {"b": 1}, "a.b": 2, 1: 3, "1": 4}


def test_an_argument_may_be_called_like_a_captured_array() -> None:
    table = np.arange(600, dtype=np.float32)
    result = gl.function(lambda captured_0: captured_0 - table)(np.ones(600, np.float32))
    np.testing.assert_array_equal(result, 1 - table)


def test_functions_call_functions() -> None:
    inner = gl.function(lambda x: x * 2)
    outer = gl.function(lambda x: inner(x) + inner(x + 1))
    assert outer(np.float32(3)) == 14


def test_variables_are_read_and_written() -> None:
    counter = gl.Variable(np.zeros(2), dtype="float32", name="counter")

    @gl.function
    def count(x: Any) -> Any:
        counter.assign(counter + x)
        return counter * 10

    np.testing.assert_array_equal(count(np.float32(1)), [10, 10])
    np.testing.assert_array_equal(count(np.float32(2)), [30, 30])
    np.testing.assert_array_equal(counter.value, [3, 3])
    counter.assign([0, 1])
    np.testing.assert_array_equal(count(np.float32(0)), [0, 10])


def test_large_arrays_from_outside_are_arguments_of_the_graph() -> None:
    table = np.random.default_rng(0).standard_normal((40, 50))
    result = gl.function(lambda x: x @ table)(np.ones((2, 40)))
    np.testing.assert_allclose(result, np.ones((2, 40)) @ table)
    assert len(str(gl.trace(lambda x: x @ table, gl.TensorSpec((2, 40), "float64")))) < 2000


def test_threads_may_call_one_function() -> None:
    f = gl.function(lambda x: gl.ops.sum(x * x))
    results: dict[int, list[float]] = {}

    def work(n: int) -> None:
        results[n] = [float(f(np.full(100, float(n)))) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [100.0 * n * n] * 20 for n in range(6)}


def test_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match="for argument x, with dtype bool, uint8.*Received: str of dtype"):
        gl.function(lambda x: x)("abc")
    with pytest.raises(TypeError, match="for argument x.*Received: ndarray of dtype complex128"):
        gl.function(lambda x: x)(np.zeros(2, complex))
    with pytest.raises(TypeError, match="Expected arrays as the results of function. Received: result.1 = 'text'"):
        gl.function(lambda x: (x, "text"))(1.0)
    with pytest.raises(TypeError, match="Expected a function of arrays. Received: 3"):
        gl.function(3)  # type: ignore[arg-type]


# Gradients.


def test_grad_of_known_functions() -> None:
    x = np.linspace(-2, 2, 9)
    for f, derivative in (
        (lambda x: gl.ops.sum(x**3), 3 * x**2),
        (lambda x: gl.ops.sum(gl.ops.tanh(x)), 1 / np.cosh(x) ** 2),
        (lambda x: gl.ops.mean(gl.ops.exp(-x)), -np.exp(-x) / 9),
    ):
        np.testing.assert_allclose(gl.grad(f)(x), derivative, rtol=1e-10)


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_value_and_grad_against_differences(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal((columns, 2)), rng.standard_normal((rows, columns))

    def f(w: Any, x: Any) -> Any:
        return gl.ops.sum(gl.ops.tanh(x @ w) * gl.ops.exp(gl.ops.mean(w)))

    def reference(w: np.ndarray) -> float:
        return float(np.sum(np.tanh(x @ w) * np.exp(np.mean(w))))

    value, gradient = gl.value_and_grad(f)(w, x)
    direction = rng.standard_normal(w.shape)
    step = 1e-6
    slope = (reference(w + step * direction) - reference(w - step * direction)) / (2 * step)
    assert value == pytest.approx(reference(w), rel=1e-12)
    assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_argnums_and_trees() -> None:
    def f(a: Any, b: Any) -> Any:
        return gl.ops.sum(a["w"] * b) + gl.ops.sum(a["v"][0])

    a = {"w": np.arange(3.0), "v": [np.ones(2)]}
    b = np.array([1.0, 2.0, 4.0])
    gradient = gl.grad(f)(a, b)
    np.testing.assert_array_equal(gradient["w"], b)
    np.testing.assert_array_equal(gradient["v"][0], [1, 1])
    np.testing.assert_array_equal(gl.grad(f, argnums=1)(a, b), a["w"])
    np.testing.assert_array_equal(gl.grad(f, argnums=-1)(a, b), a["w"])
    value, (by_b, by_a) = gl.value_and_grad(f, argnums=(1, 0))(a, b)
    assert value == 12
    np.testing.assert_array_equal(by_b, a["w"])
    np.testing.assert_array_equal(by_a["w"], b)


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2), (-1, 0, 1, -2)])
def test_argnums_may_repeat(argnums: tuple[int, ...]) -> None:
    gradients = gl.grad(lambda a, b: a * a * b, argnums=argnums)(3.0, 5.0)
    assert [float(gradient) for gradient in gradients] == [(30, 9)[number] for number in argnums]


def test_a_custom_gradient_has_the_shape_of_its_argument() -> None:
    @gl.ops.custom_gradient
    def f(x: Any) -> Any:
        return x, lambda upstream: gl.ops.ones((2, 5))

    with pytest.raises(ShapeError, match=r"argument's shape \(3,\). Received: shape \(2, 5\)"):
        gl.grad(lambda x: gl.ops.sum(f(x)))(np.ones(3))


def test_an_axis_is_an_integer() -> None:
    with pytest.raises(TypeError, match="sum: expected axis as an integer. Received: axis='0'"):
        gl.function(lambda x: gl.ops.sum(x, axis="0"))(np.ones(3))


@pytest.mark.smoke
def test_gradients_nest() -> None:
    def f(x: Any) -> Any:
        return x**4

    for order, factor in enumerate((4 * 8, 12 * 4, 24 * 2, 24, 0), start=1):
        derivative: Any = f
        for _ in range(order):
            derivative = gl.grad(derivative)
        assert derivative(np.float64(2)) == pytest.approx(factor)


def test_gradients_inside_of_functions() -> None:
    @gl.function
    def newton(x: Any) -> Any:
        slope = gl.grad(lambda x: x**3 - 2.0)
        for _ in range(6):
            x = x - (x**3 - 2.0) / slope(x)
        return x

    assert newton(np.float64(1.5)) == pytest.approx(2 ** (1 / 3), rel=1e-14)


def test_only_the_argument_is_varied_not_the_same_value_by_closure() -> None:
    @gl.function
    def f(x: Any) -> Any:
        return gl.grad(lambda a: a * x)(x), gl.grad(lambda a: a * a)(x), gl.grad(lambda a: 3.0 * x)(x)

    assert f(np.float64(5)) == (5, 10, 0)
    # d/dx of (x · d/da(a·x) at x) = d/dx x² = 2x
    assert gl.grad(lambda x: x * gl.grad(lambda a: a * x)(x))(np.float64(5)) == 10


def test_custom_gradients_are_heeded() -> None:
    @gl.ops.custom_gradient
    def clipped(x: Any) -> Any:
        return x * x, lambda upstream: upstream * 100.0

    assert gl.grad(lambda x: clipped(x))(np.float64(3)) == 100
    assert gl.function(lambda x: clipped(x))(np.float64(3)) == 9


def test_what_cannot_be_differentiated_is_refused() -> None:
    def vector(x: Any) -> Any:
        return x * 2

    with pytest.raises(ShapeError, match=r"Expected vector to return a floating-point scalar. Received: f64\[3\]"):
        gl.grad(vector)(np.ones(3))
    with pytest.raises(TypeError, match="gl.value_and_grad: Expected function to return one scalar. Received: a tuple"):
        gl.value_and_grad(lambda x: (x, x))(1.0)
    with pytest.raises(DTypeError, match=r"floating-point arguments of vector.*Received: an argument of type i32\[\]"):
        gl.grad(vector)(3)
    with pytest.raises(ValueError, match="Expected argnums below 1.*Received: argnums=1"):
        gl.grad(vector, argnums=1)(1.0)
    with pytest.raises(TypeError, match="gl.grad: Expected a function. Received: 'f'"):
        gl.grad("f")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("f", "where"),
    [
        (lambda x: x[:, None] * x[None, :], "no intermediate results"),
        (lambda x: gl.ops.matmul(gl.ops.softmax(x[:, None] * x[None, :]), x), "the peak is in kernel"),
        (lambda x: gl.ops.matmul(gl.ops.zeros((x.shape[0], x.shape[0])) + 1.0, x), "for its arguments"),
    ],
    ids=["result", "intermediate", "prepared"],
)
def test_more_memory_than_there_is(f: Any, where: str) -> None:
    with pytest.raises(gl.compiler.MemoryLimitError, match=f"{where}.*; the limit is the memory that there is$"):
        gl.function(f)(np.ones(2_000_000, np.float32))


def test_a_warm_cache_lets_nothing_through_that_needs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def outer(x: Any) -> Any:
        return gl.ops.sum(gl.ops.softmax(x[:, None] * x[None, :]), axis=0)

    x = np.ones(1000, np.float32)
    expected = gl.function(outer)(x)
    monkeypatch.setattr("gradloom.runtime.memory.physical_memory", lambda: 3_000_000)
    with pytest.raises(MemoryError, match="Expected a program within memory_limit=3000000 bytes"):
        gl.function(outer)(x)
    monkeypatch.setattr("gradloom.runtime.memory.physical_memory", lambda: 30_000_000)
    np.testing.assert_array_equal(gl.function(outer)(x), expected)
