"""`check_gradients`: right gradients pass, planted faults of many kinds are found, and the message names the node."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import ops
from gradloom.compiler import parse
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.ops.arithmetic import Multiply
from gradloom.compiler.ops.elementwise import Tanh
from gradloom.compiler.ops.reductions import Sum
from gradloom.compiler.program import Program
from gradloom.graph_runs import run_program
from gradloom.runtime.threads import get_num_threads
from gradloom.testing import Checks, GradientError, NotFiniteError, NotJudgedError, check_gradients, compiled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
W = RNG.normal(size=(4, 2))


def caught(f: Callable[..., Any], *args: Any, **options: Any) -> GradientError:
    with pytest.raises(GradientError) as error:
        check_gradients(f, *args, **options)
    return error.value


def custom(value: Callable[..., Any], *cotangents: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose cotangents are functions of the upstream one and the arguments."""

    @ops.custom_gradient
    def function(*args: Any) -> Any:
        def grad_fn(upstream: Any) -> Any:
            return tuple(cotangent(upstream, *args) for cotangent in cotangents)

        return value(*args), grad_fn

    return function


RIGHT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a tree of results": (lambda x, w: {"y": ops.relu(x @ w), "z": (ops.sum(x), 3)}, (X, W)),
    "trees of arguments": (lambda p: ops.tanh(p["x"] @ p["w"][0]), ({"x": X, "w": [W]},)),
    "integers stay": (lambda x, rows: ops.take(x, rows, axis=0) * 2.0, (X, np.array([2, 0, 2], np.int32))),
    "attributes are no arrays": (lambda x, axis, keep: ops.sum(x * x, axis=axis, keepdims=keep), (X, 1, True)),
    "a stopped gradient is a constant": (lambda x: ops.stop_gradient(ops.exp(x)) * x, (X,)),
    "a straight-through estimator": (lambda x: x + ops.stop_gradient(ops.round(x) - x), (X,)),
    "softmax": (lambda x: ops.log(ops.softmax(x)), (X,)),
    "a way over float32": (lambda x: ops.cast(ops.tanh(ops.cast(x, "float32")), "float64"), (X,)),
    "no elements": (lambda x: ops.exp(x) * 2.0, (np.zeros((0, 3), np.float32),)),
    "rank 0": (lambda x: ops.exp(x), (0.5,)),
    "elements near a pole and far from it": (lambda x: 1 / x**8, (np.array([0.2, 1.4], np.float32),)),
    "large numbers": (lambda x: ops.sqrt(x * 1e12) + 1e12, (np.abs(X) + 0.1,)),
    "a right custom gradient": (custom(lambda x: x * x, lambda u, x: 2.0 * u * x), (X,)),
}


slightly_wrong = custom(lambda x: ops.exp(x), lambda u, x: u * ops.exp(x) * (1 + 2.0**-18))
DENSE = gl.layers.Dense(3)

IN_FLOAT32: dict[str, Callable[..., Any]] = {
    "a layer of a dtype of its own": lambda x: slightly_wrong(DENSE(x)),
    "a captured array": lambda x: slightly_wrong(x @ W.astype(np.float32)),
    "a large captured array": lambda x: slightly_wrong(ops.cast(x, "float32") @ np.ones((4, 72), np.float32)),
    "a cast": lambda x: slightly_wrong(ops.cast(x, "bfloat16")),
    "numbers from integers": lambda x: slightly_wrong(ops.exp(ops.arange(4, dtype="float32")) * x),
}


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_roundings_of_float32_hide_no_slightly_wrong_gradient(name: str) -> None:
    error = caught(IN_FLOAT32[name], X.astype(np.float32), order=1)
    assert error.check == "gradient" and "= custom_gradient" in error.node


class Scaled(gl.layers.Layer):
    """A layer of one's own, with a layer inside, whose gradient by its own weight is wrong."""

    def __init__(self) -> None:
        super().__init__(name="scaled")
        self.inner = gl.layers.Dense(2, name="inner")
        self.multiply = custom(lambda x, y: x * y, lambda u, x, y: u * y, lambda u, x, y: ops.sum(u, axis=0))

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight((2,), name="factor")

    def call(self, x: Any) -> Any:
        return self.multiply(self.inner(x), self.factor)


