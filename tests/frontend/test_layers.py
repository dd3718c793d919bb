"""Layers: what they compute, their weights, names, shapes and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom as gl
from gradloom import layers, ops
from gradloom.compiler.errors import DTypeError, ShapeError
from gradloom.compiler.ir import Graph
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.variables import Trace
from interpreted import evaluate


@pytest.fixture(autouse=True)
def fresh_names():
    gl.utils.clear_session()


def traced(layer, shape, dtype="float32", **arguments):
    """The graph of one call of the layer."""
    graph = Graph("test")
    with Trace(graph):
        layer(graph.input("x", TensorType(as_dtype(dtype), shape)), **arguments)
    return graph


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5), st.integers(1, 5), st.booleans())
@settings(max_examples=25)
def test_dense_along_the_last_axis(leading, features, units, use_bias):
    layer = layers.Dense(units, "tanh", use_bias, bias_initializer="random_normal")
    x = np.random.default_rng(0).normal(size=(*leading, features)).astype(np.float32)
    y = evaluate(layer, x)
    kernel, *bias = layer.get_weights()
    expected = np.tanh(np.einsum("...i,ij->...j", x.astype(np.float64), kernel) + (bias[0] if bias else 0))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert kernel.shape == (features, units) and len(bias) == use_bias
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *y.shape[1:])
    assert layer.count_params() == features * units + units * use_bias


def test_dense_converts_bytes():
    layer = layers.Dense(3, kernel_initializer="ones")
    x = np.array([[200, 100], [255, 255]], np.uint8)
    np.testing.assert_array_equal(evaluate(layer, x), np.repeat([[300.0], [510.0]], 3, axis=1))


def test_paths_and_provenance():
    layer = layers.Dense(4, "relu", name="hidden")
    graph = traced(layer, (2, 3))
    assert [variable.path for variable in layer.weights] == ["hidden/kernel", "hidden/bias"]
    paths = {origin.layer for value in graph.values[1:] for origin in graph.provenance[value]}
    assert paths == {"hidden"}


def test_automatic_names():
    names = [layers.Dense(1).name, layers.Dense(1).name, layers.LeakyReLU().name, layers.Dense(1).name]
    assert names == ["dense", "dense_1", "leaky_re_lu", "dense_2"]
    gl.utils.clear_session()
    assert layers.Dense(1).name == "dense"
    with pytest.raises(ValueError, match="name='a/b'"):
        layers.Dense(1, name="a/b")


def test_flatten_and_reshape():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(evaluate(layers.Flatten(), x), x.reshape(2, 12))
    assert evaluate(layers.Flatten(), x[:, 0, 0].copy()).shape == (2, 1)
    np.testing.assert_array_equal(evaluate(layers.Reshape((2, -1, 2)), x), x.reshape(2, 2, 3, 2))
    assert layers.Flatten().compute_output_shape((None, 3, 4)) == (None, 12)
    assert layers.Flatten().compute_output_shape((7, 3, 4)) == (7, 12)
    assert layers.Flatten().compute_output_shape((None, None)) == (None, None)
    assert layers.Reshape((-1, 2)).compute_output_shape((None, 3, 4)) == (None, 6, 2)
    with pytest.raises(ShapeError, match=r"'reshape_\d' \(Reshape\): Expected .*\(5, -1\).*12 elements"):
        evaluate(layers.Reshape((5, -1)), x)
    with pytest.raises(ValueError, match="at most one -1"):
        layers.Reshape((-1, -1))


def test_rescaling_of_bytes():
    x = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(evaluate(layers.Rescaling(1 / 127.5, -1), x), [[-1, -0.6, 1]], rtol=1e-6)


@pytest.mark.parametrize("form", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
def test_rescaling_of_each_channel(form):
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    scale, offset = np.array([0.5, 0.25, 2.0]), np.arange(15.0).reshape(5, 3)
    layer = layers.Rescaling(form(scale), offset=form(offset))
    result = evaluate(layer, x)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, x * scale + offset)
    model = gl.Sequential([gl.Input((4, 5, 3)), layers.Rescaling.from_config(layer.get_config())])
    np.testing.assert_array_equal(model.predict(x), result)


@pytest.mark.parametrize("scale", ["2", [[1.0], [1.0, 2.0]], None, [1j]])
def test_rescaling_by_what_is_no_number(scale):
    with pytest.raises(TypeError, match="Layer 'pixels': Expected scale as a number or an array of numbers. Received:"):
        layers.Rescaling(scale, name="pixels")


def test_rescaling_by_an_array_that_does_not_fit():
    with pytest.raises(ShapeError, match="pixels"):
        gl.Sequential([gl.Input((4, 5, 3)), layers.Rescaling([1.0, 2.0], name="pixels")])


def test_activation_layers():
    x = np.array([[-2.0, -0.5, 0.5, 8.0]], np.float32)
    np.testing.assert_allclose(evaluate(layers.LeakyReLU(), x), [[-0.6, -0.15, 0.5, 8]], rtol=1e-6)
    np.testing.assert_allclose(evaluate(layers.ReLU(max_value=6, negative_slope=0.5), x), [[-1, -0.25, 0.5, 6]])
    np.testing.assert_allclose(evaluate(layers.Activation("relu"), x), [[0, 0, 0.5, 8]])
    np.testing.assert_allclose(evaluate(layers.Activation(lambda v: v * 2.0), x), 2 * x)
    e = np.exp(x - 8)
    np.testing.assert_allclose(evaluate(layers.Softmax(), x), e / e.sum(), rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: layers.ReLU(-1), lambda: layers.LeakyReLU(-0.1), lambda: layers.Dense(0)])
def test_bad_arguments(make):
    with pytest.raises(ValueError, match=r"Layer '\w+': Expected .*Received: "):
        make()


def test_wrong_feature_size_names_the_layer_and_both_shapes():
    layer = layers.Dense(4, name="hidden")
    layer.build((None, 784))
    with pytest.raises(ShapeError, match=r"'hidden' \(Dense\): Expected .*784.*Received: shape \(32, 100\)"):
        traced(layer, (32, 100))


def test_wrong_rank():
    with pytest.raises(
        ShapeError, match=r"'dense' \(Dense\): Expected an input of rank 2 or more.*Received: shape \(5,\)"
    ):
        traced(layers.Dense(4), (5,))
    with pytest.raises(ShapeError, match=r"'dense_1': Expected a last axis of known size"):
        layers.Dense(4).build((None, None))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Flatten(input_shape=(28, 28)),
        lambda: layers.InputLayer((28, 28)),
        lambda: layers.Dense(2, input_shape=(28, 28)),
    ],
)
def test_input_shape_is_checked(layer):
    assert layer().batch_input_shape == (None, 28, 28)
    traced(layer(), (3, 28, 28))
    with pytest.raises(
        ShapeError, match=r"Expected an input of shape \(None, 28, 28\)\. Received: shape \(3, 28, 27\)"
    ):
        traced(layer(), (3, 28, 27))


def test_input_dim():
    assert layers.Dense(2, input_dim=5).batch_input_shape == (None, 5)
    with pytest.raises(ValueError, match="Received both"):
        layers.Dense(2, input_dim=5, input_shape=(5,))


def test_arrays_are_refused():
    with pytest.raises(TypeError, match=r"'dense' \(Dense\): Expected a symbolic value.*Received: ndarray"):
        layers.Dense(2)(np.zeros((2, 2)))


def test_set_weights_is_all_or_nothing():
    layer = layers.Dense(3, name="out")
    layer.build((None, 2))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"'out': Expected 2 weight arrays\. Received: 1"):
        layer.set_weights([np.ones((2, 3))])
    with pytest.raises(ShapeError, match=r"'out/bias': Expected shape \(3,\)\. Received: \(2,\)"):
        layer.set_weights([np.ones((2, 3)), np.ones(2)])
    for current, earlier in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(current, earlier)
    layer.set_weights([np.ones((2, 3)), np.full(3, 2)])
    np.testing.assert_array_equal(evaluate(layer, np.ones((1, 2), np.float32)), [[4, 4, 4]])


def test_weights_are_made_once():
    layer = layers.Dense(3)
    assert layer.weights == []
    with pytest.raises(ValueError, match="no weights yet"):
        layer.count_params()
    layer.build((None, 2))
    kernel = layer.kernel
    layer.build((None, 2))
    traced(layer, (4, 2))
    assert layer.weights == [kernel, layer.bias]


class Residual(layers.Layer):
    """A layer of layers, written as Keras users write them."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.blocks = []
        for n in range(depth):
            self.blocks.append(layers.Dense(4, name=f"block_{n}"))

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.count = self.add_weight(shape=(), initializer="zeros", name="count", trainable=False)
        super().build(input_shape)

    def call(self, x, training=False):
        for block in self.blocks:
            x = x + block(x) * self.scale
        if training:
            self.count.assign(self.count + 1.0)
        return x

    def get_config(self):
        return super().get_config() | {"depth": self.depth}


