"""Shapes whose counts of elements or bytes cross 2³¹ and 2⁶³: right, or `ValueError` before anything is allocated."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom.compiler import parse, pipeline
from gradloom.compiler.errors import MemoryLimitError, ParseError, ShapeError
from gradloom.compiler.ir import Graph, Value, building
from gradloom.compiler.ops.indexing import ScatterAdd
from gradloom.compiler.ops.reductions import Max
from gradloom.compiler.types import F32, TensorType, as_dtype
from gradloom.runtime.memory import physical_memory

BEYOND_MEMORY = 2**40
HALF, WHOLE = 2**31, 2**63
ALLOWED_MB = 400
"""By how much a process may grow in a test: modules, LLVM and code, none of the arrays that were asked for."""

x = np.arange(16, dtype=np.float32).reshape(4, 4)
image = x.reshape(1, 4, 4, 1)


@contextmanager
def nothing_more() -> Iterator[None]:
    """Let the system refuse whatever is large, touched or not: what asks for it fails by a `MemoryError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (ALLOWED_MB << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def nothing_is_allocated() -> Iterator[None]:
    with nothing_more():
        yield


@pytest.mark.usefixtures("nothing_is_allocated")
def test_what_is_allocated_is_found() -> None:
    with pytest.raises(MemoryError):
        np.zeros(2 * ALLOWED_MB << 20, np.uint8)


OPS: dict[str, Callable[[Value, int], Any]] = {
    "broadcast_to": lambda a, size: gl.ops.broadcast_to(a[0, 0], (size,)),
    "broadcast_to 2d": lambda a, size: gl.ops.broadcast_to(a[0], (size, 4)),
    "repeat": lambda a, size: gl.ops.repeat(a, size),
    "tile": lambda a, size: gl.ops.tile(a, (size, 1)),
    "pad": lambda a, size: gl.ops.pad(a, [(0, size), (0, 0)]),
    "pad with ones": lambda a, size: gl.ops.pad(a, [(0, 0), (size, 1)], constant_values=1.0),
    "arange": lambda a, size: a[0, 0] + gl.ops.arange(size),
    "zeros": lambda a, size: a[0, 0] + gl.ops.zeros((size,)),
    "one_hot": lambda a, size: gl.ops.one_hot(gl.ops.cast(a, "int32"), size),
    "outer": lambda a, size: gl.ops.broadcast_to(a[:1], (size, 4)) @ gl.ops.broadcast_to(a[:, :1], (4, size)),
    "conv": lambda a, size: gl.ops.conv(gl.ops.reshape(a, (1, 4, 4, 1)), gl.ops.zeros((1, 1, 1, size))),
    "upsample": lambda a, size: gl.ops.upsample(gl.ops.reshape(a, (1, 4, 4, 1)), size),
    "concatenate": lambda a, size: gl.ops.concatenate([gl.ops.broadcast_to(a[0], (size, 4))] * 2),
}


@pytest.mark.usefixtures("nothing_is_allocated")
@pytest.mark.parametrize("size", [BEYOND_MEMORY, WHOLE // 8, WHOLE, 2**70])
@pytest.mark.parametrize("op", OPS)
def test_results_that_no_memory_holds_are_refused(op: str, size: int) -> None:
    with pytest.raises(ValueError, match="Expected .* Received") as caught:
        gl.function(lambda a: OPS[op](a, size))(x)
    if size >= WHOLE:
        assert isinstance(caught.value, ShapeError)
        assert "less than 2**63 bytes" in str(caught.value)
    assert "test_sizes.py" in str(caught.value) or isinstance(caught.value, MemoryLimitError)


LAYERS: dict[str, Callable[[int], Any]] = {
    "Dense": lambda size: gl.Sequential([gl.layers.Dense(size, input_shape=(4,))]),
    "Dense on a large input": lambda size: gl.Sequential([gl.layers.Dense(1, input_shape=(size,))]),
    "Conv2D": lambda size: gl.Sequential([gl.layers.Conv2D(size, 3, input_shape=(4, 4, 1))]),
    "BatchNormalization": lambda size: gl.Sequential([gl.layers.BatchNormalization(input_shape=(size,))]),
    "Variable": lambda size: gl.Variable("zeros", (size, 4)),
    "Variable drawn later": lambda size: gl.Variable("glorot_uniform", (size, 4)),
    "ZeroPadding2D": lambda size: gl.Sequential([gl.layers.ZeroPadding2D(size, input_shape=(4, 4, 1))]).predict(image),
    "UpSampling2D": lambda size: gl.Sequential([gl.layers.UpSampling2D(size, input_shape=(4, 4, 1))]).predict(image),
    "Reshape": lambda size: gl.Sequential([gl.layers.Reshape((size,), input_shape=(4, 4))]),
    "Flatten": lambda size: gl.Sequential([gl.layers.Flatten(input_shape=(size, size))]),
}


@pytest.mark.usefixtures("nothing_is_allocated")
@pytest.mark.parametrize("size", [BEYOND_MEMORY, WHOLE])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_that_no_memory_holds_are_refused(layer: str, size: int) -> None:
    with pytest.raises(ValueError, match="Expected .* Received"):
        LAYERS[layer](size)


def test_an_axis_of_size_zero_makes_no_other_smaller() -> None:
    with pytest.raises(ShapeError, match=r"less than 2\*\*63 bytes"):
        gl.trace(lambda a: a, gl.TensorSpec((0, WHOLE), "float32"))


def test_the_largest_tensor_is_one_of_less_than_2_to_63_bytes() -> None:
    for dtype in ("uint8", "float32", "float64"):
        most = (WHOLE - 1) // as_dtype(dtype).itemsize
        gl.trace(lambda a: -a, gl.TensorSpec((most,), dtype))
        with pytest.raises(ShapeError, match=rf"Received: \w+\[{most + 1}\], of {WHOLE} bytes"):
            gl.trace(lambda a: -a, gl.TensorSpec((most + 1,), dtype))


def text(size: int) -> str:
    return f'graph "g" {{\n  %0: f32[{size}] = input {{label="x"}}\n  output "y" = %0\n}}\n'


def test_texts_of_graphs_are_read_with_sizes_that_there_may_be() -> None:
    assert parse(text(2**40)).values[0].shape == (2**40,)
    for size in (2**61, 2**62, 2**63, 2**64, 10**30):
        with pytest.raises(ParseError, match="line 2: .*[Ee]xpected"):
            parse(text(size))


def model() -> gl.Model:
    result = gl.Sequential([gl.layers.Dense(8, activation="relu", input_shape=(4,)), gl.layers.Dense(1)])
    result.compile("sgd", "mse")
    return result


@pytest.mark.usefixtures("nothing_is_allocated")
@pytest.mark.parametrize("size", [HALF, BEYOND_MEMORY, WHOLE, 2**70])
def test_a_batch_is_no_larger_than_the_data(size: int) -> None:
    huge, whole = model(), model()
    for mine, other in zip(huge.variables, whole.variables, strict=True):
        mine.assign(other.value)
    y = x[:, :1]
    for each, batch in ((huge, size), (whole, 4)):
        each.fit(x, y, batch_size=batch, verbose=0, shuffle=False)
    np.testing.assert_array_equal(huge.predict(x, batch_size=size, verbose=0), whole.predict(x, verbose=0))
    assert huge.evaluate(x, y, batch_size=size, verbose=0) == whole.evaluate(x, y, verbose=0)


@pytest.mark.usefixtures("nothing_is_allocated")
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_stages_of_a_huge_batch_are_as_long_as_those_of_a_large_one(mode: str) -> None:
    lengths = {}
    for size in (2**16, HALF - 1):
        stages = model().inspect(batch_size=size, mode=mode).stages
        lengths[size] = {name: len(stages[name].text()) for name in ("simplified", "fused", "scheduled", "memory")}
    for stage, length in lengths[HALF - 1].items():
        assert length < 1.5 * lengths[2**16][stage] + 1000, stage
    for size in (HALF, BEYOND_MEMORY, WHOLE):
        with pytest.raises(ValueError, match=f"at most {HALF - 1:,}"):
            model().inspect(batch_size=size, mode=mode)


def _long(graph: Graph, size: int, *rest: int) -> Value:
    return graph.input("x", TensorType(F32, (size, *rest)))


def _wide(graph: Graph, *sizes: int) -> Value:
    return graph.input("x", TensorType(F32, sizes))


KERNELS: dict[str, Callable[[Graph, int], Value]] = {
    "map": lambda graph, size: _long(graph, size) * 2.0,
    "map of a matrix": lambda graph, size: _long(graph, size, 3) * _wide_row(graph, 3),
    "transpose": lambda graph, size: gl.ops.transpose(_long(graph, size, 3)),
    "concatenate": lambda graph, size: gl.ops.concatenate([_long(graph, size, 3)] * 2, axis=1),
    "slice": lambda graph, size: _long(graph, size)[::3],
    "sum of a row": lambda graph, size: gl.ops.sum(_wide(graph, 3, size), axis=1),
    "sum of a column": lambda graph, size: gl.ops.sum(_long(graph, size, 3), axis=0),
    "sum of all": lambda graph, size: gl.ops.sum(_long(graph, size)),
    "maximum": lambda graph, size: graph.apply(Max((0,)), _long(graph, size)),
    "softmax": lambda graph, size: gl.ops.softmax(_wide(graph, 3, size)),
    "softmax of many rows": lambda graph, size: gl.ops.softmax(_long(graph, size, 10)),
    "matmul of many rows": lambda graph, size: _long(graph, size, 16) @ _row(graph, 16, 16),
    "matmul of many columns": lambda graph, size: _row(graph, 16, 16) @ _wide(graph, 16, size),
    "matmul of long products": lambda graph, size: _wide(graph, 16, size) @ _row(graph, size, 16),
    "convolution": lambda graph, size: gl.ops.conv(_wide(graph, 1, size, 4, 4), _row(graph, 3, 3, 4, 4)),
    "convolution by Winograd": lambda graph, size: gl.ops.conv(
        _wide(graph, size, 8, 8, 32), _row(graph, 3, 3, 32, 32), padding="same"
    ),
    "max_pool": lambda graph, size: gl.ops.max_pool(_wide(graph, 1, size, 4, 4), 2),
    "take": lambda graph, size: gl.ops.take(_long(graph, size, 3), np.array([0, 5], np.int32), axis=0),
    "scatter_add": lambda graph, size: graph.apply(
        ScatterAdd(7), _wide(graph, 2, size), graph.constant(np.array([0, 5], np.int32))
    ),
    "scatter_add of rows": lambda graph, size: graph.apply(
        ScatterAdd(size), _wide(graph, 2, 3), graph.constant(np.array([0, 5], np.int32))
    ),
}


def _row(graph: Graph, *sizes: int) -> Value:
    return graph.input("w", TensorType(F32, sizes))


def _wide_row(graph: Graph, size: int) -> Value:
    return _row(graph, size)


@pytest.mark.parametrize("kernel", KERNELS)
def test_code_does_not_grow_with_sizes(kernel: str) -> None:
    """Sizes that are no multiples of anything: vectors and blocks have tails."""
    for fuse in (False, True):
        lengths = []
        for size in (2**16 + 5, HALF + 5, BEYOND_MEMORY + 5):
            graph = Graph("huge")
            with building(graph):
                graph.output("y", KERNELS[kernel](graph, size))
            low = pipeline.lower(graph, pipeline.Options(cores=2, fuse=fuse))
            lengths.append(sum(map(len, low.modules())))
        assert max(lengths) < 2 * min(lengths), fuse


# Real arrays of more than 2³¹ bytes. Zeros that nobody writes take no memory.


def marked(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeros, with 1, 2, 3 in the last three places."""
    result = np.zeros(shape, dtype)
    result.reshape(-1)[-3:] = [1, 2, 3]
    return result


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((HALF + 11,), "uint8"), ((HALF // 4 + 11,), "float32"), ((HALF + 11,), "float32"), ((2**20 + 1, 2**11), "int32")],
    ids=str,
)
def test_elements_behind_2_to_31_are_read_where_they_are(shape: tuple[int, ...], dtype: str) -> None:
    array = marked(shape, dtype)

    def ends(a: Any, row: Any) -> Any:
        flat = gl.ops.reshape(a, (-1,))
        return flat[-5:] + 1, gl.ops.flip(flat)[:4], gl.ops.take(a, row, axis=0), flat[-4:-1:2]

    row = np.array([len(array) - 1, len(array) - 2], np.int64)
    with nothing_more():
        last, first, rows, stepped = gl.function(ends)(array, row)
    np.testing.assert_array_equal(last, [1, 1, 2, 3, 4])
    np.testing.assert_array_equal(first, [3, 2, 1, 0])
    np.testing.assert_array_equal(rows, array[row])
    np.testing.assert_array_equal(stepped, [0, 2])


def needs(nbytes: int) -> None:
    if physical_memory() < 2 * nbytes:
        pytest.skip(f"needs {nbytes} bytes of memory")


def test_results_of_more_than_2_to_31_bytes(times: Callable[[int, int], int]) -> None:
    if times(0, 1) == 0:
        pytest.skip("the full form alone")
    needs(3 * HALF)
    array = np.zeros(HALF + 77, np.uint8)
    array[-4:] = [1, 2, 3, 4]
    result = gl.function(lambda a: a * 2 + 7)(array)
    assert result[:-4].min() == result[:-4].max() == 7
    np.testing.assert_array_equal(result[-4:], [9, 11, 13, 15])


def test_sums_and_products_over_more_than_2_to_31_bytes(times: Callable[[int, int], int]) -> None:
    if times(0, 1) == 0:
        pytest.skip("the full form alone")
    rows, columns = 2**16 + 3, 2**13 + 1
    array = marked((rows, columns), "float32")
    total, largest, product = gl.function(
        lambda a, b: (gl.ops.sum(a, axis=1), gl.ops.max(a), gl.ops.sum(a @ b, axis=0))
    )(array, np.ones((columns, 4), np.float32))
    assert total[-1] == 6 and not total[:-1].any()
    assert largest == 3
    np.testing.assert_array_equal(product, [6, 6, 6, 6])
    assert np.count_nonzero(gl.function(lambda a: gl.ops.sum(a, axis=0))(array)) == 3
