"""Compiled against interpreted: results and gradients in the dtypes given, fused and not, on one thread and several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Constant, Graph, Input, Value
from gradloom.compiler.program import Program
from gradloom.compiler.reducer import reduce
from gradloom.compiler.types import F64
from gradloom.drawn_arrays import drawn_arrays
from gradloom.graph_runs import compiled_anew, disagreements, distance, run_program
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.threads import get_num_threads, set_num_threads
from gradloom.testing.blame import first_wrong_value
from gradloom.testing.evaluation import wide
from gradloom.testing.kinks import SMALLEST_STEP, distances
from gradloom.testing.problem import Function, Point, Problem, build, label
from gradloom.testing.records import Checks
from gradloom.testing.report import Mismatch, failure

__tracebackhide__ = True  # pytest shows the test, not how it was checked

FACTOR = 8
"""How many times the spread of roundings, which is found from a few draws, results may be apart."""

REDUCING_SECONDS = 10
"""How long to look for the smallest graph that is compiled wrongly."""


def check_compiled(
    function: Function, order: int, exact: Point, seed: int, checks: Checks, options: Mapping[str, Any]
) -> None:
    """Check results and gradients of all orders in the dtypes given; raise `GradientError` for the first that is wrong.

    exact: the point in float64.
    """
    problem = build(function, order, wide=False)
    point = problem.point(function.arrays, seed)
    check = _Compiled(function, problem, point, checks, options)
    if any(value.dtype != F64 for value in problem.inputs):
        check.against_float64(exact)
    check.compiled_ways()


class _Compiled:
    """The comparisons of one function's programs."""

    def __init__(
        self, function: Function, problem: Problem, point: Point, checks: Checks, options: Mapping[str, Any]
    ) -> None:
        self.function = function
        self.problem = problem
        self.point = point
        self.checks = checks
        self.options = options
        self.graph, self.image = problem.graph.rebuild(function.name)
        self.at_kink = any(d < SMALLEST_STEP for d in distances(problem.forward, point.values).values())

    def against_float64(self, exact: Point) -> None:
        """What the dtypes given make of it may differ from float64 by rounding only."""
        if self.at_kink:
            return
        for narrow, right in zip(self.problem.results, exact.problem.results, strict=True):
            if narrow.dtype.is_float:
                got = wide(self.point.values[narrow])
                with np.errstate(over="ignore"):  # What is beyond a narrow dtype is infinite there, rightly so.
                    wanted = wide(exact.values[right].astype(narrow.dtype.numpy))
                tolerance = FACTOR * (self._spread(narrow) + exact.spread(right))
                self._compare("dtype", narrow, got, wanted, tolerance, self._first_overflow)

    def _first_overflow(self) -> str:
        """The first node that is not finite in the dtypes given; "" if all are."""

        def wrong(node: Value, array: np.ndarray) -> str:
            if not node.dtype.is_float or isinstance(node.op, Constant):
                return ""
            beyond = wide(array)[~np.isfinite(wide(array))]
            return f"in {node.dtype.name}, it has {beyond[0]}" if beyond.size else ""

        return first_wrong_value(self.problem.graph.values, self.point.values, wrong)

    def compiled_ways(self) -> None:
        """Fused and unfused programs against the interpreter; and on several threads the same bits as on one."""
        arrays = {label(value): self.point.arrays[label(value)] for value in self.graph.inputs}
        for check, optimized in (("compiled", True), ("unfused", False)):
            program = compiled_anew(self.graph, optimized)
            results = run_program(program, self.graph, arrays)
            for name, value in self._results():
                self._compare(
                    check,
                    value,
                    results[name],
                    self.point.values[value],
                    FACTOR * self._spread(value),
                    lambda optimized=optimized: self._first_wrong(arrays, optimized),
                )
            if optimized:
                self._threads(program, arrays)

    def _results(self) -> list[tuple[str, Value]]:
        return [(output.name, output.value) for output in self.problem.graph.outputs]

    def _threads(self, program: Program, arrays: Mapping[str, np.ndarray]) -> None:
        """The same bits on each number of threads; nothing where one thread has all the work."""
        if program.max_threads == 1:
            program = compiled_anew(self.graph, divided=True)
        if program.max_threads == 1:
            return
        before = get_num_threads()
        try:
            set_num_threads(1)
            results = run_program(program, self.graph, arrays)
            for count in sorted({2, available_cpus()} - {1}):
                set_num_threads(count)
                again = run_program(program, self.graph, arrays)
                for name, value in self._results():
                    same = again[name].tobytes() == results[name].tobytes()
                    self._compare(
                        "threads",
                        value,
                        again[name],
                        results[name],
                        np.zeros(value.shape),
                        lambda count=count: f"on {count} threads its bits are others",
                        differs=not same,
                    )
        finally:
            set_num_threads(before)

    def _spread(self, value: Value) -> np.ndarray:
        """How far roundings may move a node: by no less than the average of its elements, or a few units."""
        if not value.dtype.is_float:
            return np.zeros(value.shape)
        spread = self.point.spread(value)
        unit = float(np.finfo(value.dtype.arithmetic.numpy).eps)
        largest = np.max(np.abs(wide(self.point.values[value])), initial=0.0, where=np.isfinite(spread))
        average = np.mean(spread) if spread.size else 0.0
        return np.asarray(spread + average + unit * np.nan_to_num(largest) + float(np.finfo(np.float32).tiny))

    def _compare(
        self,
        check: str,
        value: Value,
        got: np.ndarray,
        wanted: np.ndarray,
        tolerance: np.ndarray,
        blame: Any,
        differs: bool | None = None,
    ) -> None:
        apart = distance(got, wanted)
        # Integers that come from floats may jump at a kink.
        if differs is None:
            differs = bool((~(apart <= tolerance)).any()) and not (self.at_kink and not value.dtype.is_float)
        self.checks.add(check, 0.0 if not differs else apart, tolerance)
        if differs:
            at = np.unravel_index(int(np.argmax(apart - tolerance)), apart.shape) if apart.size else ()
            place = f" at {[int(i) for i in at]}" if at else ""
            others = {"dtype": "float64", "threads": "another number of threads"}.get(check, "the interpreter")
            mismatch = Mismatch(
                f"{self._name(value)}{place}", f"beside {others}", wanted[at], got[at], float(tolerance[at])
            )
            raise failure(check, self.function, mismatch, blame, self.options)

    def _name(self, value: Value) -> str:
        return next(name for name, result in self._results() if result is value)

    def _first_wrong(self, arrays: Mapping[str, np.ndarray], optimized: bool) -> str:
        """The first node that is computed wrongly when all are kept, or else the smallest graph that is."""
        watched, image = self.problem.graph.rebuild()
        watched.outputs = []
        nodes = {old: new for old, new in image.items() if not isinstance(new.op, Input | Constant)}
        for new in nodes.values():
            watched.output(f"%{new.number}", new)
        got = run_program(compiled_anew(watched, optimized), watched, arrays)
        found = {old: got[f"%{new.number}"] for old, new in nodes.items()}

        def wrong(node: Value, array: np.ndarray) -> str:
            apart = distance(array, self.point.values[node])
            if not (apart > FACTOR * self._spread(node)).any():
                return ""
            at = np.unravel_index(int(np.argmax(apart)), apart.shape)
            return f"compiled: {array[at]} where {self.point.values[node][at]} is right, at {[int(i) for i in at]}"

        return first_wrong_value(list(nodes), found, wrong) or self._smallest(arrays, optimized)

    def _smallest(self, arrays: Mapping[str, np.ndarray], optimized: bool) -> str:
        """The smallest graph that is compiled wrongly, as text that `python -m gradloom run FILE --check` reads."""

        def fails(graph: Graph) -> bool:
            fitting = {
                label(x): arrays[label(x)]
                for x in graph.inputs
                if label(x) in arrays and arrays[label(x)].shape == x.shape
            }
            given = drawn_arrays(graph, 0, fitting)
            try:
                return bool(
                    disagreements(run_program(compiled_anew(graph, optimized), graph, given), interpret(graph, given))
                )
            except GradloomError:
                return False

        try:
            smallest = reduce(self.graph, fails, REDUCING_SECONDS)
        except ValueError:
            return ""
        return f"within this graph, which is as small as one can be that is compiled wrongly:\n\n{smallest}"
