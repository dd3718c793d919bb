"""Mixed precision: what is rounded to bfloat16 and what is not, against NumPy on rounded numbers."""

import subprocess
import sys
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import DTypeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Input, building
from gradloom.compiler.ops.convolution import Conv2D
from gradloom.compiler.ops.elementwise import Convert
from gradloom.compiler.ops.winograd import WinogradConv2D
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.pipeline import lower
from gradloom.compiler.types import BF16, F32, F64, TensorType

MIXED = "mixed_bfloat16"


@pytest.fixture
def mixed() -> Iterator[None]:
    gl.mixed_precision.set_global_policy(MIXED)
    yield
    gl.mixed_precision.set_global_policy("float32")


def rounded(x: np.ndarray) -> np.ndarray:
    """x in bfloat16's precision."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_policies_by_keras_names() -> None:
    policy = gl.mixed_precision.Policy(MIXED)
    assert (policy.name, policy.compute_dtype, policy.variable_dtype) == (MIXED, BF16, F32)
    wide = gl.mixed_precision.DTypePolicy("float64")
    assert (wide.compute_dtype, wide.variable_dtype) == (F64, F64)
    assert (
        gl.mixed_precision.global_policy() == gl.mixed_precision.dtype_policy() == gl.mixed_precision.Policy("float32")
    )
    with pytest.raises(DTypeError, match="Expected a policy: 'mixed_bfloat16', or the name of a dtype. Received: 'mix"):
        gl.mixed_precision.set_global_policy("mixed_float8")
    with pytest.raises(DTypeError, match="Expected a policy with weights of float32, such as 'mixed_bfloat16'"):
        gl.layers.Dense(3, dtype="bfloat16")


def test_the_global_policy_is_that_of_layers_made_under_it(mixed: None) -> None:
    layer = gl.layers.Dense(3)
    gl.mixed_precision.set_global_policy("float32")
    assert (layer.compute_dtype, layer.variable_dtype, layer.dtype) == (BF16, F32, F32)
    assert gl.layers.Dense(3).compute_dtype == F32
    again = gl.layers.Dense.from_config(layer.get_config())
    assert again.dtype_policy == layer.dtype_policy == gl.mixed_precision.Policy(MIXED)


def test_dense_multiplies_rounded_numbers_and_adds_the_bias_to_their_sums() -> None:
    x = drawn(5, 40)
    model = gl.Sequential([gl.layers.Dense(17, bias_initializer="ones", dtype=MIXED)])
    result = model.predict(x, verbose=0)
    kernel, bias = model.get_weights()
    assert kernel.dtype == result.dtype == np.float32
    np.testing.assert_allclose(result, rounded(x) @ rounded(kernel) + bias, rtol=1e-5, atol=1e-5)


def test_what_activates_or_normalizes_rounds_nothing() -> None:
    x = drawn(4, 6)
    for layer in (
        gl.layers.LeakyReLU(0.1, dtype=MIXED),
        gl.layers.BatchNormalization(dtype=MIXED),
        gl.layers.Softmax(dtype=MIXED),
    ):
        plain = type(layer).from_config(layer.get_config() | {"dtype": "float32"})
        np.testing.assert_array_equal(
            gl.Sequential([layer]).predict(x, verbose=0), gl.Sequential([plain]).predict(x, verbose=0)
        )


def test_layers_that_move_elements_give_float32() -> None:
    x = drawn(2, 3, 4)
    result = gl.Sequential([gl.layers.Flatten(dtype=MIXED)]).predict(x, verbose=0)
    np.testing.assert_array_equal(result, rounded(x).reshape(2, 12).astype(np.float32))


def network() -> gl.Model:
    """Convolutions by the definition and on tiles, normalized, with a sum around one of them."""
    x = gl.Input((12, 12, 3))
    y = gl.layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = gl.layers.LeakyReLU(0.1)(gl.layers.BatchNormalization()(y))
    z = gl.layers.Conv2D(16, 3, padding="same", use_bias=False)(y)
    z = gl.layers.LeakyReLU(0.1)(gl.layers.BatchNormalization()(z))
    y = gl.layers.Add()([y, z])
    y = gl.layers.GlobalAveragePooling2D()(y)
    return gl.Model(x, gl.layers.Dense(5)(y))


def test_predictions_fold_weights_and_keep_only_bf16_between_products(mixed: None) -> None:
    model = network()
    prepare, main = split_prepare(fold_into_weights(model.predict_graph(2)))
    assert prepare is not None
    # Kernels are scaled, transformed where that pays, and only then rounded.
    for value in prepare.live():
        if isinstance(value.op, Convert):
            assert value.dtype == BF16
    convolutions = [value for value in main.live() if isinstance(value.op, Conv2D | WinogradConv2D)]
    assert len(convolutions) == 2
    assert all(isinstance(value.inputs[1].op, Input) for value in convolutions)
    assert all(operand.dtype == BF16 for value in convolutions for operand in value.inputs)
    fused = lower(main).fused
    images = [result for group in fused.groups for result in group.results if result.ndim == 4]
    assert images and all(image.dtype == BF16 for image in images)


def test_predictions_are_near_those_of_float32(mixed: None) -> None:
    model = network()
    gl.mixed_precision.set_global_policy("float32")
    plain = network()
    plain.set_weights(model.get_weights())
    x = drawn(4, 12, 12, 3)
    expected = plain.predict(x, verbose=0)
    error = np.abs(model.predict(x, verbose=0) - expected).max() / np.sqrt(np.mean(expected**2))
    assert 1e-5 < error < 2e-2


def test_training_learns(mixed: None) -> None:
    x = drawn(256, 8)
    y = (x[:, :1] * x[:, 1:2] > 0).astype(np.float32)
    model = gl.Sequential([gl.layers.Dense(32, activation="relu"), gl.layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    before, *_, after = model.fit(x, y, epochs=60, verbose=0).history["loss"]
    assert after < before / 2
    assert all(array.dtype == np.float32 for array in model.get_weights())


def test_a_convolutional_network_trains_as_in_float32(mixed: None) -> None:
    models = [network()]
    gl.mixed_precision.set_global_policy("float32")
    models.append(network())
    models[1].set_weights(models[0].get_weights())
    x, y = drawn(16, 12, 12, 3), np.arange(16) % 5
    losses = []
    for model in models:
        model.compile(gl.optimizers.SGD(0.05), gl.losses.SparseCategoricalCrossentropy(from_logits=True))
        losses.append(model.fit(x, y, batch_size=16, epochs=8, verbose=0, shuffle=False).history["loss"])
    assert losses[1][-1] < losses[1][0] - 0.05
    np.testing.assert_allclose(*losses, rtol=5e-3)
    assert losses[0] != losses[1]


def gradients_of(stored: str) -> list[np.ndarray]:
    """The gradients of a convolution and a product behind it by images and weights, with operands stored so."""
    graph = Graph("gradients")
    with building(graph):
        x = graph.input("x", TensorType(F32, (2, 6, 6, 3)))
        k = graph.input("k", TensorType(F32, (3, 3, 3, 4)))
        w = graph.input("w", TensorType(F32, (4, 5)))
        y = gl.ops.conv(gl.ops.cast(x, stored), gl.ops.cast(k, stored), padding="same")
        z = gl.ops.matmul(gl.ops.cast(gl.ops.tanh(y), stored), gl.ops.cast(w, stored))
        for number, gradient in enumerate(gradients([gl.ops.sum(gl.ops.square(z))], [x, k, w])):
            assert gradient.dtype == F32
            graph.output(str(number), gradient)
    arrays = {"x": drawn(2, 6, 6, 3), "k": drawn(3, 3, 3, 4, seed=1) / 5, "w": drawn(4, 5, seed=2)}
    return list(interpret(graph, arrays).values())


def test_gradients_are_float32_and_near_those_of_the_formula() -> None:
    for rough, exact in zip(gradients_of("bfloat16"), gradients_of("float32"), strict=True):
        error = np.sqrt(np.mean((rough - exact) ** 2) / np.mean(exact**2))
        assert 1e-5 < error < 2e-2


def test_the_gradient_of_a_bf16_input_is_float32() -> None:
    graph = Graph("inputs")
    x = graph.input("x", TensorType(BF16, (3,)))
    (gradient,) = gradients([gl.ops.sum(x * 2.0)], [x])
    assert gradient.dtype == F32


def test_numbers_beside_bf16_are_not_rounded() -> None:
    graph = Graph("numbers")
    x = graph.input("x", TensorType(BF16, (3,)))
    graph.output("y", x * 0.1)
    given = np.array([1, 2, 3], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(interpret(graph, {"x": given})["y"], given.astype(np.float32) * np.float32(0.1))


def test_ml_dtypes_is_loaded_for_bf16_alone() -> None:
    code = """
import sys, numpy as np, gradloom as gl
model = gl.Sequential([gl.layers.Dense(3)])
model.predict(np.zeros((2, 4), np.float32), verbose=0)
gl.mixed_precision.set_global_policy("mixed_bfloat16")
print("ml_dtypes" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_arrays_of_bfloat16_are_taken_as_they_are() -> None:
    """What a function returns can be handed to the next one."""
    x = drawn(5, 3).astype(ml_dtypes.bfloat16)
    turned = gl.function(gl.ops.transpose)(x)
    assert turned.dtype == x.dtype and (turned == x.T).all()
    assert (gl.function(gl.ops.transpose)(turned) == x).all()
    model = gl.Sequential([gl.Input((3,)), gl.layers.Dense(2)])
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x.astype(np.float32), verbose=0))
