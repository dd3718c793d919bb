"""The train step of the Fashion-MNIST network, as tests of the compiler look at it."""

from functools import cache

import gradloom as gl
from gradloom.compiler import pipeline
from gradloom.compiler.ir import Graph, Input, Value
from gradloom.compiler.types import U8


def train_graph(batch_size: int = 32, optimizer: str = "sgd", metrics: tuple[str, ...] = ("accuracy",)) -> Graph:
    """The step 784 → 128 → 10 on images of bytes."""
    model = gl.Sequential(
        [
            gl.layers.Input((28, 28)),
            gl.layers.Flatten(),
            gl.layers.Rescaling(1 / 255),
            gl.layers.Dense(128, activation="relu", name="hidden"),
            gl.layers.Dense(10, name="scores"),
        ]
    )
    loss = gl.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=list(metrics))
    return model.train_graph(batch_size, U8)


@cache
def lowered(
    batch_size: int = 32, optimizer: str = "sgd", cores: int = 2, metrics: tuple[str, ...] = ("accuracy",)
) -> pipeline.Lowering:
    """The stages of the step."""
    return pipeline.lower(train_graph(batch_size, optimizer, metrics), pipeline.Options(cores=cores))


def label(value: Value) -> str:
    """An input's label."""
    assert isinstance(value.op, Input)
    return value.op.label