def test_layers_are_checked_by_their_weights() -> None:
    x = X.astype(np.float32)
    error = caught(Scaled(), x, order=1)
    assert "by 'scaled/factor'" in str(error)
    model = gl.Sequential([gl.Input((4,)), gl.layers.Dense(3, "tanh"), gl.layers.BatchNormalization()])
    assert check_gradients(model, x, compiled=False).made["gradient"] == 5
    model.layers[0].trainable = False
    before = model.get_weights()
    assert check_gradients(model, x, True, order=1).made["gradient"] == 3
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name: str) -> None:
    f, args = RIGHT[name]
    checks = check_gradients(f, *args, compiled=False)
    assert not checks.skipped
    assert all(part <= 1 for part in checks.nearest.values())
    assert set(checks.made) <= {"gradient", "gradient of order 2", "adjoint", "derivative along v"}


def test_compiled_code_is_compared_in_the_dtypes_given() -> None:
    checks = check_gradients(lambda x, w: ops.tanh(x @ w), X.astype(np.float32), W.astype(np.float32))
    # The result, and two gradients of two orders.
    assert {name: checks.made[name] for name in ("dtype", "compiled", "unfused")} == dict.fromkeys(
        ("dtype", "compiled", "unfused"), 5
    )
    assert str(checks).startswith("function: ") and "gradient of order 2" in str(checks)
    assert "dtype" not in check_gradients(lambda x: x * x, X).made


WRONG: dict[str, tuple[Callable[..., Any], tuple[Any, ...], str]] = {
    "a factor": (custom(lambda x: x * x, lambda u, x: u * x), (X,), "gradient"),
    "a sign of one argument": (custom(lambda x, y: x - y, lambda u, *_: u, lambda u, *_: u), (X, X + 1), "gradient"),
    "a sum over the wrong axis": (
        custom(lambda x, b: x + b, lambda u, *_: u, lambda u, x, b: ops.sum(u, axis=1)),
        (X[:, :3], X[0, :3]),
        "gradient",
    ),
    "no cotangent for an argument": (
        ops.custom_gradient(lambda x, y: (x * y, lambda u: (u * y, None))),
        (X, X + 1),
        "gradient",
    ),
    "one element": (
        custom(lambda x: ops.exp(x), lambda u, x: u * ops.exp(x) * np.where(np.arange(4) == 2, 1.001, 1.0)),
        (X,),
        "gradient",
    ),
    "a straight-through estimator": (custom(lambda x: ops.round(x), lambda u, x: u), (X,), "gradient"),
    "nothing, but not linear": (custom(lambda x: ops.tanh(x), lambda u, x: ops.tanh(u)), (X,), "gradient"),
}


@pytest.mark.parametrize("name", WRONG)
def test_planted_faults_are_found_and_named(name: str) -> None:
    f, args, check = WRONG[name]
    error = caught(lambda *xs: ops.tanh(f(*xs)), *args)
    assert error.check == check
    assert "= custom_gradient" in error.node.splitlines()[0]
    assert "test_testing_check.py:" in error.node


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.1])
@pytest.mark.parametrize("array", [[1e4, 1.0], [3e5, 1.0], [1e8, 1.0], [1e3, 1e-4, 1e3]])
def test_a_fault_beside_large_elements_is_found(array: list[float], factor: float) -> None:
    factors = np.array([1.0, factor, 1.0])[: len(array)]
    wrong = custom(lambda x: x * x, lambda u, x: u * 2.0 * x * factors)
    for seed in range(3):
        caught(lambda x: wrong(x), np.array(array), order=1, compiled=False, seed=seed)
    if max(array) < 1e6 and min(array) == 1:
        error = caught(lambda x: ops.sum(wrong(x)), np.array(array), order=1)
        assert "= custom_gradient" in error.node and "most wrong is x[1]: " in str(error)


def test_what_rounding_hides_beside_large_elements_is_not_counted_as_judged() -> None:
    checks = check_gradients(lambda x: ops.sum(x * x), np.array([1e8, 1.0]), order=1, compiled=False)
    assert checks.made["gradient"] == 1 and checks.skipped == {"rounding": 1}


