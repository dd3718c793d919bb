"""Tests to paste: they run as they are and fail in the same way, or say in their first line what is to be filled in."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gradloom as gl
from gradloom import ops
from gradloom.testing import GradientError, LayerCall, check_gradients
from gradloom.testing.literals import NoLiteralError, literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

FACTOR = 0.5
LOW = float("-inf")
CONFIG = {"twice": [2.0, None], "names": ("a",), "bounds": {"low": -np.inf}}
NOTHING = None
DENSE = gl.layers.Dense(3)
low = "a name that is a parameter elsewhere"


@ops.custom_gradient
def halved(x: Any) -> Any:
    return x * FACTOR, lambda upstream: upstream


def scaled_twice(x: Any, times: int) -> Any:
    for _ in range(times):
        x = halved(x)
    return x


def clipped(x: NDArray[Any], low: float = LOW, *, factor: Any = FACTOR) -> NDArray[Any]:
    return halved(ops.maximum(x, low)) * factor


def configured(x: Any) -> Any:
    assert NOTHING is None and CONFIG["bounds"] == {"low": LOW}
    return halved(x) * CONFIG["twice"][0]  # type: ignore[index]


def called_like_a_test() -> Callable[..., Any]:
    def test_halved(x: Any) -> Any:
        return halved(x)

    return test_halved


def over_a_layer(x: Any) -> Any:
    return halved(DENSE(x))


def failing(f: Callable[..., Any], *args: Any) -> GradientError:
    with pytest.raises(GradientError) as error:
        check_gradients(f, *args, compiled=False)
    return error.value


def run(code: str) -> None:
    """Run the only test of a module."""
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(compile(code, "pasted.py", "exec"), names)
    (test,) = [value for name, value in names.items() if name.startswith("test")]
    test()


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (scaled_twice, (X, 3)),
        (clipped, (X,)),
        (configured, (X,)),
        (called_like_a_test(), (X,)),
    ],
)
def test_what_is_pasted_fails_in_the_same_way(f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    error = failing(f, *args)
    with pytest.raises(GradientError) as again:
        run(error.snippet)
    assert again.value.check == error.check
    assert "..." not in error.snippet and error.snippet in str(error)


def test_parameters_are_not_taken_from_the_module() -> None:
    def own(low: Any) -> Any:
        wrong = ops.custom_gradient(lambda x: (x * 1.0, lambda upstream: upstream * 2.0 + 0.0 * low))
        return wrong(low)

    assert "low =" not in failing(own, X).snippet


def test_behind_the_last_line_is_nothing_of_the_test() -> None:
    error = failing(halved, X)
    error.add_note("Failing test case: halved(")
    assert error.snippet.splitlines()[-1] == "# End of the test."


class Halving:
    """Something with a method."""

    def method(self, x: Any) -> Any:
        return halved(x)


@pytest.mark.parametrize(
    ("f", "what"),
    [
        (lambda x: halved(x), "test_testing_snippets.py:"),
        (functools.partial(scaled_twice, times=2), "functools.partial"),
        (Halving().method, "Halving.method at "),
    ],
)
def test_functions_that_cannot_be_written_are_to_be_filled_in(f: Callable[..., Any], what: str) -> None:
    code = failing(f, X).snippet
    first = code.splitlines()[0]
    assert first.startswith("# Fill in f: the function that was checked, ") and what in first
    with pytest.raises(TypeError, match="Expected a function"):
        run(code)
    with pytest.raises(GradientError):
        run(code.replace("f = ...", "from test_testing_snippets import halved as f"))


def test_values_that_cannot_be_written_are_to_be_filled_in() -> None:
    code = failing(over_a_layer, X).snippet
    assert code.startswith("# Fill in DENSE: <Dense name=")
    assert "DENSE = ...\n" in code and "def over_a_layer" in code


class Wrong(gl.layers.Layer):
    """A layer with a wrong gradient."""

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight((4,), name="factor")

    def call(self, x: Any) -> Any:
        return halved(x * self.factor)


def test_a_layer_gets_the_weights_with_which_it_failed() -> None:
    layer = Wrong()
    error = failing(layer, X)
    weights, code = layer.get_weights(), error.snippet
    layer.set_weights([np.zeros(4)])
    names = {"LAYER": layer}
    module = ast.parse(code.replace("f = ...", "f = LAYER"))
    exec(compile(module, "pasted.py", "exec"), names)
    with pytest.raises(GradientError):
        names["test_Wrong"]()  # type: ignore[operator]
    assert np.array_equal(layer.get_weights(), weights)


def test_a_layer_s_call_can_be_pasted() -> None:
    def wrong_call(call: Any) -> Any:
        return halved(call())

    x, kernel = np.ones((1, 2), np.float32), np.ones((2, 1), np.float32)
    call = LayerCall(gl.layers.Dense, {"units": 1, "use_bias": False}, x, [kernel])
    with pytest.raises(GradientError):
        run(failing(wrong_call, call).snippet)


@dataclass
class Pair:
    """Two numbers."""

    first: Any
    second: Any = ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        -np.inf,
        (1,),
        {"a": [True, b"x", "y"]},
        {1, 2},
        set(),
        frozenset({3}),
        slice(None, 2),
        float,
        Pair(1, (2,)),
    ],
)
def test_literals_are_the_values_again(value: Any) -> None:
    imports: set[str] = set()
    text = literal(value, imports)
    names: dict[str, Any] = {}
    exec("\n".join(imports), names)
    assert eval(text, names) == value


def test_what_has_no_literal_is_refused() -> None:
    for value in (object(), lambda: 0, [object()], np.array([object()])):
        with pytest.raises(NoLiteralError):
            literal(value, set())
