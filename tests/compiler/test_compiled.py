"""Compiled programs against the NumPy interpreter: random typed graphs, forward and gradient."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiled import check
from gradloom.compiler.ir import Graph
from gradloom.compiler.program import Program
from gradloom.compiler.types import F32, TensorType
from gradloom.runtime.executable import Executable
from gradloom.testing import graphs
from small_blocks import SMALL_BLOCKS


def test_inputs_may_have_names_of_any_length() -> None:
    graph, name = Graph(), "x" * 3000
    x, y = (graph.input(name + last, TensorType(F32, (5,))) for last in "xy")
    graph.output("sum", x + y)
    check(graph, {name + last: np.ones(5, np.float32) for last in "xy"})


def check_random_graphs(max_nodes: int, **options: Any) -> None:
    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(graphs(max_nodes))
    def compiled_equals_interpreted(drawn: tuple[Graph, dict[str, np.ndarray]]) -> None:
        graph, arrays = drawn
        check(graph, arrays, **options)

    compiled_equals_interpreted()


# 200 graphs in four tests, so that they can run side by side; tests/torture has larger ones, and more.


@pytest.mark.parametrize("max_nodes", [6, 14])
def test_random_graphs_compiled_equal_interpreted(max_nodes: int) -> None:
    check_random_graphs(max_nodes)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("max_nodes", [8, 12])
def test_random_graphs_in_small_blocks_compiled_equal_interpreted(
    max_nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, most graphs are so small that they would run on one thread."""
    parallel: list[bool] = []
    executable = Executable.__init__

    def noted(self: Executable, program: Program) -> None:
        parallel.append(program.parallel)
        executable(self, program)

    monkeypatch.setattr(Executable, "__init__", noted)
    check_random_graphs(max_nodes, **SMALL_BLOCKS)
    assert sum(parallel) > len(parallel) / 3
