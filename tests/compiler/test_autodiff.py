"""Gradients: every op against differences in float64, first and second order; the walk itself on small graphs."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import DTypeError, GradloomError, NoGradientError, ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.provenance import layer_scope
from gradloom.compiler.types import F32, F64, I32, OPEN, U8, TensorType
from op_cases import CASES, OpCase

Arrays = dict[str, np.ndarray]
seeds = st.integers(0, 2**32 - 1)

smooth_cases = pytest.mark.parametrize(
    "case", [case.in_float64() for case in CASES if case.smooth and case.operands], ids=lambda case: case.name
)


def weighted(case: OpCase) -> tuple[Graph, Value, list[Value]] | None:
    """The sum of the op's result weighted by an input, and what it can be differentiated by; None for integers."""
    graph = Graph(case.op.name)
    result = case.node(graph)
    wrt = [value for value in graph.inputs if value.dtype.is_float and OPEN not in value.shape]
    if not wrt or not result.dtype.is_float:
        return None
    weights = graph.input("weights", result.type)
    return graph, ops.sum(result * weights), [*wrt, weights]


def scalar(graph: Graph, value: Value) -> Callable[[Arrays], float]:
    graph.output("scalar", value)
    return lambda arrays: float(interpret(graph, arrays)["scalar"])


def assert_derivatives(
    graph: Graph, function: Value, derivatives: list[Value], wrt: list[Value], arrays: Arrays, seed: int
) -> None:
    """Derivatives along a random direction for each input, against central differences."""
    rng = np.random.default_rng(seed)
    f = scalar(graph, function)
    for place, derivative in enumerate(derivatives):
        graph.output(f"derivative{place}", derivative)
    found = interpret(graph, arrays)
    for place, value in enumerate(wrt):
        label = value.op.label  # type: ignore[attr-defined]
        step, direction = 1e-5, rng.normal(size=arrays[label].shape)
        ahead = f({**arrays, label: arrays[label] + step * direction})
        behind = f({**arrays, label: arrays[label] - step * direction})
        expected = (ahead - behind) / (2 * step)
        along = float(np.sum(found[f"derivative{place}"] * direction))
        magnitude = 1 + abs(expected) + abs(ahead) + float(np.sum(np.abs(found[f"derivative{place}"] * direction)))
        assert abs(along - expected) <= 2e-7 * magnitude, (label, along, expected)


@smooth_cases
@settings(max_examples=4)
@given(seed=seeds)
def test_gradient_of_each_op(case: OpCase, seed: int) -> None:
    built = weighted(case)
    if built is None:
        return
    graph, total, wrt = built
    arrays = case.sample(seed)
    arrays["weights"] = np.random.default_rng(seed).normal(size=wrt[-1].shape)
    derivatives = gradients([total], wrt)
    assert [d.type for d in derivatives] == [value.type for value in wrt]
    assert_derivatives(graph, total, derivatives, wrt, arrays, seed)
    graph.verify()


@smooth_cases
@settings(max_examples=3)
@given(seed=seeds)
def test_second_order_of_each_op(case: OpCase, seed: int) -> None:
    built = weighted(case)
    if built is None:
        return
    graph, total, wrt = built
    rng = np.random.default_rng(seed)
    arrays = case.sample(seed)
    arrays["weights"] = rng.normal(size=wrt[-1].shape)
    along = graph.constant(0.0, F64)
    for place, derivative in enumerate(gradients([total], wrt)):
        arrays[f"direction{place}"] = rng.normal(size=derivative.shape)
        along = along + ops.sum(derivative * graph.input(f"direction{place}", derivative.type))
    assert_derivatives(graph, along, gradients([along], wrt), wrt, arrays, seed)


def evaluate(graph: Graph, values: list[Value], **arrays: object) -> list[np.ndarray]:
    for place, value in enumerate(values):
        graph.output(f"value{place}", value)
    types = {value.op.label: value.type for value in graph.inputs}  # type: ignore[attr-defined]
    given = {label: np.asarray(arrays.get(label, 0.0), type_.dtype.numpy) for label, type_ in types.items()}
    outputs = interpret(graph, {label: np.broadcast_to(array, types[label].shape) for label, array in given.items()})
    return [outputs[f"value{place}"] for place in range(len(values))]


