"""The 784-128-10 network on one image a call, NumPy in and out: `predict`, or one step of `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np

from call_worker import Task
from harness import affinity
from mlp_case import SIZES, Case, Weights, initial_weights, make_data

REPEATS = 3000
"""Calls in one answer: some tens of milliseconds."""


def gradloom(case: dict[str, Any]) -> Task:
    """`predict_on_batch` of an image, or `fit` on one for an epoch."""
    import gradloom as gl

    layers = [
        gl.Input((SIZES[0],)),
        gl.layers.Dense(SIZES[1], activation="relu"),
        gl.layers.Dense(SIZES[2], activation="softmax"),
    ]
    model = gl.Sequential(layers)
    model.set_weights(weights())
    image, label = one_image()
    packages = ("gradloom", "llvmlite")
    if case["task"] == "predict":
        return Task(lambda: model.predict_on_batch(image), packages, REPEATS)
    model.compile(gl.optimizers.SGD(0.003), "sparse_categorical_crossentropy")

    def fit() -> np.ndarray:
        return np.asarray(model.fit(image, label, batch_size=1, epochs=1, verbose=0).history["loss"][-1])

    return Task(fit, packages, REPEATS // 10)


def numpy(case: dict[str, Any]) -> Task:
    """The formulas, in NumPy."""
    w1, b1, w2, b2 = weights()
    image, _ = one_image()

    def predict() -> np.ndarray:
        logits = np.maximum(image @ w1 + b1, 0) @ w2 + b2
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    return Task(predict, ("numpy",), REPEATS)


def onnxruntime(case: dict[str, Any]) -> Task:
    """A session on a network of four nodes, with the defaults, which are for latency."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(affinity())
    session = onnxruntime.InferenceSession(onnx_network(weights()), options, providers=["CPUExecutionProvider"])
    image, _ = one_image()
    return Task(lambda: session.run(None, {"x": image})[0], ("onnxruntime", "onnx"), REPEATS)


def onnx_network(given: Weights) -> bytes:
    """The network in the ONNX format: Gemm, Relu, Gemm, Softmax."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    constants = [numpy_helper.from_array(w, name) for w, name in zip(given, ("w1", "b1", "w2", "b2"), strict=True)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZES[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SIZES[-1]])
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    # Runtimes lag behind the newest version of the format: this one has all that is needed.
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return network.SerializeToString()


def reference() -> dict[str, np.ndarray]:
    """What the frameworks must compute, by task, in float64."""
    w1, b1, w2, b2 = (array.astype(np.float64) for array in weights())
    image, label = one_image()
    logits = np.maximum(image @ w1 + b1, 0) @ w2 + b2
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    return {"predict": probabilities, "fit": -np.log(probabilities[0, label[0]])}


def weights() -> Weights:
    """The weights that all frameworks have."""
    return initial_weights(CASE)


def one_image() -> tuple[np.ndarray, np.ndarray]:
    """An image f32[1,784] and its label i32[1]."""
    return make_data(CASE)


CASE = Case(samples=1, batch=1)
