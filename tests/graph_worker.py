"""Checks random graphs in a process of its own: `python graph_worker.py FOLDER SEED COUNT panels|plain`.

Threads divide even small graphs; with `panels`, small matrices and results are laid out as large ones are.

FOLDER holds, at each moment, the graph that is being checked and what is done with it, for whoever finds the process
ended by a signal: `graph.ir`, `arrays.npz`, `doing`. In the end it holds `report` for a mismatch, else `result.json`.
"""

import json
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings

from compiled import VARIANTS, Arrays, assert_same, run_program
from conditioning import differing
from gradloom.compiler import pipeline
from gradloom.compiler.interpreter import evaluate, interpret
from gradloom.compiler.ir import Graph, Value
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.reducer import reduce
from gradloom.drawn_arrays import drawn_arrays
from gradloom.testing import graphs
from gradloom.testing.blame import first_wrong_value
from small_blocks import SETTINGS, SMALL_BLOCKS

REDUCTION = 120.0
"""Seconds for making a failing graph small."""


class Mismatch(AssertionError):
    """Compiled results that rounding does not explain, with all that is needed to see them again."""


def options(level: str, variant: str) -> pipeline.Options:
    return pipeline.Options(Target.named(level), cores=2, **VARIANTS[variant], **SMALL_BLOCKS)


def mismatch(graph: Graph, arrays: Arrays, level: str, variant: str, used: Counter[bool] | None = None) -> str:
    """What is wrong with one way of compiling a graph; "" if nothing is.

    used: counts programs by whether several threads divide their work.
    """
    with np.errstate(all="ignore"):
        expected = interpret(graph, arrays)
    program = pipeline.compile_graph(graph, options(level, variant))
    if used is not None:
        used[program.max_threads > 1] += 1
    alone = run_program(program, graph, arrays, 1)
    wrong = differing(alone, expected, graph, arrays=arrays)
    for name, mask in wrong.items():
        return f"{name}: {mask.sum()} of {mask.size} differ: {alone[name][mask]} where {expected[name][mask]} is right"
    try:
        assert_same(run_program(program, graph, arrays, 2), alone)
    except AssertionError as error:
        return f"2 threads differ from 1: {error}"
    return ""


def report(graph: Graph, arrays: Arrays, level: str, variant: str, what: str) -> str:
    """A mismatch, the first node that it begins at, and the smallest graph that still shows it."""

    def fails(candidate: Graph) -> bool:
        try:
            return mismatch(candidate, stood_in(candidate, arrays), level, variant) != ""
        except Exception as error:
            # Of a graph that cannot be compiled, what is left must fail by the same exception.
            return what.rstrip().endswith(f"{type(error).__name__}: {error}")

    lines = [f"{variant}, {level}: {what}"]
    if "Traceback" not in what:
        lines.append(f"first wrong node: {first_wrong_node(graph, arrays, level, variant)}")
    if fails(graph):
        lines += ["reduced:", str(reduce(graph, fails, REDUCTION))]
    return "\n".join([*lines, "whole:", str(graph)])


def stood_in(candidate: Graph, arrays: Arrays) -> dict[str, np.ndarray]:
    """Arrays for a reduced graph: the given ones, and for inputs in the place of nodes new ones."""
    types = {value.op.attributes["label"]: value.type for value in candidate.inputs}
    fitting = {label: array for label, array in arrays.items() if label in types and types[label].shape == array.shape}
    return drawn_arrays(candidate, 0, fitting)


def first_wrong_node(graph: Graph, arrays: Arrays, level: str, variant: str) -> str:
    """The first node whose compiled result does not follow from its operands' compiled results."""
    whole, _ = graph.rebuild()
    whole.outputs.clear()
    for value in whole.values:
        whole.output(f"n{value.number}", value)
    got = run_program(pipeline.compile_graph(whole, options(level, variant)), whole, arrays, 1)
    known = {value: got[f"n{value.number}"] for value in whole.values}

    def wrong(value: Value, array: np.ndarray) -> str:
        alone = Graph("node")
        operands = [alone.input(f"x{n}", operand.type) for n, operand in enumerate(value.inputs)]
        alone.output("result", alone.apply(value.op, *operands))
        given = {f"x{n}": known[operand] for n, operand in enumerate(value.inputs)}
        with np.errstate(all="ignore"):
            right = evaluate(whole, value, arrays, known)
        differs = differing({"result": array}, {"result": right}, alone, arrays={**arrays, **given})
        return f"{array} where {right} is right" if differs else ""

    return first_wrong_value(whole.values, known, wrong) or "none, where all nodes are results"


def main(folder: Path, number: int, count: int, panels: bool) -> None:
    for module, name, value in SETTINGS if panels else ():
        setattr(module, name, value)
    ops: Counter[str] = Counter()
    threaded: Counter[bool] = Counter()
    checked = 0
    failure = None

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(graphs())
    def all_ways_agree(drawn: tuple[Graph, dict[str, np.ndarray]]) -> None:
        nonlocal checked, failure
        graph, arrays = drawn
        (folder / "graph.ir").write_text(str(graph))
        np.savez(folder / "arrays.npz", **{name: array.astype(np.float64) for name, array in arrays.items()})
        for level in host_levels():
            for variant in VARIANTS:
                (folder / "doing").write_text(f"{variant}, {level}")
                try:
                    what = mismatch(graph, arrays, level, variant, threaded)
                except Exception:
                    what = traceback.format_exc()
                if what:
                    failure = graph, arrays, level, variant, what
                    raise Mismatch(what)
        checked += 1
        ops.update({value.op.name for value in graph.live()})

    try:
        all_ways_agree()
    except Exception:
        text = traceback.format_exc() if failure is None else report(*failure)
        (folder / "report").write_text(text)
        sys.exit(1)
    (folder / "result.json").write_text(
        json.dumps({"graphs": checked, "ops": ops, "alone": threaded[False], "threaded": threaded[True]})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "panels")