def scalar_input(graph: Graph, label: str) -> Value:
    return graph.input(label, TensorType(F64, ()))


def test_a_residual_chain_is_walked_once() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    y = x
    for _ in range(60):
        y = y + ops.tanh(y)
    before = len(graph.values)
    (derivative,) = gradients([y], [x])
    # 2^60 paths lead from x to y.
    assert len(graph.values) - before < 6 * before
    (result,) = evaluate(graph, [derivative], x=0.3)
    value, slope = 0.3, 1.0
    for _ in range(60):
        value, slope = value + np.tanh(value), slope * (2 - np.tanh(value) ** 2)
    np.testing.assert_allclose(result, slope, rtol=1e-10)


def test_cotangents_of_one_shape_are_added_before_they_are_summed_down() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(F64, (8, 3)))
    bias = graph.input("bias", TensorType(F64, (3,)))
    total = ops.sum((x + bias) * x) + ops.sum(ops.exp(x * bias))
    before = set(graph.values)
    gradients([total], [bias])
    new_sums = [value for value in graph.values if value not in before and value.op.name == "sum"]
    assert len(new_sums) == 1


def test_disconnected_inputs_get_zeros() -> None:
    graph = Graph()
    x, y = scalar_input(graph, "x"), graph.input("y", TensorType(F32, (2, 3)))
    by_x, by_y = gradients([x * 2], [x, y])
    assert by_y.type == y.type
    two, zeros = evaluate(graph, [by_x, ops.cast(by_y, F64)], x=1)
    assert two == 2
    assert zeros.tolist() == np.zeros((2, 3)).tolist()


def test_outputs_are_summed_and_weighted() -> None:
    graph = Graph()
    x, weight = scalar_input(graph, "x"), scalar_input(graph, "weight")
    plain = gradients([x * x, ops.exp(x)], [x])
    weighted = gradients([x * x, ops.exp(x)], [x], [weight, None])
    first, second = evaluate(graph, [*plain, *weighted], x=0.5, weight=3)
    np.testing.assert_allclose([first, second], [1 + np.exp(0.5), 3 + np.exp(0.5)])


def test_by_an_intermediate_value_and_by_what_lies_before_it() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    middle = x * x
    by_middle, by_x, by_itself = gradients([ops.exp(middle)], [middle, x, ops.exp(middle)])
    found = evaluate(graph, [by_middle, by_x, by_itself], x=0.5)
    np.testing.assert_allclose(found, [np.exp(0.25), np.exp(0.25), 1.0])


def test_integers_have_no_derivative() -> None:
    graph = Graph()
    x, index = scalar_input(graph, "x"), graph.input("index", TensorType(I32, ()))
    with pytest.raises(NoGradientError, match="Expected floats"):
        gradients([x], [index])
    with pytest.raises(NoGradientError, match="Expected floats"):
        gradients([index], [x])
    data = graph.input("data", TensorType(F32, (OPEN, 3)), role="data")
    with pytest.raises(NoGradientError, match="known shape"):
        gradients([x], [data])


def test_nothing_flows_through_integers() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    (derivative,) = gradients([ops.cast(ops.cast(x, I32), F64) * 3 + x], [x])
    assert evaluate(graph, [derivative], x=4.2) == [1]


def test_wrong_cotangents_and_graphs_are_refused() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    with pytest.raises(ShapeError, match="Expected a cotangent of its output's type f64"):
        gradients([x], [x], [graph.constant(1.0, F32)])
    with pytest.raises(GradloomError, match="one graph"):
        gradients([x], [scalar_input(Graph(), "x")])


@pytest.mark.parametrize("wrong", [lambda u: ops.cast(u, I32), lambda u: u > 0])
def test_the_cotangents_of_an_own_gradient_are_floats(wrong: Callable[[Value], Value]) -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    y = ops.custom_gradient(lambda v: (v * 2, wrong))(x)
    with pytest.raises(
        DTypeError, match=r"Expected a cotangent of its argument's dtype f64. Received: dtype (i32|bool)"
    ):
        gradients([y], [x])


