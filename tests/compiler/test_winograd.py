"""Winograd's convolutions: ops against the definition in float64, kernels against the ops, and when they are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiled import check
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.ops.convolution import Conv2D, Conv2DInputGrad, Conv2DKernelGrad
from gradloom.compiler.ops.winograd import TILES, WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.passes.algorithms import choose_algorithms
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.types import F32, F64, DType, TensorType

SAME = ((1, 1), (1, 1))

sides = st.integers(1, 11)
paddings = st.tuples(*(st.tuples(st.integers(0, 2), st.integers(0, 2)) for _ in range(2)))


def convolution(x: TensorType, filters: int, tile: int | None, padding: tuple = SAME) -> Graph:
    """A convolution by the definition, or on tiles."""
    graph = Graph("convolution")
    images = graph.input("x", x)
    kernel = graph.input("k", TensorType(x.dtype, (3, 3, x.shape[3], filters)), "parameter")
    if tile is None:
        graph.output("y", graph.apply(Conv2D((1, 1), padding), images, kernel))
    else:
        transformed = graph.apply(WinogradKernel(tile), kernel)
        graph.output("y", graph.apply(WinogradConv2D(tile, padding), images, transformed))
    return graph


def kernel_gradient(x: TensorType, filters: int, tile: int | None) -> Graph:
    graph = Graph("kernel_gradient")
    images = graph.input("x", x)
    cotangent = graph.input("dy", TensorType(x.dtype, (*x.shape[:3], filters)))
    op = Conv2DKernelGrad((3, 3), (1, 1), SAME) if tile is None else WinogradConv2DKernelGrad(tile, SAME)
    graph.output("dk", graph.apply(op, images, cotangent))
    return graph


def arrays(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {v.op.label: rng.standard_normal(v.shape).astype(v.dtype.numpy) for v in graph.inputs}  # type: ignore[attr-defined]


def ops(graph: Graph) -> list[str]:
    return [value.op.name for value in graph.live() if value.inputs]


@given(height=sides, width=sides, channels=st.integers(1, 3), padding=paddings, tile=st.sampled_from(TILES))
def test_tiles_compute_what_the_definition_does(height, width, channels, padding, tile) -> None:
    if min(height + sum(padding[0]), width + sum(padding[1])) < 3:
        return
    x = TensorType(F64, (2, height, width, channels))
    given_ = arrays(convolution(x, 2, None))
    expected = interpret(convolution(x, 2, None, padding), given_)["y"]
    got = interpret(convolution(x, 2, tile, padding), given_)["y"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@given(down=st.integers(1, 3), across=st.integers(1, 3), tile=st.sampled_from(TILES))
def test_the_kernels_gradient_on_tiles_is_the_definitions(down, across, tile) -> None:
    x = TensorType(F64, (2, down * tile, across * tile, 3))
    given_ = arrays(kernel_gradient(x, 2, None))
    expected = interpret(kernel_gradient(x, 2, None), given_)["dk"]
    got = interpret(kernel_gradient(x, 2, tile), given_)["dk"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize(
    ("shape", "filters", "padding"),
    [
        ((1, 8, 8, 16), 32, SAME),
        ((2, 7, 9, 5), 19, SAME),  # neither tiles nor vectors fit
        ((1, 5, 4, 33), 70, ((2, 1), (0, 1))),  # panels of filters, the last one narrow
        ((3, 12, 12, 16), 40, ((0, 0), (0, 0))),
        ((2, 40, 40, 8), 16, SAME),  # several blocks of tiles
    ],
)
def test_compiled_tiles(shape, filters, padding, dtype: DType, tile: int) -> None:
    graph = convolution(TensorType(dtype, shape), filters, tile, padding)
    check(graph, arrays(graph))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize(
    ("shape", "filters"), [((1, 8, 8, 16), 32), ((2, 8, 12, 5), 19), ((3, 12, 12, 80), 40), ((2, 16, 16, 130), 66)]
)
def test_compiled_kernel_gradients(shape, filters, tile: int) -> None:
    graph = kernel_gradient(TensorType(F32, shape), filters, tile)
    check(graph, arrays(graph))


@pytest.mark.parametrize(("tile", "bound"), [(2, 5e-6), (4, 5e-5)])
def test_rounding_stays_within_the_published_bounds(tile: int, bound: float) -> None:
    x = TensorType(F32, (1, 16, 16, 64))
    given_ = arrays(convolution(x, 32, None))
    wide = {name: array.astype(np.float64) for name, array in given_.items()}
    exact = interpret(convolution(TensorType(F64, x.shape), 32, None), wide)["y"]
    got = interpret(convolution(x, 32, tile), given_)["y"]
    assert np.abs(got - exact).max() <= bound * np.sqrt(np.mean(exact**2))


# When they are chosen.


def step(size: int, channels: int, filters: int) -> Graph:
    """A convolution with its gradients, writing onto its kernel as a train step does."""
    graph = Graph("step")
    x = graph.input("x", TensorType(F32, (2, size, size, channels)))
    kernel = graph.input("k", TensorType(F32, (3, 3, channels, filters)), "parameter")
    y = graph.apply(Conv2D((1, 1), SAME), x, kernel)
    graph.output("dx", graph.apply(Conv2DInputGrad((size, size), (1, 1), SAME), y, kernel))
    graph.output("k", graph.apply(Conv2DKernelGrad((3, 3), (1, 1), SAME), x, y), kernel)
    return graph


def tiles(graph: Graph) -> set[int]:
    def tile(value: Value) -> int | None:
        return getattr(value.op, "tile", None)

    return {size for value in graph.live() if (size := tile(value)) is not None}


def test_a_prediction_transforms_its_kernels_once() -> None:
    prepare, main = split_prepare(convolution(TensorType(F32, (1, 32, 32, 64)), 64, None))
    assert prepare is not None
    assert ops(prepare) == ["winograd_kernel"] and ops(main) == ["winograd_conv2d"]
    assert tiles(main) == {4}


def test_few_pixels_with_many_channels_take_small_tiles() -> None:
    """The larger tile has more weights, and to read them takes longer than to multiply."""
    assert tiles(choose_algorithms(convolution(TensorType(F32, (1, 8, 8, 256)), 256, None))) == {2}


def test_a_step_that_trains_takes_the_exact_tiles_alone() -> None:
    chosen = choose_algorithms(step(32, 64, 64))
    assert sorted(ops(chosen)) == [
        "reverse",
        "transpose",
        "winograd_conv2d",
        "winograd_conv2d",
        "winograd_conv2d_kernel_grad",
        "winograd_kernel",
        "winograd_kernel",
    ]
    assert tiles(chosen) == {2}


@pytest.mark.parametrize("size", [8, 10])
def test_a_step_computes_the_same_whatever_is_chosen(size: int) -> None:
    graph = step(size, 32, 32)
    given_ = arrays(graph)
    expected, got = interpret(graph, given_), interpret(choose_algorithms(graph), given_)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5 * np.abs(value).max())


@pytest.mark.parametrize(
    ("x", "kernel", "op"),
    [
        ((1, 32, 32, 64), (3, 3, 64, 64), Conv2D((2, 2), SAME)),
        ((1, 32, 32, 64), (3, 3, 64, 64), Conv2D((1, 1), SAME, (2, 2))),
        ((1, 32, 32, 64), (3, 3, 32, 64), Conv2D((1, 1), SAME, (1, 1), 2)),
        ((1, 32, 32, 64), (1, 1, 64, 64), Conv2D()),
        ((1, 32, 32, 3), (3, 3, 3, 64), Conv2D((1, 1), SAME)),
        ((1, 2, 2, 64), (3, 3, 64, 64), Conv2D((1, 1), SAME)),
    ],
    ids=["strided", "dilated", "grouped", "1x1", "few channels", "few pixels"],
)
def test_what_tiles_cannot_do_better_stays_as_it_is(x, kernel, op) -> None:
    graph = Graph("direct")
    images, weights = graph.input("x", TensorType(F32, x)), graph.input("k", TensorType(F32, kernel), "parameter")
    graph.output("y", graph.apply(op, images, weights))
    assert ops(choose_algorithms(graph)) == ["conv2d"]
