"""Variables on the host and in traces."""

import operator
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import gradloom as gl
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.program import ALIGNMENT
from gradloom.compiler.types import F32, TensorType
from gradloom.initializers import RandomNormal
from gradloom.saving.weights import assign
from gradloom.variables import Trace, Variable
from interpreted import evaluate


@given(
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5), st.sampled_from(["float32", "int64", "uint8", "bool"])
)
def test_value_is_owned_aligned_and_contiguous(shape, dtype):
    initial = np.ones(shape, dtype)
    variable = Variable(initial, dtype=dtype)
    assert variable.size == 0 or variable.value.ctypes.data % ALIGNMENT == 0
    assert variable.value.flags.c_contiguous and not variable.value.flags.writeable
    assert not np.shares_memory(variable.value, initial)
    assert variable.value.dtype == dtype and variable.shape == shape
    np.testing.assert_array_equal(variable.value, initial)


def test_initializers_by_name_instance_and_function():
    assert (Variable("ones", (2, 3)).value == 1).all()
    assert (Variable(lambda shape, dtype: np.full(shape, 7, dtype), (2,)).value == 7).all()
    assert float(Variable(0.5)) == 0.5
    with pytest.raises(ShapeError, match="'v'.*Expected a shape"):
        Variable("ones", name="v")
    with pytest.raises(ShapeError, match=r"Expected shape \(2,\)\. Received: \(3,\)"):
        Variable(np.zeros(3), shape=(2,))


def test_a_value_is_not_written_in_place():
    for variable in (Variable(np.zeros(3)), Variable(1.0)):
        with pytest.raises(ValueError, match="read-only"):
            variable.value[...] = 1


def test_assign_copies_in_place_and_counts():
    variable = Variable(np.zeros((2, 3)), path="dense/kernel")
    memory = variable.value
    source = np.arange(6.0).reshape(2, 3)
    variable.assign(source)
    source[:] = -1
    np.testing.assert_array_equal(memory, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert variable.version == 1 and np.shares_memory(variable.value, memory)
    variable.changed()
    assert variable.version == 2
    variable.assign_add(np.ones((2, 3)))
    variable.assign_sub(2.0 * np.ones((2, 3)))
    np.testing.assert_array_equal(memory, np.arange(6, dtype=np.float32).reshape(2, 3) - 1)


@pytest.mark.parametrize("shape", [(3, 2), (6,), (), (1, 3)])
def test_assign_refuses_other_shapes_and_keeps_the_value(shape):
    variable = Variable(np.ones((2, 3)), path="dense/kernel")
    with pytest.raises(ShapeError, match=r"'dense/kernel': Expected shape \(2, 3\)\. Received: "):
        variable.assign(np.zeros(shape))
    assert variable.version == 0 and (variable.value == 1).all()


def test_assign_refuses_floats_for_integers():
    with pytest.raises(DTypeError, match=r"int64.*Received: float64"):
        Variable(0, dtype="int64").assign(0.5)


def test_numpy_and_array_are_copies():
    variable = Variable(np.zeros(3))
    for copy in (variable.numpy(), np.asarray(variable), np.array(variable, dtype=np.float64)):
        copy[:] = 1
    assert (variable.value == 0).all()


def test_a_trace_makes_one_input_per_variable_in_order_of_touch():
    a, b = Variable(np.ones(3), path="a"), Variable(np.ones(3), path="b", role="state")
    graph = Graph()
    with Trace(graph) as trace:
        first = b.symbolic(graph)
        assert b.symbolic(graph) is first
        a.symbolic(graph)
    assert trace.variables == [b, a]
    assert [value.op for value in graph.inputs] == [
        Input("b", TensorType(F32, (3,)), "state"),
        Input("a", TensorType(F32, (3,)), "parameter"),
    ]
    array = trace.arguments()["a"]
    assert array.flags.writeable and np.shares_memory(array, a.value)


def test_variables_of_equal_path_get_different_labels():
    twins = [Variable(np.full(2, float(n)), path="dense/kernel") for n in range(3)]
    result = evaluate(lambda: twins[0] + 10.0 * twins[1] + 100.0 * twins[2])
    np.testing.assert_array_equal(result, [210, 210])


def test_reading_after_assigning_gives_the_new_state():
    variable = Variable(np.array([1.0, 2.0]), path="v")
    graph = Graph()
    with Trace(graph) as trace:
        old = variable.symbolic(graph)
        variable.assign(variable * 2.0)
        new = variable.symbolic(graph)
        variable.assign(variable + 1.0)
        trace.finish()
    assert new is not old
    (output,) = graph.outputs
    assert output.name == "v" and output.donor is old
    assert (variable.value == [1, 2]).all(), "tracing changes no value"


def test_swapping_two_variables():
    a, b = Variable(np.array([1.0])), Variable(np.array([2.0]))

    def swap():
        old = a * 1.0
        a.assign(b * 1.0)
        b.assign(old)

    evaluate(swap)
    assert (a.value, b.value) == ([2.0], [1.0])


def test_a_symbolic_assignment_is_converted_and_checked():
    variable = Variable(0, dtype="int64", path="count")
    evaluate(lambda x: variable.assign(x * 2.0), np.float32(3.7))
    assert variable.value == 7
    with pytest.raises(ShapeError, match=r"'count': Expected shape \(\)\. Received: \(2,\)"):
        evaluate(lambda x: variable.assign(x), np.zeros(2, np.float32))


def test_unchanged_variables_are_no_outputs():
    variable = Variable(1.0)
    graph = Graph()
    with Trace(graph) as trace:
        variable.assign(variable.symbolic(graph))
        trace.finish()
    assert graph.outputs == []


ARITHMETIC = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "power": lambda x, y: x**y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
}