def test_nested_layers():
    layer = Residual(2, name="residual")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    y = evaluate(layer, x)
    expected = x.astype(np.float64)
    scale, _, *arrays = layer.get_weights()
    for kernel, bias in zip(arrays[::2], arrays[1::2], strict=True):
        expected = expected + (expected @ kernel + bias) * scale
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert [variable.path for variable in layer.weights] == [
        "residual/scale",
        "residual/count",
        "residual/block_0/kernel",
        "residual/block_0/bias",
        "residual/block_1/kernel",
        "residual/block_1/bias",
    ]
    assert [variable.role for variable in layer.weights[:2]] == ["parameter", "state"]


def test_training_reaches_call_and_state_changes():
    layer = Residual(1)
    x = np.ones((2, 4), np.float32)
    evaluate(layer, x)
    assert float(layer.count) == 0
    evaluate(lambda v: layer(v, training=True), x)
    assert float(layer.count) == 1

    class Outer(layers.Layer):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x):
            return self.inner(x)

    evaluate(lambda v: Outer(layer)(v, training=True), x)
    assert float(layer.count) == 2, "the inner layer takes over the outer one's training flag"


def test_trainable():
    layer = Residual(2)
    traced(layer, (1, 4))
    assert len(layer.trainable_weights) == 5 and [v.name for v in layer.non_trainable_weights] == ["count"]
    layer.blocks[0].trainable = False
    assert len(layer.trainable_weights) == 3 and len(layer.non_trainable_weights) == 3
    layer.trainable = False
    assert layer.trainable_weights == [] and not layer.blocks[1].trainable
    layer.trainable = True
    assert len(layer.trainable_weights) == 5


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Flatten(input_shape=(2, 2), name="f"),
        lambda: layers.Dense(3, "relu", False, "he_normal", dtype="float64", trainable=False),
        lambda: layers.Activation("softmax"),
        lambda: layers.ReLU(6.0, 0.1, 0.5),
        lambda: layers.LeakyReLU(0.2),
        lambda: layers.Softmax(axis=1),
        lambda: layers.Reshape((2, -1)),
        lambda: layers.Rescaling(2.0, 1.0),
        lambda: layers.InputLayer((3, 3), batch_size=7, dtype="uint8"),
        lambda: Residual(3),
    ],
)
def test_config_round_trip(layer):
    made = layer()
    again = type(made).from_config(made.get_config())
    assert again.get_config() == made.get_config()
    assert again.batch_input_shape == made.batch_input_shape


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8"])
@pytest.mark.parametrize("make", [lambda **given: layers.Dense(3, **given), layers.BatchNormalization])
def test_weights_are_floats(make, dtype):
    layer = make(dtype=dtype, name="own")
    with pytest.raises(DTypeError, match=f"Layer 'own'.*Expected a floating-point dtype.*Received: dtype='{dtype}'"):
        layer.build((None, 4))


def test_layer_dtype():
    layer = layers.Dense(2, dtype="float64")
    x = np.ones((1, 3), np.float32)
    assert evaluate(layer, x).dtype == np.float64
    assert layer.kernel.dtype.numpy_name == "float64"


def test_unknown_option_and_activation():
    with pytest.raises(TypeError, match="input_shap"):
        layers.Dense(2, input_shap=(3,))
    with pytest.raises(ValueError, match=r"Unknown activation\. Did you mean 'softmax'"):
        layers.Dense(2, activation="sofmax")


def test_a_layer_without_call():
    with pytest.raises(NotImplementedError, match=r"Layer 'layer': Layer must define call"):
        traced(layers.Layer(), (1, 1))


def test_custom_layer_infers_its_output_shape():
    class Sums(layers.Layer):
        def call(self, x):
            return ops.sum(x, axis=-1)

    assert Sums().compute_output_shape((None, 5, 3)) == (None, 5)