def test_a_gradient_that_is_no_linear_function_of_its_cotangent_breaks_the_adjoint_identity() -> None:
    error = caught(custom(lambda x: x + 0.0, lambda u, x: ops.stop_gradient(u)), X, order=1)
    assert error.check == "adjoint"
    assert "= stop_gradient" in error.node
    error = caught(custom(lambda x: ops.sum(x * x), lambda u, x: 2.0 * x), X, order=1)
    assert error.check == "adjoint"
    assert "= custom_gradient" in error.node


def test_a_dropped_term_of_second_order_is_found_in_the_gradient() -> None:
    def forgetful(u: Any, x: Any) -> Any:
        return u * ops.stop_gradient(2.0 * x)

    square = custom(lambda x: x * x, forgetful)
    check_gradients(square, X, order=1, compiled=False)
    error = caught(square, X, order=2)
    assert error.check == "gradient" and "order 2" in str(error)
    assert "= stop_gradient" in error.node


def test_the_worst_element_is_named() -> None:
    wrong = custom(lambda x: x * 1.0, lambda u, x: u + ops.stop_gradient(u) * np.eye(3, 4)[[2, 0, 1]] * 0.5)
    assert "most wrong is x[" in str(caught(lambda x: wrong(x), X, order=1))
    only = custom(lambda x: x * 1.0, lambda u, x: u * np.where(np.arange(12).reshape(3, 4) == 6, 2.0, 1.0))
    assert "most wrong is x[1, 2]: " in str(caught(lambda x: only(x), X, order=1))


