"""Compiled programs against the NumPy interpreter: random typed graphs, forward and gradient."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiled import check
from gradloom.compiler.ir import Graph
from gradloom.compiler.program import Program
from gradloom.compiler.types import F32, TensorType
from gradloom.runtime.executable import Executable
from random_graphs import graphs


def test_inputs_may_have_names_of_any_length() -> None:
    graph, name = Graph(), "x" * 3000
    x, y = (graph.input(name + last, TensorType(F32, (5,))) for last in "xy")
    graph.output("sum", x + y)
    check(graph, {name + last: np.ones(5, np.float32) for last in "xy"})


def check_random_graphs(most: int) -> None:
    @settings(max_examples=125, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(graphs(most=most))
    def compiled_equals_interpreted(drawn: tuple[Graph, dict[str, np.ndarray]]) -> None:
        graph, arrays = drawn
        check(graph, arrays)

    compiled_equals_interpreted()


# 500 graphs in four tests, so that they can run side by side.


@pytest.mark.parametrize("most", [5, 8])
def test_random_graphs_compiled_equal_interpreted(most: int) -> None:
    check_random_graphs(most)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("most", [6, 7])
def test_random_graphs_in_small_blocks_compiled_equal_interpreted(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are, most graphs are so small that they would run on one thread."""
    parallel: list[bool] = []
    executable = Executable.__init__

    def noted(self: Executable, program: Program) -> None:
        parallel.append(program.parallel)
        executable(self, program)

    monkeypatch.setattr(Executable, "__init__", noted)
    check_random_graphs(most)
    assert sum(parallel) > len(parallel) / 3
