"""`gradient_property`: what is drawn, that right functions pass and wrong ones fail with the simplest arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom as gl
from gradloom import ops
from gradloom.testing import (
    PROFILE,
    Convolution,
    GradientError,
    LayerCall,
    NotJudgedError,
    Pooling,
    convolution,
    gradient_property,
    layers,
    pooling,
    tensor,
)
from gradloom.testing.layer_strategies import _CASES
from gradloom.testing.profiles import property_settings
from gradloom.testing.properties import _arguments

ONCE = settings(derandomize=True, max_examples=40, database=None)


def drawn(count: int = 40, **strategies: Any) -> list[dict[str, Any]]:
    """Arguments as `gradient_property` draws them."""
    found = []

    @settings(ONCE, max_examples=count)
    @given(st.composite(_arguments)(strategies))
    def collect(arguments: dict[str, Any]) -> None:
        found.append(arguments)

    collect()
    return found


@gradient_property(x=tensor("N", "D"), w=tensor("D", "M"), order=2, max_examples=8, compiled_examples=1)
def affine_relu(x: Any, w: Any) -> Any:
    """A layer."""
    return ops.relu(x @ w)


test_a_property_of_another_name = affine_relu


def test_a_property_is_a_function_without_arguments() -> None:
    assert not inspect.signature(affine_relu).parameters
    assert affine_relu.__name__ == "affine_relu" and affine_relu.__doc__ == "A layer."
    assert affine_relu.__module__ == __name__


def test_names_have_one_size_and_numbers_their_own() -> None:
    examples = drawn(x=tensor("N", "D", 3), w=tensor("D", dtype="float64"), rows=tensor("N", dtype="int32"))
    for example in examples:
        assert example["x"].shape == (example["rows"].shape[0], example["w"].shape[0], 3)
    assert {example["x"].dtype.name for example in examples} == {"float32"}
    assert {example["rows"].dtype.name for example in examples} == {"int32"}
    assert {0, 1, 4} <= {example["w"].shape[0] for example in examples}


def test_sizes_and_elements_can_be_bounded() -> None:
    examples = drawn(x=tensor("N", sizes={"N": (2, 3)}, elements=(0.5, 1.0)), y=tensor(2, elements=st.just(7.0)))
    assert {example["x"].shape for example in examples} == {(2,), (3,)}
    assert all(example["x"].min() >= 0.5 and example["x"].max() <= 1.0 for example in examples)
    assert all(example["y"].tolist() == [7.0, 7.0] for example in examples)
    with pytest.raises(ValueError, match="sizes as names or non-negative integers"):
        tensor("N", -1)


def test_broadcastable_shapes_broadcast() -> None:
    examples = drawn(80, x=tensor("A", "B"), y=tensor("A", "B", broadcastable=True))
    for example in examples:
        assert np.broadcast_shapes(example["x"].shape, example["y"].shape) == example["x"].shape
    shapes = [(example["x"].shape, example["y"].shape) for example in examples]
    assert any(len(y) < 2 for _, y in shapes) and any(x != y and len(y) == 2 for x, y in shapes)


@ONCE
@given(convolution())
def test_convolutions_fit(c: Convolution) -> None:
    result = gl.trace(
        lambda x, kernel: ops.conv(x, kernel, c.strides, c.padding, dilation_rate=c.dilation_rate), c.x, c.kernel
    )
    assert all(size > 0 for size in result.outputs[0].value.shape)


@ONCE
@given(pooling())
def test_poolings_fit(c: Pooling) -> None:
    result = gl.trace(lambda x: ops.max_pool(x, c.pool_size, c.strides, c.padding), c.x)
    assert all(size > 0 for size in result.outputs[0].value.shape)


@gradient_property(c=convolution(), max_examples=6, compiled_examples=0)
def test_convolution(c: Convolution) -> Any:
    return ops.conv(c.x, c.kernel, c.strides, c.padding, dilation_rate=c.dilation_rate)


@gradient_property(c=pooling(), max_examples=6, compiled_examples=0, kinks="convention")
def test_pooling(c: Pooling) -> Any:
    return ops.max_pool(c.x, c.pool_size, c.strides, c.padding) * 2.0


@gradient_property(call=layers(), max_examples=15, compiled_examples=1)
def test_layers(call: LayerCall) -> Any:
    return call()


def test_every_layer_with_a_gradient_is_drawn() -> None:
    kinds = {
        kind
        for kind in vars(gl.layers).values()
        if isinstance(kind, type) and issubclass(kind, gl.layers.Layer) and kind is not gl.layers.Layer
    }
    # No function of arrays, or of the caller's making, or one that draws numbers.
    others = {gl.layers.InputLayer, gl.layers.Lambda, gl.layers.Dropout, gl.layers.Reshape}
    assert kinds - others == set(_CASES)
    with pytest.raises(ValueError, match="Expected layers out of Activation, Add"):
        layers(gl.layers.Dropout)
    with pytest.raises(TypeError, match="Expected classes of layers. Received: 'Dense'"):
        layers("Dense")  # type: ignore[arg-type]


def test_weights_of_layers_are_arguments() -> None:
    (call,) = [example["call"] for example in drawn(1, call=layers(gl.layers.Dense))]
    assert call.weights[0].ndim == 2
    with pytest.raises(TypeError, match="while a graph is traced"):
        call()


def failing(f: Callable[..., Any], **options: Any) -> GradientError:
    with pytest.raises(GradientError) as error:
        gradient_property(compiled_examples=0, **options)(f)()
    return error.value


@ops.custom_gradient
def wrong_above_one(x: Any) -> Any:
    return x * x, lambda upstream: upstream * ops.where(x > 1.0, x, 2.0 * x)


def test_shapes_shrink_and_then_values() -> None:
    error = failing(lambda x: ops.sum(wrong_above_one(x)), x=tensor("N", "D"), max_examples=60, order=1)
    # One element is enough, and no simpler one than the first above 1.
    assert "np.array([[1.015625]], 'float32')" in str(error)
    assert "= custom_gradient" in error.node and "test_testing_properties.py" in error.node


def test_a_wrong_layer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradloom.compiler.ops.contractions import Matmul

    right = Matmul.vjp
    monkeypatch.setattr(Matmul, "vjp", lambda self, node, u: [c + c for c in right(self, node, u)])
    error = failing(lambda call: call(), call=layers(gl.layers.Dense), max_examples=2, order=1)
    assert "= matmul" in error.node and "dense" in error.node
    assert "LayerCall(layer=gradloom.layers.dense.Dense, config={'units': 1" in str(error)


@pytest.mark.parametrize("kinks", ["convention", "interval"])
def test_relu_at_zero(kinks: str) -> None:
    zeros = tensor("N", elements=st.sampled_from([0.0, 1.0, -1.0]))
    gradient_property(x=zeros, kinks=kinks, max_examples=10, compiled_examples=0)(lambda x: ops.relu(x) * 3.0)()

    leaky = gl.ops.custom_gradient(lambda x: (ops.relu(x), lambda upstream: ops.where(x >= 0.0, upstream, 0.0)))
    steep = gl.ops.custom_gradient(
        lambda x: (ops.relu(x), lambda upstream: ops.where(x > 0.0, upstream, ops.where(x < 0.0, 0.0, 2.0 * upstream)))
    )
    # 1 at 0 is between the one-sided derivatives, but not what ReLU documents; 2 is neither.
    if kinks == "convention":
        assert failing(lambda x: leaky(x), x=zeros, kinks=kinks).check == "convention"
    else:
        gradient_property(x=zeros, kinks=kinks, max_examples=10, compiled_examples=0)(lambda x: leaky(x))()
    assert failing(lambda x: steep(x), x=zeros, kinks=kinks).check == kinks
    gradient_property(x=zeros, max_examples=10, compiled_examples=0)(lambda x: leaky(x))()


def test_equal_maxima_share_by_convention() -> None:
    ties = tensor(4, elements=st.sampled_from([0.0, 1.0]))
    gradient_property(x=ties, kinks="convention", max_examples=10, compiled_examples=0)(lambda x: ops.max(x) * 2.0)()

    def first(x: Any) -> Any:
        return ops.max_pool(ops.reshape(x, (1, 1, 4, 1)), (1, 4))

    gradient_property(x=ties, kinks="convention", max_examples=10, compiled_examples=0)(first)()
    wrong = gl.ops.custom_gradient(
        lambda x: (ops.max(x), lambda upstream: ops.where(ops.equal(x, ops.max(x)), upstream, 0.0))
    )
    error = failing(lambda x: wrong(x), x=ties, kinks="convention")
    assert error.check == "convention"


def test_points_without_a_value_are_drawn_anew() -> None:
    calls = gradient_property(x=tensor(elements=(-1.0, 1.0)), max_examples=10, compiled_examples=0)
    calls(lambda x: ops.log(x))()


@ops.custom_gradient
def twice_wrong(x: Any) -> Any:
    return x * x, lambda upstream: upstream * 4.0 * x


UNJUDGED: dict[str, Callable[[Any], Any]] = {
    "kinks everywhere": lambda x: twice_wrong(x) + ops.floor(x * 1e9),
    "ties everywhere": lambda x: ops.maximum(twice_wrong(x), twice_wrong(x) * 1.0),
    "drowned": lambda x: twice_wrong(x) + 1e16,
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_a_property_fails_where_no_gradient_is_judged(name: str) -> None:
    test = gradient_property(x=tensor("N", dtype="float64"), max_examples=10, compiled_examples=0)(UNJUDGED[name])
    reason = "rounding may be" if name == "drowned" else "over a kink"
    with pytest.raises(NotJudgedError, match=f"no gradient was judged: .*{reason}"):
        test()


def test_a_property_fails_where_only_arrays_without_elements_are_finite() -> None:
    nowhere = gradient_property(x=tensor("N", dtype="float64"), max_examples=25, compiled_examples=0)
    with pytest.raises(
        NotJudgedError, match=r"no gradient was judged: \d+ points? skipped: the function is not finite"
    ):
        nowhere(lambda x: ops.log(-1.0 - x * x))()


def test_a_property_without_elements_passes() -> None:
    gradient_property(x=tensor(0), max_examples=3, compiled_examples=0)(lambda x: twice_wrong(x))()


def test_strategies_and_parameters_must_fit() -> None:
    with pytest.raises(TypeError, match="strategies for positional parameters of f: x, y. Received: x, z"):

        @gradient_property(x=tensor("N"), z=tensor("N"))
        def f(x: Any, y: Any) -> Any:
            return x + y


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": {"N": 3}}, r"Expected sizes as \(least, most\)"),
        ({"sizes": {"N": (3, 1)}}, r"Expected sizes as \(least, most\)"),
        ({"sizes": {"M": (1, 2)}}, "Expected sizes of names among N. Received: M"),
        ({"elements": (1.0, 0.0)}, r"Expected elements as a strategy or \(least, most\)"),
        ({"elements": 3}, r"Expected elements as a strategy or \(least, most\)"),
    ],
)
def test_bounds_of_tensors_must_be_bounds(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensor("N", **options)


def test_narrow_ranges_have_elements() -> None:
    for low, high in ((0.001, 0.01), (0.1, 0.1), (-1e-6, 1e-6)):
        arrays = [example["x"] for example in drawn(20, x=tensor(3, elements=(low, high), dtype="float64"))]
        assert all(low <= x.min() and x.max() <= high for x in arrays)
        assert low == high or len({x.tobytes() for x in arrays}) > 3


@pytest.mark.parametrize("strategy", [np.zeros(3), ("N", "D"), 3])
def test_what_is_no_strategy_is_refused(strategy: Any) -> None:
    with pytest.raises(TypeError, match="Expected x as a strategy"):
        gradient_property(x=strategy)(lambda x: x)


def scaled_sum(x: Any, axis: int, scale: float = 2.0) -> Any:
    assert axis in (0, 1) and scale == 2.0 and isinstance(scale, float)
    return ops.sum(x * x, axis=axis) * scale


test_other_parameters_are_passed_on = pytest.mark.parametrize("axis", [0, 1])(
    gradient_property(x=tensor("N", 2), order=1, max_examples=3, compiled_examples=0)(scaled_sum)
)


class TestMethods:
    power = 2

    @gradient_property(x=tensor(3), order=1, max_examples=2, compiled_examples=0)
    def test_a_method(self, x: Any) -> Any:
        return x**self.power


def test_wrong_ones_with_other_parameters_fail() -> None:
    @gradient_property(x=tensor(2), order=1, max_examples=2, compiled_examples=0)
    def times(x: Any, count: int) -> Any:
        return wrong_above_one(x + 2.0) * count

    assert list(inspect.signature(times).parameters) == ["count"]
    with pytest.raises(GradientError, match="order=1"):
        times(3)
    with pytest.raises(TypeError, match="count"):
        times()


def test_the_profile_is_taken_in_ci_unless_another_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    before = hypothesis.settings.get_current_profile_name()
    try:
        hypothesis.settings.load_profile("default")
        assert not property_settings(5).derandomize
        monkeypatch.setenv("CI", "true")
        chosen = property_settings(5)
        assert chosen.derandomize and chosen.print_blob and chosen.deadline is None and chosen.max_examples == 5
        hypothesis.settings.register_profile("mine", derandomize=False)
        hypothesis.settings.load_profile("mine")
        assert not property_settings(5).derandomize
        hypothesis.settings.load_profile(PROFILE)
        assert property_settings(5).derandomize
    finally:
        hypothesis.settings.load_profile(before)