def test_an_op_without_a_gradient_names_itself_and_its_layer() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    with layer_scope("encoder"), layer_scope("scale"):
        y = ops.custom_gradient(lambda v: (v * 2, lambda upstream: upstream))(x)
    lost, new = _rebuilt(graph, y)
    with pytest.raises(NoGradientError, match=r"op 'custom_gradient'.*encoder/scale.*test_autodiff\.py"):
        gradients([new[y]], [new[x]])
    assert lost is not graph


def _rebuilt(graph: Graph, value: Value) -> tuple[Graph, dict[Value, Value]]:
    graph.output("y", value)
    return graph.rebuild()


def test_provenance_of_gradient_nodes() -> None:
    graph = Graph()
    x = scalar_input(graph, "x")
    with layer_scope("dense"):
        y = ops.tanh(x)
    before = set(graph.values)
    gradients([y * 1.5], [x])
    made = [value for value in graph.values if value not in before and value.op.name == "multiply"]
    origins = set().union(*(graph.provenance[value] for value in made))
    assert any(origin.layer == "dense" and origin.forward == y.number for origin in origins)
    assert all("test_autodiff.py" in origin.source for origin in origins)


def test_relu_gradient_needs_the_result_only() -> None:
    graph = Graph()
    z = graph.input("z", TensorType(F32, (4,)))
    h = ops.relu(z)
    (derivative,) = gradients([ops.sum(h)], [z])
    graph.output("derivative", derivative)
    assert [user.op.name for user in graph.users()[z]] == ["maximum"]
    found = interpret(graph, {"z": np.array([-1, 0, 2, np.nan], np.float32)})["derivative"]
    assert found.tolist() == [0, 0, 1, 0]


def test_products_with_zeros_have_exact_derivatives() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(F64, (4,)))
    (derivative,) = gradients([ops.prod(x)], [x])
    (second,) = gradients([derivative], [x], [graph.constant(np.array([1.0, 0, 0, 0]))])
    first, mixed = evaluate(graph, [derivative, second], x=[2, 0, 3, 5])
    assert first.tolist() == [0, 30, 0, 0]
    # Of the product of the other three, by each of them.
    assert mixed.tolist() == [0, 15, 0, 0]


def test_the_gradient_of_a_power_is_differentiated_by_an_exponent_of_0() -> None:
    graph = Graph()
    x, y = (graph.input(label, TensorType(F64, (3,))) for label in "xy")
    (by_x,) = gradients([ops.power(x, y)], [x])
    # y·x^(y−1), by y at y = 0: 1/x; at x = 0 nothing is NaN.
    (mixed,) = gradients([by_x], [y], [graph.constant(np.array([1.0, 1.0, 0.0]))])
    first, second = evaluate(graph, [by_x, mixed], x=[0.5, 4, 0], y=[0, 0, 0])
    assert first.tolist() == [0, 0, 0]
    np.testing.assert_allclose(second[:2], [2, 0.25])


def test_equal_maxima_share_the_gradient() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(F64, (4,)))
    found = evaluate(graph, gradients([ops.max(x)], [x]), x=[3, 1, 3, 2])
    assert found[0].tolist() == [0.5, 0, 0.5, 0]


def test_gradients_through_rows_of_a_data_set() -> None:
    graph = Graph()
    data = graph.input("x", TensorType(U8, (OPEN, 3)), role="data")
    rows = graph.input("rows", TensorType(I32, (2,)), role="indices")
    w = graph.input("w", TensorType(F32, (3,)))
    batch = ops.cast(ops.take(data, rows, axis=0), F32) / 255
    (derivative,) = gradients([ops.sum(batch * w)], [w])
    graph.output("derivative", derivative)
    x = np.array([[255, 0, 0], [0, 255, 0], [0, 51, 255]], np.uint8)
    found = interpret(graph, {"x": x, "rows": np.array([1, 2], np.int32), "w": np.zeros(3, np.float32)})
    np.testing.assert_allclose(found["derivative"], [0, 1.2, 1], rtol=1e-6)
