"""Scatter kernels: rows added in order, whatever the sizes, the index dtype and the number of threads."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import check
from gradloom.compiler import ops
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.ir import Graph, building
from gradloom.compiler.ops.indexing import ScatterAdd
from gradloom.compiler.types import F32, F64, I32, I64, U8, TensorType


@settings(max_examples=60, derandomize=True, database=None)
@given(st.data())
def test_scatter_equals_the_interpreter(data: Any) -> None:
    dtype = data.draw(st.sampled_from([F32, F64, I32]))
    index = data.draw(st.sampled_from([I32, I64, U8]))
    counts = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 40]), max_size=2)))
    row = tuple(data.draw(st.lists(st.sampled_from([0, 1, 3, 16, 17, 63, 64, 130]), max_size=2)))
    size = data.draw(st.sampled_from([1, 4, 50]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    graph = Graph("scatter")
    with building(graph):
        updates = graph.input("updates", TensorType(dtype, counts + row))
        indices = graph.input("indices", TensorType(index, counts))
        table = graph.input("table", TensorType(dtype, (size, *row)), "state")
        fed = ops.tanh(updates) if dtype.is_float else updates * 3
        scattered = graph.apply(ScatterAdd(size), fed, indices)
        graph.output("sum", scattered)
        graph.output("table", table + scattered, table)
        if data.draw(st.booleans()):
            graph.output("double", ops.sum(scattered * 2))
    arrays = {
        "updates": rng.integers(-9, 9, counts + row).astype(dtype.numpy),
        # Some lie outside: they mean the nearest row.
        "indices": rng.integers(0 if index == U8 else -2, size + 2, counts).astype(index.numpy),
        "table": rng.integers(-9, 9, (size, *row)).astype(dtype.numpy),
    }
    check(graph, arrays)


def test_rows_that_meet_are_added_in_their_order() -> None:
    """1e8 + 1 − 1e8 is 0 in float32 in this order, and 1 in another."""
    graph = Graph("order")
    updates = graph.input("updates", TensorType(F32, (3, 40)))
    indices = graph.input("indices", TensorType(I32, (3,)))
    graph.output("y", graph.apply(ScatterAdd(2), updates, indices))
    array = np.repeat(np.array([[1e8], [1], [-1e8]], np.float32), 40, axis=1)
    check(graph, {"updates": array, "indices": np.ones(3, np.int32)})


def test_an_embedding_is_trained_in_place() -> None:
    graph = Graph("embedding")
    with building(graph):
        table = graph.input("table", TensorType(F32, (20, 24)), "parameter")
        rows = graph.input("rows", TensorType(I32, (4, 3)))
        picked = ops.take(table, rows, axis=0)
        (gradient,) = gradients([ops.sum(ops.square(picked))], [table])
        graph.output("table", table - 0.1 * gradient, table)
    rng = np.random.default_rng(0)
    arrays = {
        "table": rng.normal(size=(20, 24)).astype(np.float32),
        "rows": rng.integers(0, 20, (4, 3)).astype(np.int32),
    }
    check(graph, arrays)
