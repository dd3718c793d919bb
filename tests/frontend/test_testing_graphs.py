"""The strategy for random typed graphs: it keeps its bounds, has every op, repeats itself and shrinks."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

import gradloom.compiler.ops  # noqa: F401  (fills Op.registry)
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Constant, Graph, Input, Op, Value
from gradloom.compiler.types import DTYPES, F32, F64, as_dtype
from gradloom.testing import graphs
from gradloom.testing.graph_steps import STEPS

Drawn = tuple[Graph, dict[str, np.ndarray]]

quick = settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True, database=None)


def computed(graph: Graph) -> list[Value]:
    return [value for value in graph.live() if not isinstance(value.op, Input | Constant)]


@quick
@given(st.integers(1, 30).flatmap(lambda most: st.tuples(st.just(most), graphs(most, gradient=False))))
def test_graphs_have_no_more_nodes_than_asked_for(case: tuple[int, Drawn]) -> None:
    most, (graph, arrays) = case
    assert len(computed(graph)) <= most
    assert {value.op.attributes["label"] for value in graph.inputs} == set(arrays)
    assert all(output.name.startswith("y") for output in graph.outputs)


@quick
@given(
    st.sets(st.sampled_from(DTYPES)).flatmap(
        lambda d: st.tuples(st.just(d | {F32}), graphs(12, sorted(d | {F32}, key=str)))
    )
)
def test_inputs_have_the_dtypes_asked_for(case: tuple[set[object], Drawn]) -> None:
    dtypes, (graph, arrays) = case
    assert {value.dtype for value in graph.inputs} <= dtypes
    assert all(as_dtype(array.dtype) in dtypes for array in arrays.values())
    floats = {value.dtype for value in graph.live() if value.dtype.is_float and value.dtype.arithmetic == value.dtype}
    assert floats <= dtypes | {F32}
    assert (F64 in floats) <= (F64 in dtypes)


@quick
@given(graphs())
def test_results_are_finite_and_have_gradients(drawn: Drawn) -> None:
    graph, arrays = drawn
    graph.verify()
    with np.errstate(all="ignore"):
        results = interpret(graph, arrays)
    assert all(np.isfinite(np.asarray(array, np.float64)).all() for array in results.values())
    floats = sum(value.dtype.is_float for value in graph.inputs)
    assert sum(name.startswith("g") for name in results) in (0, floats)


def test_each_op_has_a_step_that_makes_it() -> None:
    """What is asked for by name comes, and no op of the IR is left out."""
    made: set[str] = set()
    for name in STEPS:
        # Raises NoSuchExample where the step makes no such node.
        graph, _ = find(
            graphs(steps=[name], gradient=False),
            lambda drawn, name=name: name not in Op.registry or name in {value.op.name for value in drawn[0].live()},
            settings=settings(quick, phases=[Phase.generate]),
        )
        made |= {value.op.name for value in graph.live()}
    known = {name for name, op in Op.registry.items() if op.__module__.startswith("gradloom.")}
    assert known - made == set()


def test_failures_shrink_to_few_nodes() -> None:
    graph, _ = find(
        graphs(gradient=False),
        lambda drawn: any(value.op.name == "reverse" for value in drawn[0].live()),
        settings=settings(max_examples=300, database=None, derandomize=True, suppress_health_check=list(HealthCheck)),
    )
    assert [value.op.name for value in computed(graph)] == ["reverse"]
    assert len(graph.inputs) == 1


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected max_nodes and max_inputs >= 1. Received: max_nodes=0"):
        graphs(0)
    with pytest.raises(ValueError, match="Expected float32 or float64 among dtypes. Received: .*int32"):
        graphs(dtypes=["int32", "bfloat16"])
    with pytest.raises(ValueError, match="Expected steps from add, .*Received: convolve"):
        graphs(steps=["add", "convolve"])
