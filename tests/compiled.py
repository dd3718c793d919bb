"""Runs graphs compiled and interpreted, and compares: the interpreter is NumPy and shares no code with the kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from conditioning import differing
from gradloom.compiler import pipeline
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.llvm.target import Target
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import get_num_threads, set_num_threads

Arrays = Mapping[str, np.ndarray]

VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no fusion": {"fuse": False},
    "unoptimized": {"fuse": False, "simplify": False},
}
"""How a graph may be compiled, with the same results."""


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


def assert_close(got: Arrays, expected: Arrays, graph: Graph, scale: float = 1.0, arrays: Arrays | None = None) -> None:
    """Equal but for rounding: see `differing`."""
    for name, mask in differing(got, expected, graph, scale, arrays).items():
        value, wanted = got[name][mask], expected[name][mask]
        raise AssertionError(f"{name}: {mask.sum()} of {mask.size} differ: {value} where {wanted} is right\n{graph}")


def check(
    graph: Graph,
    arrays: Arrays,
    scale: float = 1.0,
    threads: Sequence[int] = (1, 2),
    levels: Sequence[str] = ("",),
    **options: Any,
) -> None:
    """Compiled equals interpreted, in each variant and for each level; the bits do not depend on the thread count.

    options: of the compiler, in all variants.
    """
    with np.errstate(all="ignore"):
        expected = interpret(graph, dict(arrays))
    for level in levels:
        target = Target.named(level) if level else Target.host()
        for variant in VARIANTS.values():
            program = pipeline.compile_graph(graph, pipeline.Options(target, cores=2, **variant, **options))
            first = run_program(program, graph, arrays, threads[0])
            assert_close(first, expected, graph, scale, arrays)
            for count in threads[1:]:
                assert_same(run_program(program, graph, arrays, count), first, graph)
