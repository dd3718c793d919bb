"""Runs graphs compiled and interpreted, and compares: the interpreter is NumPy and shares no code with the kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradloom.compiler import pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.types import F64
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import get_num_threads, set_num_threads

Arrays = Mapping[str, np.ndarray]


def run(graph: Graph, arrays: Arrays, threads: int = 1, steps: int = 1, **options: Any) -> dict[str, np.ndarray]:
    """The outputs of the compiled graph; donated ones are read where they were written."""
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2, **options))
    return run_program(program, graph, arrays, threads, steps)


def run_program(program: Any, graph: Graph, arrays: Arrays, threads: int = 1, steps: int = 1) -> dict[str, np.ndarray]:
    """The outputs of a program compiled from `graph`."""
    labels = {value: value.op.label for value in graph.inputs}  # type: ignore[attr-defined]
    held = {label: np.array(arrays[label]) for label in labels.values()}
    results = {}
    for output in graph.outputs:
        if output.donor is None:
            results[output.name] = np.zeros(output.value.shape, output.value.dtype.numpy)
    before = get_num_threads()
    set_num_threads(threads)
    try:
        Executable(program).run({**held, **results}, 0, steps)
    finally:
        set_num_threads(before)
    for output in graph.outputs:
        if output.donor is not None:
            results[output.name] = held[labels[output.donor]]
    return results


def assert_same(got: Arrays, expected: Arrays, note: object = "") -> None:
    """Equal to the last bit."""
    for name, value in expected.items():
        assert got[name].tobytes() == value.tobytes(), f"{name} differs in its bits\n{note}"


def assert_close(got: Arrays, expected: Arrays, graph: Graph, scale: float = 1.0) -> None:
    """Equal for exact dtypes; floats within a few thousand roundings of the largest element."""
    for output in graph.outputs:
        value, wanted = got[output.name], expected[output.name]
        assert value.shape == wanted.shape and value.dtype == wanted.dtype, (output.name, value.shape, wanted.shape)
        if not output.value.dtype.is_float:
            np.testing.assert_array_equal(value, wanted, err_msg=f"{output.name}\n{graph}")
            continue
        unit = 2e-13 if output.value.dtype == F64 else 2e-4
        finite = np.abs(wanted[np.isfinite(wanted)])
        tolerance = unit * scale * max(1.0, float(finite.max(initial=0.0)))
        np.testing.assert_allclose(value, wanted, rtol=unit * scale, atol=tolerance, err_msg=f"{output.name}\n{graph}")


def check(graph: Graph, arrays: Arrays, scale: float = 1.0, threads: Sequence[int] = (1, 2)) -> None:
    """Compiled equals interpreted, optimized and as it stands; the bits do not depend on the thread count."""
    expected = interpret(graph, dict(arrays))
    for options in ({}, {"fuse": False, "simplify": False}):
        program = pipeline.compile_graph(graph, pipeline.Options(cores=2, **options))
        first = run_program(program, graph, arrays, threads[0])
        assert_close(first, expected, graph, scale)
        for count in threads[1:]:
            assert_same(run_program(program, graph, arrays, count), first, graph)
