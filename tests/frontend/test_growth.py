"""How the work of building and compiling a train step grows with the depth of a network: linearly.

Counted in nodes, kernels and Python calls, which are the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

import gradloom as gl
from gradloom import layers
from gradloom.compiler import pipeline
from gradloom.compiler.ir import Graph

DEPTHS = (4, 8, 16)


def residual_network(blocks: int) -> gl.Model:
    """As many blocks of convolution, batch normalization, leaky ReLU and addition, ready for training."""
    image = gl.Input((6, 6, 8))
    x = image
    for _ in range(blocks):
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
        y = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(y))
        x = layers.Add()([x, y])
    model = gl.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model.compile(
        gl.optimizers.SGD(gl.optimizers.schedules.PolynomialDecay(0.1, 100), momentum=0.9, weight_decay=1e-4),
        gl.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def calls(function: Callable[[], Any]) -> int:
    """How many functions are called, Python's and C's."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.fixture(scope="module")
def steps() -> list[Graph]:
    return [residual_network(depth).train_graph(batch_size=2) for depth in DEPTHS]


def test_nodes_of_a_train_step(steps: list[Graph]) -> None:
    """As many more for each block, although 2^16 paths lead through the deepest network."""
    few, some, many = (len(graph.live()) for graph in steps)
    assert many - some == 2 * (some - few)
    few, some, many = (len(graph.values) for graph in steps)
    assert many - some == 2 * (some - few), "nodes that nothing needs grow faster"


def test_nodes_and_kernels_after_fusion(steps: list[Graph]) -> None:
    fused = [pipeline.lower(graph, pipeline.Options(cores=2)).fused for graph in steps]
    for few, some, many in ([len(graph.values) for graph in fused], [len(graph.groups) for graph in fused]):
        assert many - some == 2 * (some - few)


def test_calls_that_build_a_train_step() -> None:
    """Nothing is looked for among all nodes, and no node visited for each path that leads to it."""
    counts = []
    for depth in DEPTHS:
        model = residual_network(depth)
        model.train_graph(batch_size=2)  # makes the optimizer's state, once
        counts.append(calls(lambda model=model: model.train_graph(batch_size=2)))  # type: ignore[misc]
    few, some, many = counts
    assert many - some == pytest.approx(2 * (some - few), rel=0.05)
