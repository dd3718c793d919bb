"""Compiled programs against the NumPy interpreter: random typed graphs, forward and gradient."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from compiled import check
from gradloom.compiler.ir import Graph
from random_graphs import graphs


@pytest.mark.parametrize("share", range(4))
def test_random_graphs_compiled_equal_interpreted(share: int) -> None:
    """500 graphs in four shares, so that they can run side by side."""

    @settings(max_examples=125, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(graphs(most=8 + 2 * share))
    def compiled_equals_interpreted(drawn: tuple[Graph, dict[str, np.ndarray]]) -> None:
        graph, arrays = drawn
        check(graph, arrays)

    compiled_equals_interpreted()