@pytest.mark.parametrize(
    ("op", "f"),
    [
        (Multiply, lambda x, w: ops.sum((x @ w) * 3.0)),
        (Tanh, lambda x, w: ops.tanh(x @ w) @ ops.transpose(w)),
        (Sum, lambda x, w: ops.exp(ops.sum(x, axis=1)) * ops.sum(w)),
    ],
)
def test_a_wrong_rule_of_an_op_is_found_and_named(op: Any, f: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = op.vjp
    monkeypatch.setattr(
        op, "vjp", lambda self, node, u: [None if c is None else c * 1.01 for c in right(self, node, u)]
    )
    if op is Multiply:  # its own rule is made of itself
        monkeypatch.setattr(
            op, "vjp", lambda self, node, u: [None if c is None else c + u for c in right(self, node, u)]
        )
    error = caught(f, X, W, order=1, compiled=False)
    assert f"= {op.name}" in error.node.splitlines()[0]
    # The node alone is a graph that can be read back, with the gradient that is wrong.
    alone = parse(textwrap.dedent(error.node.split("alone, with its gradient:\n")[1]))
    assert alone.outputs[0].value.op.name == op.name
    assert [output.name for output in alone.outputs][:2] == ["result", "gradient_x0"]
    assert {type(x.op) for x in alone.outputs[0].value.inputs} == {Input}
    assert alone.outputs[0].value.shape == {"multiply": (3, 2), "tanh": (3, 2), "sum": (3,)}[op.name]


def test_the_layer_of_a_wrong_node_is_named() -> None:
    wrong = custom(lambda x: x * x, lambda u, x: u * x)
    model = gl.Sequential([gl.layers.Dense(2, input_shape=(4,), name="first"), gl.layers.Lambda(wrong, name="squares")])
    error = caught(lambda x: model(x), X.astype(np.float32))
    assert "squares" in error.node.splitlines()[0] and "first" not in error.node.splitlines()[0]


def test_wrong_code_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Tanh.scalar
    monkeypatch.setattr(Tanh, "scalar", lambda self, b, *x: b.mul(right(self, b, *x), 1.001))
    error = caught(lambda x: ops.exp(ops.tanh(x)) * 2.0, X.astype(np.float32))
    assert error.check == "compiled"
    assert "= tanh" in error.node.splitlines()[0] and "test_testing_check.py" in error.node


def test_results_that_depend_on_threads_are_found_for_small_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two threads, where a program has work for it, rounds one element otherwise."""

    def planted(program: Program, graph: Graph, arrays: Any) -> dict[str, np.ndarray]:
        results = run_program(program, graph, arrays)
        if min(get_num_threads(), program.max_threads) > 1:
            results["result"].flat[-1] = np.nextafter(results["result"].flat[-1], np.float32(9))
        return results

    monkeypatch.setattr(compiled, "run_program", planted)
    error = caught(lambda x: ops.softmax(x), X.astype(np.float32))
    assert error.check == "threads" and "on 2 threads its bits are others" in error.node


def test_threads_are_not_judged_where_one_has_all_the_work() -> None:
    assert "threads" not in check_gradients(lambda x: ops.exp(x), np.float32([0.5])).made


def test_a_wrong_rewrite_is_found_in_the_smallest_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradloom.compiler import pipeline
    from gradloom.compiler.passes.rewrite import Rewritten

    rewrite = pipeline.rewrite

    def wrong(graph: Any, rules: Any) -> Rewritten:
        """exp passes a tanh by that is no result."""
        done = rewrite(graph, rules)
        old = done.graph
        new = type(old)(old.name)
        image: dict[Any, Any] = {}
        kept = {output.value for output in old.outputs}
        for value in old.live():
            operands = [
                x.inputs[0] if value.op.name == "exp" and x.op.name == "tanh" and x not in kept else x
                for x in value.inputs
            ]
            image[value] = new.copy(value, *(image[x] for x in operands))
        for output in old.outputs:
            new.output(output.name, image[output.value])
        new.captured = old.captured
        return Rewritten(new, done.firings, {k: image[v] for k, v in done.image.items() if v in image})

    monkeypatch.setattr(pipeline, "rewrite", wrong)
    error = caught(lambda x: ops.sqrt(ops.exp(ops.tanh(x))) + 1.0, X.astype(np.float32) + 2, order=1)
    assert error.check == "compiled"
    assert "as small as one can be" in error.node
    assert "tanh" in error.node and "exp" in error.node and "sqrt" not in error.node


def test_what_is_not_finite_is_refused_or_found() -> None:
    with pytest.raises(NotFiniteError, match=r"%\d+: f64\[2\] = log .*test_testing_check.py"):
        check_gradients(lambda x: ops.log(x) * 0.5, np.array([1.0, 0.0]))
    infinite = custom(lambda x: x * 1.0, lambda u, x: u / (x * 0.0))
    error = caught(infinite, X, order=1)
    assert error.check == "finite" and "= custom_gradient" in error.node


def test_a_right_gradient_is_not_found_wrong_for_what_overflows() -> None:
    large = np.array([1e20, -2e20], np.float32)
    for f in (ops.silu, lambda x: ops.tanh(x) * x):
        with pytest.raises(NotJudgedError):
            check_gradients(f, large)
    check_gradients(ops.softplus, large)
    assert check_gradients(lambda x: x * x, large).made["dtype"] == 3  # 1e40 is infinite in float32
    error = caught(lambda x: ops.sqrt(x * x + 1.0), large)
    assert error.check == "dtype" and "= multiply" in error.node and "in f32, it has inf" in error.node


def test_points_at_kinks_are_moved_or_passed_by() -> None:
    assert not check_gradients(ops.relu, np.zeros(3), compiled=False).skipped
    # Equal operands stay equal wherever the point is moved.
    for skipped in (lambda x: ops.maximum(x, x) * 2.0, lambda x: ops.sqrt(x - x) * x):
        with pytest.raises(NotJudgedError, match="function: no gradient was judged: 3 directions skipped: over a kink"):
            check_gradients(skipped, X, compiled=False)
    # One of two arguments can be judged.
    checks = check_gradients(lambda x, y: ops.maximum(x, x) + y, X, X, compiled=False)
    assert checks.judged and "directions skipped: over a kink" in str(checks)


def test_points_are_moved_no_farther_than_the_function_is_finite() -> None:
    for small in (1e-3, 1e-5, 1e-12):
        assert check_gradients(lambda x: ops.log(x), np.full(3, small), compiled=False).judged
    # Moved off its kink, it may be beyond where it is finite.
    bounded = lambda x: ops.sqrt(1.0 - x) + ops.abs(x - 0.99)  # noqa: E731
    for seed in range(4):
        assert not check_gradients(bounded, np.array([0.99]), compiled=False, seed=seed).skipped
    with pytest.raises(NotFiniteError):
        check_gradients(lambda x: ops.log(x), np.array([0.0]))


def test_directions_are_those_of_the_seed() -> None:
    wrong = custom(lambda x: ops.sum(x * x), lambda u, x: u * x)

    def received(seed: int) -> str:
        return str(caught(lambda x: wrong(x), X, order=1, seed=seed)).split("Received:")[1].split()[0]

    assert len({received(seed) for seed in range(3)}) == 3
    assert received(1) == received(1)


def test_intervals_are_asked_of_elements_from_everywhere() -> None:
    x = np.zeros(100)
    wrong = custom(lambda x: ops.abs(x), lambda u, x: u * np.where(np.arange(100) >= 64, 1.5, 0.0))
    for seed in range(3):
        assert caught(lambda x: wrong(x), x, order=1, kinks="interval", seed=seed).check == "interval"
    checks = check_gradients(ops.abs, x, kinks="interval", compiled=False)
    assert checks.skipped["sampled"] == 36 and "36 elements skipped" in str(checks)
    assert "sampled" not in check_gradients(ops.abs, x[:64], kinks="interval", compiled=False).skipped


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_intervals_follow_the_size_of_arguments(size: float) -> None:
    x = size * np.array([0.0, 1.0, -2.0])
    check_gradients(lambda x: ops.abs(x) * 2.0, x, kinks="interval", compiled=False)
    half = custom(lambda x: ops.relu(x), lambda u, x: u * ops.where(x > 0.0, 0.5, 0.0))
    assert caught(lambda x: half(x), x, order=1, kinks="interval").check == "interval"


def test_derivatives_that_rounding_may_hide_are_not_counted_as_judged() -> None:
    wrong = custom(lambda x: x * x, lambda u, x: u * x)
    with pytest.raises(NotJudgedError, match="rounding may be as large as the derivative"):
        check_gradients(lambda x: wrong(x) + 1e16, X, compiled=False)
    # Of a result that does not depend on its argument 0 is right, and certain.
    assert check_gradients(lambda x: x * 0.0, X, compiled=False).judged
    assert check_gradients(lambda x: x, np.zeros((0, 3)), compiled=False).made == {"adjoint": 1}


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="order of at least 1"):
        check_gradients(lambda x: x, X, order=0)
    with pytest.raises(ValueError, match="kinks as one of"):
        check_gradients(lambda x: x, X, kinks="ignore")
    with pytest.raises(TypeError, match="Expected arrays as arguments"):
        check_gradients(lambda x: x, 3)
    with pytest.raises(TypeError, match="Expected floats among"):
        check_gradients(lambda x: x * 2, np.arange(3))
    with pytest.raises(TypeError, match="Expected a function"):
        check_gradients(3, X)  # type: ignore[arg-type]


@pytest.mark.parametrize("f", [lambda x: np.tanh(x), lambda x: float(x), lambda x: math.exp(x)])
def test_functions_of_numbers_are_told_from_those_of_values(f: Callable[..., Any]) -> None:
    with pytest.raises(TypeError) as error:
        check_gradients(f, X)
    assert "Expected functions of gl.ops" in error.value.__notes__[0]


def test_what_is_not_finite_is_named() -> None:
    with pytest.raises(NotFiniteError, match="arrays at which argument 'y' is not"):
        check_gradients(lambda x, y: x * y, X, np.array([np.nan, 1.0, 2.0, 3.0]))


def test_random_functions_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match="Received: one that is random"):
        check_gradients(lambda x: x * rng.random(), X.astype(np.float32), order=1)
    with pytest.raises(TypeError, match="Received: one that is random"):
        check_gradients(lambda x: gl.layers.Dropout(0.5)(x, training=True), X.astype(np.float32), order=1)


def test_records_know_how_near_a_check_came() -> None:
    checks = Checks("f")
    checks.add("gradient", 0.5, 2.0)
    checks.add("gradient", np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    assert checks.made == {"gradient": 2} and checks.nearest == {"gradient": 0.5}
