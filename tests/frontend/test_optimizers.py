"""Optimizers: several steps against the published formulas in float64, hyperparameters as inputs of the graph."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom.utils
from gradloom import optimizers
from gradloom.compiler.ir import Constant, Graph, Input
from gradloom.compiler.types import TensorType
from gradloom.optimizers import SGD, Adam
from gradloom.variables import Trace, Variable
from interpreted import evaluate

STEPS = 5


@pytest.fixture(autouse=True)
def fresh_names():
    gradloom.utils.clear_session()


def run(optimizer, seed=0, shape=(3, 4), dtype="float32"):
    """Take steps along fixed gradients; return the variable's first value, the gradients, and the last value."""
    generator = np.random.default_rng(seed)
    start = generator.normal(size=shape).astype(dtype)
    gradients = [generator.normal(size=shape).astype(dtype) for _ in range(STEPS)]
    variable = Variable(start, dtype=dtype, path="dense/kernel")
    for gradient in gradients:
        evaluate(lambda g: optimizer.apply([g], [variable]), gradient)
    return start.astype(np.float64), gradients, variable.numpy()


def sgd(w, gradients, lr, momentum, nesterov):
    m = np.zeros_like(w)
    for g in gradients:
        m = momentum * m - lr * g
        w = w + (momentum * m - lr * g if nesterov else m)
    return w


def adam(w, gradients, lr, beta_1, beta_2, epsilon, amsgrad):
    m, v, largest = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g.astype(np.float64) ** 2
        largest = np.maximum(largest, v)
        alpha = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - alpha * m / (np.sqrt(largest if amsgrad else v) + epsilon)
    return w


@given(st.floats(1e-4, 1), st.sampled_from([0.0, 0.5, 0.9]), st.booleans(), st.integers(0, 99))
@settings(max_examples=15)
def test_sgd(lr, momentum, nesterov, seed):
    optimizer = SGD(lr, momentum, nesterov)
    start, gradients, result = run(optimizer, seed)
    np.testing.assert_allclose(result, sgd(start, gradients, lr, momentum, nesterov), rtol=1e-5, atol=1e-5)
    assert optimizer.iterations.value == STEPS


@given(st.sampled_from([0.0, 0.9, 0.99]), st.sampled_from([0.9, 0.999, 0.99999]), st.booleans(), st.integers(0, 99))
@settings(max_examples=15)
def test_adam(beta_1, beta_2, amsgrad, seed):
    optimizer = Adam(0.01, beta_1, beta_2, 1e-7, amsgrad)
    start, gradients, result = run(optimizer, seed)
    b1, b2 = float(np.float32(beta_1)), float(np.float32(beta_2))
    np.testing.assert_allclose(result, adam(start, gradients, 0.01, b1, b2, 1e-7, amsgrad), rtol=1e-5, atol=1e-5)


def test_defaults_are_those_of_keras():
    sgd = {"learning_rate": np.float32(0.01), "momentum": 0.0, "nesterov": False, "weight_decay": None}
    assert SGD().get_config() == {"name": "sgd", **sgd}
    config = Adam().get_config()
    floats = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    assert config == {
        "name": "adam",
        "amsgrad": False,
        "weight_decay": None,
        **{k: float(np.float32(v)) for k, v in floats.items()},
    }