@pytest.mark.parametrize("operation", ARITHMETIC)
def test_python_operators_in_a_trace(operation):
    f = ARITHMETIC[operation]
    x, y = np.array([0.5, 1.0, 2.0], np.float32), np.array([2.0, 1.0, 0.25], np.float32)
    a, b = Variable(x), Variable(y)
    expected = f(x.astype(np.float64), y)
    np.testing.assert_allclose(evaluate(lambda: f(a, b)), expected, rtol=1e-6)
    np.testing.assert_allclose(evaluate(lambda v: f(a, v), y), expected, rtol=1e-6)
    np.testing.assert_allclose(evaluate(lambda v: f(v, b), x), expected, rtol=1e-6)
    np.testing.assert_allclose(evaluate(lambda: f(x, b)), expected, rtol=1e-6)
    np.testing.assert_allclose(evaluate(lambda: f(2.0, b)), f(2.0, y.astype(np.float64)), rtol=1e-6)


def test_matmul_negation_and_indexing_in_a_trace():
    x, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(3, 4)
    kernel = Variable(w)
    np.testing.assert_array_equal(evaluate(lambda v: v @ kernel, x), x @ w)
    np.testing.assert_array_equal(evaluate(lambda v: kernel @ v, w.T.copy()), w @ w.T)
    np.testing.assert_array_equal(evaluate(lambda: abs(-kernel)[1]), w[1])


@pytest.mark.parametrize("compare", [operator.eq, operator.ne])
def test_equality_says_which_function_compares_elements(compare):
    """Python would say that they are not the same object, and `where` take that for a condition."""
    variable = Variable([1.0, 2.0], path="scale")
    tensor = gl.Input((2,))
    pairs = [lambda a: (a, 0), lambda a: (0.0, a), lambda a: (a, np.ones(2)), lambda a: (np.ones(2), a)]
    pairs += [lambda a: (a, a + 1), lambda a: (a, [1, 2]), lambda a: (a, variable), lambda a: (variable, a)]
    others = [gl.Input((2,)), Variable([1.0, 2.0], path="shift")]
    for pair in pairs:
        with pytest.raises(TypeError, match=r"Expected gl.ops.equal\(x, y\) or gl.ops.not_equal"):
            evaluate(lambda a, pair=pair: compare(*pair(a)), np.zeros(2, np.float32))
    for pair in ((variable, 1.0), (tensor, np.float32(1)), (np.ones(2), tensor), (variable, [1.0, 2.0])):
        with pytest.raises(TypeError, match=r"Expected gl.ops.equal\(x, y\) or gl.ops.not_equal"):
            compare(*pair)
    for thing in (variable, tensor):
        assert compare(thing, thing) is compare(1, 1)
        assert compare(thing, None) is compare(thing, "zeros") is compare([thing], others[:1]) is compare(1, 2)
        assert {thing: 1}[thing]


def test_outside_of_a_trace_arithmetic_is_refused():
    variable = Variable(1.0, path="scale")
    with pytest.raises(TypeError, match=r"'scale'.*while a graph is traced"):
        variable + 1.0
    with pytest.raises(TypeError, match="truth value"):
        bool(variable)
    with pytest.raises(TypeError, match=r"'scale': Expected an open trace of the graph 'other'"):
        variable.symbolic(Graph("other"))


def test_traces_nest_and_belong_to_their_graphs():
    variable = Variable(1.0)
    outer, inner = Graph("outer"), Graph("inner")
    with Trace(outer) as first:
        with Trace(inner) as second:
            assert Trace.current() is second
            value = variable.symbolic(outer)
            assert isinstance(value, Value) and value.graph is outer
        assert Trace.current() is first
    assert Trace.current() is None
    assert first.variables == [variable] and second.variables == []


def test_random_values_are_drawn_when_they_are_first_asked_for():
    """Weights that are loaded at once are never drawn, which for a large network takes longer than to load them."""
    drawn = []

    class Counting(RandomNormal):
        def draw(self, generator, shape, dtype):
            drawn.append(shape)
            return super().draw(generator, shape, dtype)

    loaded = Variable(Counting(seed=1), (2, 3))
    loaded.assign(np.ones((2, 3)))
    assert loaded.value.sum() == 6 and not drawn
    asked = Variable(Counting(seed=1), (2, 3))
    np.testing.assert_array_equal(asked.value, RandomNormal(seed=1)((2, 3)))
    assert drawn == [(2, 3)]


def test_numbers_beyond_float32_change_nothing():
    model = gl.Sequential([gl.Input((2,)), gl.layers.Dense(2, name="dense")])
    before = model.get_weights()
    expected = "Expected numbers that float32 has, up to 3.403e+38, for variable {}. Received: -1e+300"
    bias = re.escape(expected.format("'dense/bias'"))
    with pytest.raises(ValueError, match=bias):
        model.layers[0].bias.assign(np.array([0.0, -1e300]))
    with pytest.raises(ValueError, match=bias):
        model.set_weights([np.ones((2, 2)), np.array([np.inf, -1e300])])
    arrays = {"dense/kernel": np.ones((2, 2)), "dense/bias": np.array([1, -1e300])}
    with pytest.raises(ValueError, match=bias):
        assign({variable.path: variable for variable in model.weights}, arrays, "Expected weights")
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    with pytest.raises(ValueError, match=re.escape(expected.format("'v'"))):
        Variable(-1e300, name="v")
    model.layers[0].bias.assign(np.array([np.inf, np.nan]))  # What is not finite is meant so.
