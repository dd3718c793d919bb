"""A whole residual block, in training: its gradient in float64, its result, and a small network of such blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy_images import conv

import gradloom as gl
from compiled import run_program
from gradloom import layers
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.pipeline import Options, compile_graph
from gradloom.compiler.types import TensorType, as_dtype
from gradloom.layers.layer import training_scope
from gradloom.variables import Trace
from interpreted import evaluate

CHANNELS = 4


def block(x: Any, dtype: str = "float32") -> Any:
    """x + leaky(norm(conv 3×3(leaky(norm(conv 1×1(x))))))."""
    y = x
    for filters, size in ((CHANNELS // 2, 1), (CHANNELS, 3)):
        y = layers.Conv2D(filters, size, padding="same", use_bias=False, dtype=dtype)(y)
        y = layers.BatchNormalization(dtype=dtype)(y)
        y = layers.LeakyReLU(negative_slope=0.1, dtype=dtype)(y)
    return layers.Add(dtype=dtype)([x, y])


def test_gradients_of_every_weight_and_the_images_against_differences() -> None:
    """Those of the compiled program against differences of its own loss, and likewise those of the interpreter."""
    rng = np.random.default_rng(0)
    inputs = gl.Input((4, 5, CHANNELS), dtype="float64")
    model = gl.Model(inputs, block(inputs, "float64"))
    images, weight = rng.normal(size=(2, 4, 5, CHANNELS)), rng.normal(size=(2, 4, 5, CHANNELS))
    graph = Graph("block")
    with Trace(graph) as trace, training_scope(True):
        x = graph.input("x", TensorType(as_dtype("float64"), images.shape))
        loss = gl.ops.sum(model.call(x) * weight)
        wrt = [x, *(variable.symbolic(graph) for variable in model.trainable_variables)]
        graph.output("loss", loss)
        for place, gradient in enumerate(gradients([loss], wrt)):
            graph.output(f"gradient_{place}", gradient)
    arrays = {"x": images} | graph.captured | {label: array.copy() for label, array in trace.arguments().items()}
    program = compile_graph(graph, Options(cores=2))
    for evaluated in (partial(interpret, graph), partial(run_program, program, graph)):
        results = evaluated(arrays)
        for place, value in enumerate(wrt):
            label = value.op.attributes["label"]
            direction = rng.normal(size=arrays[label].shape)
            direction /= np.linalg.norm(direction)
            step = 1e-5
            ahead, behind = (
                float(evaluated(arrays | {label: arrays[label] + sign * step * direction})["loss"]) for sign in (1, -1)
            )
            found = (results[f"gradient_{place}"] * direction).sum()
            assert found == pytest.approx((ahead - behind) / (2 * step), rel=1e-6, abs=1e-8)


def test_the_block_at_inference_against_numpy() -> None:
    inputs = gl.Input((5, 4, CHANNELS))
    model = gl.Model(inputs, block(inputs))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.get_weights()])
    x = rng.normal(size=(2, 5, 4, CHANNELS)).astype(np.float32)
    y = x.astype(np.float64)
    weights = iter(model.get_weights())
    for _ in range(2):
        kernel, gamma, beta, mean, variance = (next(weights) for _ in range(5))
        y = conv(y, kernel, (1, 1), "same")
        y = (y - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        y = np.where(y > 0, y, 0.1 * y)
    np.testing.assert_allclose(evaluate(model, x), x + y, rtol=1e-4, atol=1e-4)


def test_the_train_step_of_a_small_residual_network_is_one_graph() -> None:
    """Built, verified and stepped by the interpreter: the loss falls and the statistics move."""
    image = gl.Input((8, 8, 1))
    x = layers.Conv2D(CHANNELS, 3, strides=2)(layers.ZeroPadding2D()(image))
    x = layers.GlobalAveragePooling2D()(block(x))
    model = gl.Model(image, layers.Dense(2)(x))
    model.compile(
        gl.optimizers.SGD(0.1, momentum=0.9),
        gl.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    graph = model.train_graph(batch_size=8)
    graph.verify()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 8).astype(np.int32)
    images = (rng.normal(size=(8, 8, 8, 1)) + labels[:, None, None, None]).astype(np.float32)
    data = {"x": images, "y": labels, "rows": np.arange(8, dtype=np.int32)}
    known = {variable.path: variable for variable in (*model.weights, *model.optimizer.hyperparameters.values())}  # type: ignore[union-attr]
    state = {
        value.op.attributes["label"]: known[label].numpy() if (label := value.op.attributes["label"]) in known
        else np.zeros(value.shape, value.dtype.numpy)
        for value in graph.inputs
        if value.op.attributes["label"] not in data
    }  # fmt: skip
    losses = []
    for _ in range(10):
        before = float(state["loss/total"])
        state |= interpret(graph, data | state)
        losses.append(float(state["loss/total"]) - before)
    assert losses[-1] < 0.5 * losses[0]
    assert not np.allclose(state["batch_normalization/moving_mean"], 0)