def test_variables_of_another_dtype():
    optimizer = Adam(0.5)
    start, gradients, result = run(optimizer, dtype="float64")
    assert result.dtype == np.float64
    betas = float(np.float32(0.9)), float(np.float32(0.999))
    np.testing.assert_allclose(result, adam(start, gradients, 0.5, *betas, 1e-7, False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        SGD,
        lambda: SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
        Adam,
        lambda: Adam(amsgrad=True),
    ],
)
def test_every_hyperparameter_is_an_input_and_a_change_compiles_nothing(make):
    def step(optimizer):
        graph = Graph("step")
        with Trace(graph) as trace:
            optimizer.apply([graph.input("gradient", TensorType(variable.dtype, (4,)))], [variable])
            trace.finish()
        return graph

    variable = Variable(np.zeros(4), path="w")
    gradloom.utils.clear_session()
    optimizer = make()
    graph = step(optimizer)
    used = {
        value.op.label for value in graph.inputs if isinstance(value.op, Input) and value.op.role == "hyperparameter"
    }
    expected = {f"{optimizer.name}/{name}" for name in optimizer.hyperparameters}
    if isinstance(optimizer, SGD) and not float(optimizer.momentum):
        expected.remove("sgd/momentum")
    assert used == expected
    constants = {float(value.op.array) for value in graph.values if isinstance(value.op, Constant)}
    assert constants <= {0.0, 1.0, -1.0, 2.0}
    optimizer.learning_rate = 0.125
    for name in optimizer.hyperparameters:
        setattr(optimizer, name, 0.25)
    assert step(optimizer) == graph


def test_setting_the_learning_rate():
    optimizer = SGD(1.0)
    before = optimizer.learning_rate
    optimizer.learning_rate = 0.5
    assert optimizer.learning_rate is before and float(optimizer.learning_rate) == 0.5
    _, gradients, result = run(optimizer)
    start, _, _ = run(SGD(1.0))
    np.testing.assert_allclose(result, sgd(start, gradients, 0.5, 0.0, False), rtol=1e-5, atol=1e-5)


def test_new_states_are_written_onto_the_old_ones():
    optimizer, variable = Adam(), Variable(np.zeros(4), path="dense/kernel")
    graph = Graph("step")
    with Trace(graph) as trace:
        optimizer.apply([graph.input("gradient", TensorType(variable.dtype, (4,)))], [variable])
        trace.finish()
    outputs = {output.name: output.donor for output in graph.outputs}
    assert list(outputs) == [
        "adam/dense_kernel_momentum",
        "adam/dense_kernel_velocity",
        "dense/kernel",
        "adam/iterations",
    ]
    assert all(donor is not None and donor.op.label == name for name, donor in outputs.items())


def test_the_step_size_is_computed_once():
    optimizer, graph = Adam(), Graph("step")
    variables = [Variable(np.zeros(4), path=f"w{n}") for n in range(3)]
    with Trace(graph):
        gradients = [graph.input(f"g{n}", TensorType(v.dtype, (4,))) for n, v in enumerate(variables)]
        optimizer.apply(gradients, variables)
    assert sum(value.op.name == "expm1" for value in graph.values) == 2


def test_build_is_repeatable_and_grows():
    optimizer = SGD(momentum=0.9)
    a, b = Variable(np.zeros(2), path="a"), Variable(np.zeros(3), path="b")
    optimizer.build([a])
    slot = optimizer.slot(a, "momentum")
    optimizer.build([a, b])
    assert optimizer.slot(a, "momentum") is slot
    assert [v.path for v in optimizer.variables] == [
        "sgd/iterations",
        "sgd/learning_rate",
        "sgd/a_momentum",
        "sgd/b_momentum",
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1), r"SGD: Expected learning_rate as a number in \[0, inf\)\. Received: learning_rate=-1"),
        (lambda: SGD("fast"), "learning_rate='fast'"),
        (lambda: SGD("0.1"), "Expected learning_rate as a number.*Received: learning_rate='0.1'"),
        (lambda: SGD(True), "learning_rate=True"),
        (lambda: SGD([0.1]), r"learning_rate=\[0.1\]"),
        (lambda: SGD(float("inf")), r"learning_rate as a number in \[0, inf\)\. Received: learning_rate=inf"),
        (lambda: SGD(float("nan")), "learning_rate=nan"),
        (lambda: SGD(1e39), r"learning_rate=1e\+39"),
        (lambda: Adam(beta_1=2), r"Adam: Expected beta_1 as a number in \[0, 1\)\. Received: beta_1=2"),
        (lambda: Adam(beta_2=1.0), r"beta_2 as a number in \[0, 1\)\. Received: beta_2=1.0"),
        (lambda: Adam(epsilon=float("inf")), "epsilon=inf"),
        (lambda: SGD(0.1, momentum=2), r"momentum as a number in \[0, 1\]\. Received: momentum=2"),
        (lambda: Adam(beta_1=float("nan")), "beta_1=nan"),
    ],
)
def test_bad_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("number", [1, 0.5, np.float64(0.25), np.array(0.125), Variable(0.0625)])
def test_whatever_is_one_number_is_a_hyperparameter(number):
    optimizer = SGD(number, momentum=1)
    optimizer.learning_rate = optimizer.learning_rate
    assert float(optimizer.learning_rate) == float(number)


