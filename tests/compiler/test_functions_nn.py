"""Functions for networks against NumPy, far out too; losses from probabilities and logits; gradients of one's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from function_runner import Function, derivative, run, sample
from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import NoGradientError, ShapeError
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.types import F32, TensorType

INF = np.inf
seeds = st.integers(0, 2**32 - 1)

# Networks.

ACTIVATIONS: list[tuple[Function, Function]] = [
    (ops.relu, lambda x: np.maximum(x, 0)),
    (ops.relu6, lambda x: np.clip(x, 0, 6)),
    (ops.leaky_relu, lambda x: np.where(x >= 0, x, 0.2 * x)),
    (ops.elu, lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)),
    (ops.selu, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))),
    (lambda x: ops.celu(x, 2.0), lambda x: np.maximum(x, 0) + np.minimum(2 * np.expm1(np.minimum(x, 0) / 2), 0)),
    (ops.silu, lambda x: x / (1 + np.exp(-x))),
    (ops.swish, lambda x: x / (1 + np.exp(-x))),
    (ops.gelu, lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    (ops.softplus, lambda x: np.logaddexp(x, 0)),
    (ops.softsign, lambda x: x / (1 + np.abs(x))),
    (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    (ops.hard_sigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    (ops.log_sigmoid, lambda x: -np.logaddexp(-x, 0)),
    (ops.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    (ops.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
]


@pytest.mark.parametrize(("function", "expected"), ACTIVATIONS)
@settings(max_examples=20)
@given(seed=seeds)
def test_activations(function: Function, expected: Function, seed: int) -> None:
    x = 4 * sample(seed, 3, 5)
    np.testing.assert_allclose(run(function, x), expected(x), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("function", "expected"), ACTIVATIONS[:-2])
def test_activations_have_finite_gradients_far_out(function: Function, expected: Function) -> None:
    x = np.array([-1e4, -800.0, -30.0, 30.0, 800.0, 1e4])
    first, second = derivative(function, x), derivative(function, x, order=2)
    assert np.isfinite(first).all() and np.isfinite(second).all()
    assert np.abs(second).max() < 1e-4


def test_gelu_by_erf() -> None:
    from math import erf, sqrt

    x = sample(0, 7)
    expected = [0.5 * v * (1 + erf(v / sqrt(2))) for v in x]
    np.testing.assert_allclose(run(lambda v: ops.gelu(v, approximate=False), x), expected, rtol=1e-12)


def test_derivatives_where_branches_meet() -> None:
    assert derivative(ops.softplus, 0.0) == 0.5
    assert derivative(ops.softplus, 0.0, order=2) == 0.25
    assert derivative(ops.log_sigmoid, 0.0) == 0.5
    assert derivative(lambda x: ops.logaddexp(x, x * 3), 0.0) == 2.0
    assert derivative(ops.relu, 0.0) == 0
    assert derivative(ops.absolute, 0.0) == 0
    safe = lambda x: ops.where(x > 0, ops.log(ops.where(x > 0, x, 1.0)), 0.0)  # noqa: E731
    assert derivative(safe, 0.0) == 0


def test_softmax_of_large_logits() -> None:
    x = np.array([[1000.0, 0, -1000], [5, 5, 5]])
    np.testing.assert_allclose(run(ops.softmax, x), [[1, 0, 0], [1 / 3] * 3])
    np.testing.assert_allclose(run(ops.log_softmax, x)[0], [0, -1000, -2000])
    found = run(lambda v: ops.logsumexp(v, -1), np.array([[1000.0, 1000], [-INF, -INF], [INF, 0]]))
    np.testing.assert_allclose(found, [1000 + np.log(2), -INF, INF])
    np.testing.assert_allclose(
        run(ops.logaddexp, np.array([INF, -INF, INF]), np.array([INF, -INF, 0])), [INF, -INF, INF]
    )


@settings(max_examples=20)
@given(seed=seeds, axis=st.sampled_from([-1, 0, 1, (0, 2), None]))
def test_softmax_along_axes(seed: int, axis: Any) -> None:
    x = sample(seed, 2, 3, 4)
    powers = np.exp(x)
    expected = powers / powers.sum(axis, keepdims=True)
    np.testing.assert_allclose(run(lambda v: ops.softmax(v, axis), x), expected, rtol=1e-12)
    np.testing.assert_allclose(
        run(lambda v: ops.log_probability(ops.softmax(v, axis)), x), np.log(expected), rtol=1e-10
    )


LABELS = np.array([0, 2], np.uint8)
LOGITS = np.array([[2.0, -1, 0.5], [1000, 0, -1000]])


def test_crossentropy_of_softmax_is_that_of_its_logits() -> None:
    for logits, classes in ((LOGITS, LABELS), (LOGITS, LABELS[:, None]), (LOGITS, LABELS.astype(np.float32))):
        direct = run(lambda y, x: ops.sparse_categorical_crossentropy(y, x, from_logits=True), classes, logits)
        through = run(lambda y, x: ops.sparse_categorical_crossentropy(y, ops.softmax(x)), classes, logits)
        np.testing.assert_array_equal(direct, through)
        np.testing.assert_allclose(through, [np.log(1 + np.exp(-3) + np.exp(-1.5)), 2000])


def test_crossentropy_gradient_is_softmax_less_one_hot() -> None:
    def gradient(y: Value, x: Value) -> Value:
        return gradients([ops.sum(ops.sparse_categorical_crossentropy(y, ops.softmax(x)))], [x])[0]

    softmax = run(ops.softmax, LOGITS)
    np.testing.assert_allclose(run(gradient, LABELS, LOGITS), softmax - np.eye(3)[LABELS], atol=1e-15)


def test_crossentropies_agree() -> None:
    one_hot = np.eye(3)[LABELS]
    sparse = run(lambda y, x: ops.sparse_categorical_crossentropy(y, ops.softmax(x)), LABELS, LOGITS)
    dense = run(lambda y, x: ops.categorical_crossentropy(y, ops.softmax(x)), one_hot, LOGITS)
    np.testing.assert_allclose(sparse, dense)
    along_first = run(lambda y, x: ops.categorical_crossentropy(y, x, True, axis=0), one_hot.T, LOGITS.T)
    np.testing.assert_allclose(along_first, dense)


def test_crossentropy_of_plain_probabilities_is_clipped_as_in_keras() -> None:
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    found = run(ops.sparse_categorical_crossentropy, LABELS, p)
    np.testing.assert_allclose(found, [-np.log(0.2), -np.log(1e-7)], rtol=1e-9)
    scaled = run(ops.sparse_categorical_crossentropy, LABELS, 4 * p)
    np.testing.assert_allclose(scaled, found, rtol=1e-9)


@settings(max_examples=20)
@given(seed=seeds)
def test_binary_crossentropy(seed: int) -> None:
    z, y = 3 * sample(seed, 5), np.random.default_rng(seed).random(5)
    p = 1 / (1 + np.exp(-z))
    expected = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(run(ops.binary_crossentropy, y, p), expected, rtol=1e-8)
    np.testing.assert_allclose(run(lambda t, v: ops.binary_crossentropy(t, v, True), y, z), expected, rtol=1e-10)
    np.testing.assert_allclose(run(lambda t, v: ops.binary_crossentropy(t, ops.sigmoid(v)), y, z), expected, rtol=1e-10)


def test_binary_crossentropy_of_saturated_sigmoid() -> None:
    z = np.array([500.0, -500.0])
    found = run(lambda t, v: ops.binary_crossentropy(t, ops.sigmoid(v)), np.array([0.0, 1.0]), z)
    assert found.tolist() == [500, 500]
    both = run(lambda v: [ops.log_probability(ops.sigmoid(v)), ops.log_complement(ops.sigmoid(v))], z)
    np.testing.assert_allclose(both, [[0, -500], [-500, 0]], atol=1e-200)


# Gradients of one's own.


@ops.custom_gradient
def log1p_exp(x: Value) -> tuple[Value, Function]:
    e = ops.exp(x)
    return ops.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))


def test_custom_gradient_is_used_at_every_order() -> None:
    assert derivative(log1p_exp, 0.0) == 0.5
    np.testing.assert_allclose(derivative(log1p_exp, 0.3, order=2), derivative(ops.sigmoid, 0.3))
    # Without the rule the gradient is inf/inf far out.
    assert derivative(log1p_exp, 1000.0) == 1


def test_custom_gradient_inside_another() -> None:
    @ops.custom_gradient
    def doubled(x: Value) -> tuple[Value, Function]:
        return log1p_exp(x) * 2, lambda upstream: upstream * log1p_exp(x)

    np.testing.assert_allclose(derivative(doubled, 0.0), np.log(2))
    np.testing.assert_allclose(derivative(doubled, 0.0, order=2), 0.5)


def test_custom_gradient_of_several_arguments_and_results() -> None:
    @ops.custom_gradient
    def both(x: Value, y: Value, index: Value) -> tuple[tuple[Value, Value], Function]:
        return (x + y, x * y), lambda of_sum, of_product: (10 * of_sum + of_product, None, None)

    def by_all(x: Value, y: Value) -> list[Value]:
        total, product = both(x, y, 3)
        return [total, product, *gradients([total * 2, product * 3], [x, y])]

    assert [float(v) for v in run(by_all, 5.0, 7.0)] == [12, 35, 23, 0]


def test_custom_gradient_refuses_what_is_none() -> None:
    with pytest.raises(TypeError, match=r"to return \(result, grad_fn\)"):
        run(ops.custom_gradient(lambda x: x), 1.0)
    with pytest.raises(ShapeError, match="one cotangent for each of 1 arguments"):
        derivative(ops.custom_gradient(lambda x: (x, lambda upstream: (upstream, upstream))), 1.0)


@pytest.mark.parametrize("shape", [(), (1,), (1, 3)])
def test_custom_gradient_broadcasts_no_cotangent_of_another_shape(shape: tuple[int, ...]) -> None:
    def by_x(x: Value, cotangent: Any) -> list[Value]:
        return gradients([ops.custom_gradient(lambda x: (x * 2, lambda upstream: cotangent))(x)], [x])

    with pytest.raises(ShapeError, match=r"a cotangent of its argument's shape \(3,\)"):
        run(by_x, np.ones(3), np.ones(shape))
    # A Python number has no shape that could be wrong.
    (found,) = run(lambda x: by_x(x, 0.5), np.ones(3))
    assert found.tolist() == [0.5, 0.5, 0.5]


def test_custom_gradient_says_when_its_rule_is_gone() -> None:
    graph = Graph()
    x = graph.input("x", TensorType(F32, ()))
    graph.output("y", log1p_exp(x))
    _, new = graph.rebuild()
    with pytest.raises(NoGradientError, match="take gradients in the graph in which the function was called"):
        gradients([new[graph.outputs[0].value]], [new[x]])


def test_stop_gradient() -> None:
    assert derivative(lambda x: x * ops.stop_gradient(x), 3.0) == 3
    assert derivative(lambda x: ops.stop_gradient(x * x) + 0 * x, 3.0) == 0
