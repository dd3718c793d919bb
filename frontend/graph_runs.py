"""Runs of single graphs on arrays, compiled, unfused or interpreted, and how their results compare."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradloom.compiler.ir import FORWARD, Graph, Input
from gradloom.compiler.passes.prepare import PREPARED, as_stored
from gradloom.compiler.types import as_dtype
from gradloom.drawn_arrays import Arrays, stored
from gradloom.inspection.way import Way

if TYPE_CHECKING:
    from gradloom.compiler.program import Program

TOLERANCE = {"bf16": 2e-2, "f32": 2e-4, "f64": 2e-13}
"""How far floats may be apart, relative to the largest element of a result, or to 1: some thousand roundings.

Results in bf16 are computed in float32, and rounded to it a few times on the way.
"""

COMPILED, UNFUSED = "compiled", "unfused"


def run_graph(graph: Graph, arrays: Arrays, way: str = COMPILED) -> dict[str, np.ndarray]:
    """Return the graph's outputs by name for arrays by input label, which stay as they are.

    way: "compiled" as a model's programs are, from the graph's own stage on; "unfused" with every node a kernel of its
    own, and nothing simplified. Raises `ArgumentError` for a missing or unfitting array.
    """
    if way == UNFUSED:
        plain, _ = graph.rebuild()
        plain.groups, plain.stage, plain.inference = (), "", False
        return run_program(compiled_anew(plain, optimized=False), plain, arrays)
    parts = Way(graph.stage or FORWARD, lambda: graph).parts
    main = parts.main.graph
    program = compiled_anew(main)
    prepared = {
        argument.name: stored(arrays[argument.name], argument)
        for argument in program.arguments
        if argument.role == PREPARED and argument.name in arrays
    }
    if parts.prepare is not None:
        prepare = as_stored(parts.prepare, program.arguments)
        prepared |= run_program(compiled_anew(prepare), prepare, arrays)
    return run_program(program, main, {**arrays, **prepared})


def compiled_anew(graph: Graph, optimized: bool = True, divided: bool = False) -> Program:
    """Compile a graph anew: what is checked must not come out of the cache.

    divided: in blocks as small as they can be, a row or vector each, so that threads share what one would do sooner.
    """
    from gradloom.compiler import pipeline
    from gradloom.compiler.options import Options
    from gradloom.runtime.cpus import available_cpus

    options = Options(cores=available_cpus(), simplify=optimized, fuse=optimized)
    if divided:
        options = replace(options, cores=max(2, options.cores), block_cost=1, parallel_bytes=0)
    return pipeline.compile_graph(graph, options)


def run_program(program: Program, graph: Graph, arrays: Arrays) -> dict[str, np.ndarray]:
    """The outputs of a program that was compiled from a graph."""
    from gradloom.runtime.executable import Executable

    names = {argument.name for argument in program.arguments}
    held = {label: np.array(array, order="C") for label, array in arrays.items() if label in names}
    results = {
        output.name: np.zeros(output.value.shape, output.value.dtype.numpy)
        for output in graph.outputs
        if output.donor is None
    }
    Executable(program).run({**held, **results})
    for output in graph.outputs:
        if output.donor is not None and isinstance(output.donor.op, Input):
            results[output.name] = held[output.donor.op.label]
    return {output.name: results[output.name] for output in graph.outputs}


def disagreements(got: Arrays, wanted: Arrays) -> list[str]:
    """Return a line for each result that differs by more than rounding: where most, what came, and what is right."""
    return [line for name in wanted if (line := _disagreement(name, got[name], wanted[name]))]


def _disagreement(name: str, got: np.ndarray, wanted: np.ndarray) -> str:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return f"{name}: {got.dtype}{list(got.shape)} where {wanted.dtype}{list(wanted.shape)} is right"
    apart = distance(got, wanted)
    wrong = apart > _tolerance(wanted)
    if not wrong.any():
        return ""
    at = np.unravel_index(int(apart.argmax()), apart.shape)
    place = f" at {list(map(int, at))}" if at else ""
    count = f"{int(wrong.sum())} of {wrong.size} elements differ"
    return f"{name}: {count}, most{place}: {got[at]} where {wanted[at]} is right"


def distance(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far elements are apart: 0 for equal ones, NaNs too; infinitely where only one is finite."""
    if not as_dtype(wanted.dtype).is_float:
        return np.asarray(got != wanted, np.float64)
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.abs(got - wanted)
    same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
    return np.asarray(np.where(same, 0.0, np.where(np.isfinite(apart), apart, np.inf)))


def _tolerance(wanted: np.ndarray) -> float:
    dtype = as_dtype(wanted.dtype)
    if not dtype.is_float:
        return 0.0
    sizes = np.abs(wanted.astype(np.float64))
    return TOLERANCE[dtype.name] * max(1.0, float(sizes[np.isfinite(sizes)].max(initial=0.0)))