def test_gradients_and_variables_of_different_number():
    with pytest.raises(ValueError, match=r"as many gradients as variables, 1\. Received: 0"):
        SGD().apply([], [Variable(1.0)])


def test_names():
    assert type(optimizers.get("adam")) is Adam and type(optimizers.get("SGD")) is SGD
    assert type(optimizers.get(SGD)) is SGD
    instance = Adam(0.5)
    assert optimizers.get(instance) is instance
    config = SGD(0.25, 0.5, True).get_config()
    assert optimizers.get({"class_name": "SGD", "config": config}).get_config() == config
    with pytest.raises(ValueError, match=r"Unknown optimizer\. Did you mean 'adam'.*Received: 'adm'"):
        optimizers.get("adm")
    with pytest.raises(TypeError, match="Expected the optimizer's name"):
        optimizers.get(0.01)


@given(st.floats(1e-3, 0.5), st.sampled_from([0.0, 0.9]), st.floats(0, 0.5))
@settings(max_examples=10)
def test_weight_decay_comes_before_the_update(lr, momentum, decay):
    optimizer = SGD(lr, momentum, weight_decay=decay)
    start, gradients, result = run(optimizer)
    w, m = start, np.zeros_like(start)
    for g in gradients:
        m = momentum * m - lr * g
        w = w - w * lr * decay + m
    np.testing.assert_allclose(result, w, rtol=1e-5, atol=1e-5)


def test_variables_can_be_spared_from_decay():
    kernel, bias, scale = (Variable(np.ones(2, np.float32), path=path) for path in ("a/kernel", "a/bias", "b/scale"))
    optimizer = SGD(0.5, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[scale], var_names=["bias$"])
    evaluate(lambda g: optimizer.apply([g, g, g], [kernel, bias, scale]), np.zeros(2, np.float32))
    np.testing.assert_allclose(kernel.value, 0.95)
    assert (bias.value == 1).all() and (scale.value == 1).all()
    optimizer.weight_decay = 0.2
    evaluate(lambda g: optimizer.apply([g], [kernel]), np.zeros(2, np.float32))
    np.testing.assert_allclose(kernel.value, 0.95 * 0.9)


@pytest.mark.parametrize("name", ["(", "a{99999999999}", 3])
def test_names_to_be_spared_are_regular_expressions(name):
    optimizer = SGD(weight_decay=0.1)
    with pytest.raises(ValueError, match=r"Expected var_names as regular expressions\. Received: "):
        optimizer.exclude_from_weight_decay([Variable(0.0)], ["bias", name])
    assert not optimizer.spared and not optimizer.spared_expressions


def test_whether_weights_decay_is_decided_when_the_optimizer_is_made():
    assert SGD().weight_decay is None and float(Adam(weight_decay=0.5).weight_decay) == 0.5
    with pytest.raises(ValueError, match="Expected weight_decay when the optimizer is made"):
        SGD().weight_decay = 0.1
    with pytest.raises(ValueError, match="Expected weight_decay when the optimizer is made"):
        SGD(weight_decay=0.1).weight_decay = None
    with pytest.raises(ValueError, match="Expected weight_decay as a number in"):
        SGD(weight_decay=-1)
