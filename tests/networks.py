"""Models of all kinds that the compiler's stages are looked at for: dense, convolutional, with branches, nested."""

from __future__ import annotations

import gradloom as gl
from gradloom import layers


def mlp() -> gl.Model:
    model = gl.Sequential(
        [
            layers.Flatten(input_shape=(28, 28)),
            layers.Dense(128, activation="relu", name="dense"),
            layers.Dense(10, activation="softmax", name="dense_1"),
        ],
        name="mlp",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def convolutional() -> gl.Model:
    model = gl.Sequential(
        [
            gl.Input((8, 8, 3)),
            layers.Conv2D(16, 3, padding="same", use_bias=False, name="convolution"),
            layers.BatchNormalization(name="normal"),
            layers.LeakyReLU(0.1, name="leaky"),
            layers.Dropout(0.25, name="dropout"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="convolutional",
    )
    model.compile(gl.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def branched() -> gl.Model:
    """Two inputs, two outputs, a shared layer, a nested model and a function among the layers."""
    left, right = gl.Input((6,), name="left"), gl.Input((6,), name="right")
    shared = layers.Dense(4, activation="tanh", name="shared")
    h = gl.Input((4,), name="inner_input")
    inner = gl.Model(h, layers.Dense(4, name="twice")(layers.ReLU(name="cut")(h)), name="inner")
    both = layers.Concatenate(name="both")([inner(shared(left)), shared(right)])
    first = layers.Dense(1, name="first")(both * 2.0)
    second = layers.Dense(3, activation="softmax", name="second")(both)
    model = gl.Model([left, right], [first, second], name="branched")
    model.compile(
        "adam", ["mse", "sparse_categorical_crossentropy"], loss_weights=[0.5, 1.0], metrics=[["mae"], ["accuracy"]]
    )
    return model


def darknet() -> gl.Model:
    """A small network of Darknet53's family."""
    model = gl.applications.Darknet(((16, 1), (32, 1)), 8, input_shape=(16, 16, 3), classes=5, name="darknet")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def own_call() -> gl.Model:
    """A model with a `call` of its own, whose arithmetic belongs to no layer."""

    class Scaled(gl.Model):
        def __init__(self) -> None:
            super().__init__(name="scaled")
            self.dense = layers.Dense(3, name="inside")

        def call(self, x: object) -> object:
            return self.dense(x * 3.0) - 1.0  # type: ignore[operator]

    model = Scaled()
    model.build((None, 5))
    model.compile("sgd", "mse")
    return model


ALL = {maker.__name__: maker for maker in (mlp, convolutional, branched, darknet, own_call)}
