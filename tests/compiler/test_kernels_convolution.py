"""Compiled convolutions and their gradients against the interpreter, with epilogues and borders, on 1 and 2 threads."""

from __future__ import annotations

import numpy as np
import pytest

from compiled import check
from gradloom.compiler.ir import Graph
from gradloom.compiler.ops.arithmetic import Add, Maximum
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.movement import BroadcastTo, Reshape
from gradloom.compiler.types import F32, TensorType


@pytest.mark.parametrize(
    ("images", "size", "channels", "kernel", "stride", "padding", "dilation", "groups"),
    [
        (1, (5, 5), (3, 4), 3, 1, (1, 1), 1, 1),
        (2, (8, 8), (16, 16), 3, 1, (1, 1), 1, 1),
        (2, (9, 7), (5, 33), 3, 2, (1, 1), 1, 1),
        (1, (8, 8), (16, 70), 1, 1, (0, 0), 1, 1),
        (2, (8, 8), (16, 32), 3, 2, (0, 1), 1, 1),
        (1, (7, 7), (4, 6), 3, 2, (1, 1), 1, 2),
        (1, (12, 12), (4, 8), 3, 1, (2, 2), 2, 1),
        (1, (6, 6), (4, 8), 1, 2, (0, 0), 1, 1),
        (3, (16, 16), (64, 64), 3, 1, (1, 1), 1, 1),
        (1, (4, 4), (200, 130), 3, 1, (1, 1), 1, 1),
        (2, (3, 0), (4, 6), 3, 1, (2, 2), 1, 1),
    ],
)
def test_convolutions_with_gradients_and_epilogues(
    images: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    groups: int,
) -> None:
    """A convolution whose result is biased, rectified, added to and convolved again, and both of its gradients."""
    graph = Graph("convolutions")
    apply = graph.apply
    into, out = channels
    window = ((stride, stride), (padding, padding), (dilation, dilation), groups)
    x = graph.input("x", TensorType(F32, (images, *size, into)))
    k = graph.input("k", TensorType(F32, (kernel, kernel, into // groups, out)))
    y = apply(Conv2D(*window), x, k)
    dy = graph.input("dy", y.type)
    hidden = apply(Maximum(), apply(Add(), y, graph.constant(0.5, F32)), graph.constant(0, F32))
    if hidden.shape == x.shape:
        hidden = apply(Add(), hidden, x)
    again = graph.input("again", TensorType(F32, (3, 3, out, out)))
    graph.output("y", y)
    graph.output("hidden", hidden)
    graph.output("dx", apply(Conv2DInputGrad(size, *window), dy, k))
    graph.output("dk", apply(Conv2DKernelGrad((kernel, kernel), *window), x, dy))
    graph.output("second", apply(Conv2D(padding=((1, 1), (1, 1))), hidden, again))
    rng = np.random.default_rng(0)
    shapes = {"x": x.shape, "k": k.shape, "dy": dy.shape, "again": again.shape}
    check(graph, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


@pytest.mark.parametrize("op", ["nothing", "maximum", "broadcast"])
def test_a_padded_convolution_of_a_reshape(op: str) -> None:
    """The reshape is a prologue of the kernel, which reads the copy with a border that the schedule made of it."""
    graph = Graph("reshaped")
    x = graph.input("x", TensorType(F32, (2, 8, 4, 4)))
    k = graph.input("k", TensorType(F32, (3, 3, 4, 5)), "parameter")
    value = x
    if op == "maximum":
        value = graph.apply(Maximum(), x, graph.constant(0, F32))
    elif op == "broadcast":
        value = graph.apply(BroadcastTo((2, 8, 2, 4, 4)), graph.apply(Reshape((2, 8, 1, 4, 4)), x))
    images = graph.apply(Reshape((2, 8, value.type.size // 64, 4)), value)
    graph.output("y", graph.apply(Conv2D(padding=((1, 1), (1, 1))), images, k))
    rng = np.random.default_rng(0)
    check(graph, {name: rng.standard_normal(v.shape).astype("f") for name, v in (("x", x), ("k", k))})
