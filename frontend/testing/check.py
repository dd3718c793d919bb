"""`check_gradients`: gradients against differences, against themselves, and compiled against interpreted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradloom.compiler.ir import Input, Value
from gradloom.testing import kinks as kinked
from gradloom.testing.blame import first_wrong_gradient, where
from gradloom.testing.compiled import check_compiled
from gradloom.testing.differences import central, one_sided
from gradloom.testing.errors import GradientError, NotFiniteError, NotJudgedError
from gradloom.testing.evaluation import Known, needed, run, wide
from gradloom.testing.functions import checked_function
from gradloom.testing.lines import FIRST_STEP, Line, sizes
from gradloom.testing.problem import DIRECTIONS, Function, Point, Problem, build, direction, hidden_part, label
from gradloom.testing.records import KINK, ROUNDING, SAMPLED, Checks
from gradloom.testing.report import Mismatch, failure

__tracebackhide__ = True  # pytest shows the test, not how it was checked

TRIES = 12
"""How often a point at a kink is moved at random."""

NEAR = 2.0**-14
"""A point from which fewer than this can be walked is moved: roundings in float32 might cross the kink."""

ELEMENTS = 64
"""Of an array with at most so many elements the worst one is looked for; at a kink, so many are moved alone."""

RELATIVE = 1e-8
"""How far gradients and differences may be apart beside the estimated errors of both, relatively."""


def check_gradients(
    f: Callable[..., Any], *args: Any, order: int = 2, kinks: str = "avoid", compiled: bool = True, seed: int = 0
) -> Checks:
    """Check the gradients of `f` at a point; raise `GradientError` for the first that is wrong.

    args: the arguments, as for `gl.grad`: arrays and tuples, lists, dicts and dataclasses of them. `f` may return any
        tree of arrays. Derivatives are taken by all floats among the arguments and of all among the results. Python's
        ints, bools and strings are no arrays here, but passed on as they are. Of a layer or model, derivatives are also
        taken by its trainable weights, under their paths; those of layers that a function uses are constants.
    order: how often to differentiate; 2 checks the gradient of the gradient, too.
    kinks: what to do at a point without a derivative, as a ReLU's at 0. "avoid" moves it a little, to where `f` is
        finite, and skips directions that still lead over a kink; "interval" accepts any derivative between the
        one-sided ones, of up to 64 elements of each argument; "convention" expects the one that the ops document
        (relu'(0) = 0; equal maxima share).
    compiled: whether to compare the compiled function and gradients, in the dtypes given, with interpreted ones.
    seed: for cotangents, directions and moves.

    Returns what was checked. In float64, interpreted: derivatives along a direction for each argument against central
    differences, the identity ⟨u, Jv⟩ = ⟨Jᵀu, v⟩, and Jv against differences. In the dtypes given: results and gradients
    against those in float64, then compiled, fused and not, against interpreted, and on several threads against one.
    Tolerances are bounds of rounding, propagated through the graph (`gradloom.testing.evaluation`).
    Raises `NotJudgedError` where no direction could be judged, `NotFiniteError` where `f` is not finite, `TypeError`
    without floats to differentiate.
    """
    if order < 1:
        raise ValueError(f"check_gradients: Expected an order of at least 1. Received: order={order}")
    if kinks not in kinked.KINKS:
        raise ValueError(f"check_gradients: Expected kinks as one of {kinked.KINKS}. Received: {kinks!r}")
    function = checked_function(f, args)
    problem = build(function, order, wide=True)
    point = problem.point(function.arrays, seed)
    _require_finite(function, problem, point)
    if kinks == kinked.AVOID:
        function, point = _moved_off_kinks(function, problem, point, seed)
    check = Check(function, problem, point, kinks, seed, {"order": order, "kinks": kinks, "seed": seed})
    check.derivatives()
    check.adjoint()
    if compiled:
        try:
            check_compiled(function, order, point, seed, check.checks, check.options)
        except GradientError as error:
            _require_same(function, problem, point, seed, error)
            raise
    if not check.checks.judged and check.anything_to_judge:
        raise NotJudgedError(check.checks)
    return check.checks


class Check:
    """The checks in float64 of one function at one point."""

    def __init__(
        self, function: Function, problem: Problem, point: Point, kinks: str, seed: int, options: Mapping[str, Any]
    ) -> None:
        self.function = function
        self.problem = problem
        self.point = point
        self.kinks = kinks
        self.checks = Checks(function.name)
        self.options = options
        self.rng = np.random.default_rng([1, seed])
        self.distances = kinked.distances(problem.forward, point.values)

    @property
    def anything_to_judge(self) -> bool:
        """Whether arguments and results have elements."""
        return all(any(value.type.size for value in side) for side in (self.problem.inputs, self.problem.outputs))

    def derivatives(self) -> None:
        """The gradient of each order, along a direction for each input, against differences."""
        for number, level in enumerate(self.problem.levels):
            if not self._finite(number):
                self.checks.skip(KINK, len(self.problem.inputs))
                continue
            for value, derivative in zip(self.problem.inputs, self.problem.derivatives[number], strict=True):
                if derivative.type.size:
                    self._derivative(number, level, value, derivative)

    def _derivative(self, number: int, level: Value, value: Value, derivative: Value) -> None:
        """Along all elements, then along those of which an error may have been too small to show among the others."""
        along: np.ndarray | None = direction(self.rng, self.point.values[value])
        for _ in range(DIRECTIONS):
            if along is None:
                return
            step = self._step({value: along})
            if not step:
                self.checks.skip(KINK)
                return
            tolerance = self._directional(number, level, value, derivative, along, step)
            along = hidden_part(along, wide(self.point.values[derivative]), tolerance)

    def _directional(
        self, number: int, level: Value, value: Value, derivative: Value, along: np.ndarray, step: float
    ) -> float:
        """Check a gradient along a direction; return how far it may be off."""
        point = self.point
        found = central(point.curve(level, {value: along}), step)
        received = float(np.sum(wide(point.values[derivative]) * along))
        noise = float(np.sum(point.spread(derivative) * np.abs(along)))
        expected, error = float(found.value), float(found.error)
        tolerance = 10 * error + 8 * noise + RELATIVE * max(abs(expected), abs(received))
        name = "gradient" if number == 0 else f"gradient of order {number + 1}"
        if not abs(received - expected) <= tolerance:
            mismatch = Mismatch(
                name,
                lambda: f"by {label(value)!r}, {self._worst_element(level, value, derivative, step)}",
                expected,
                received,
                tolerance,
            )
            raise failure("gradient", self.function, mismatch, self._blame(number + 1), self.options)
        if _hidden(np.array(max(abs(expected), abs(received))), tolerance):
            self.checks.skip(ROUNDING)
        else:
            self.checks.add(name, abs(received - expected), tolerance)
        return tolerance

    def _worst_element(self, level: Value, value: Value, derivative: Value, step: float) -> str:
        """Which element of a gradient is most wrong, for gradients of few elements."""
        if value.type.size > ELEMENTS:
            return "along a random direction"
        name, worst = label(value), (-1.0, "")
        for at in np.ndindex(*value.shape):
            one = self._one(value, at)
            right = float(central(self.point.curve(level, {value: one}), step).value) / float(one[at])
            got = float(self.point.values[derivative][at])
            place = f"[{', '.join(map(str, at))}]" if at else ""
            if abs(got - right) > worst[0]:
                worst = abs(got - right), f"{name}{place}: {got:.9g} where {right:.9g} is right"
        return f"along a random direction; most wrong is {worst[1]}"

    def _one(self, value: Value, at: tuple[int, ...]) -> np.ndarray:
        """A direction that moves one element, by as much as it is large."""
        one = np.zeros(value.shape)
        one[at] = sizes(self.point.values[value])[at]
        return one

    def adjoint(self) -> None:
        """The derivative along a direction: against the gradient, and against what differences or conventions say."""
        problem, point = self.problem, self.point
        moving = {x: wide(point.values[v]) for x, v in zip(problem.inputs, problem.directions, strict=True)}
        received = self._paired(problem.cotangents, problem.along)
        expected = self._paired(problem.directions, problem.derivatives[0])
        if self._at_kink() and not np.isfinite(received[0] + expected[0]):
            self.checks.skip(KINK)
            return
        tolerance = 8 * (received[1] + expected[1]) + RELATIVE * max(abs(received[0]), abs(expected[0]))
        self.checks.add("adjoint", abs(received[0] - expected[0]), tolerance)
        if not abs(received[0] - expected[0]) <= tolerance:
            mismatch = Mismatch("⟨u, Jv⟩", "which must be ⟨Jᵀu, v⟩", expected[0], received[0], tolerance)
            raise failure("adjoint", self.function, mismatch, self._blame(2), self.options)
        step = self._step(moving)
        if step:
            self._along(moving, step)
        elif self.kinks == kinked.CONVENTION:
            self._convention(moving)
        elif self.kinks == kinked.INTERVAL:
            self._intervals()
        else:
            self.checks.skip(KINK)

    def _paired(self, weights: Sequence[Value], values: Sequence[Value]) -> tuple[float, float]:
        """Σ weight·value, and how far roundings move it."""
        total = noise = 0.0
        for weight, value in zip(weights, values, strict=True):
            factor = wide(self.point.values[weight])
            total += float(np.sum(factor * wide(self.point.values[value])))
            noise += float(np.sum(np.abs(factor) * self.point.spread(value)))
        return total, noise

    def _along(self, moving: Known, step: float) -> None:
        for output, along in zip(self.problem.outputs, self.problem.along, strict=True):
            found = central(self.point.curve(output, moving), step)
            self._compare("derivative along v", "gradient", output, along, found.value, found.value, found.error)

    def _convention(self, moving: Known) -> None:
        """Jv against the ops' conventions at kinks, carried on from op to op."""
        found = kinked.tangents(self.problem.forward, self.point.values, moving)
        for output, along in zip(self.problem.outputs, self.problem.along, strict=True):
            wanted = np.where(np.isnan(found[output]), wide(self.point.values[along]), found[output])
            self._compare("convention", "convention", output, along, wanted, wanted, 1e-8 * np.abs(wanted))

    def _intervals(self) -> None:
        """Jv for single elements of the arguments: between the one-sided derivatives."""
        order = needed(self.problem.along)
        still = {label(v): np.zeros(v.shape) for v in self.problem.directions}
        for value, v in zip(self.problem.inputs, self.problem.directions, strict=True):
            places = list(np.ndindex(*value.shape))
            chosen = self.rng.permutation(len(places))[:ELEMENTS]
            for place in chosen:
                one = self._one(value, places[place])
                derivatives = run(order, {**self.point.arrays, **still, label(v): one})
                self._interval({value: one}, derivatives)
            self.checks.skip(SAMPLED, len(places) - len(chosen))

    def _interval(self, moving: Known, derivatives: Known) -> None:
        step = self._step_between_kinks(self.point.line(self.problem.forward, moving))
        for output, along in zip(self.problem.outputs, self.problem.along, strict=True):
            curve = self.point.curve(output, moving)
            ahead, behind = one_sided(curve, step), one_sided(curve, -step)
            low, high = np.minimum(ahead.value, behind.value), np.maximum(ahead.value, behind.value)
            error = ahead.error + behind.error
            self._compare("interval", "interval", output, along, low, high, error, derivatives[along])

    def _compare(
        self,
        name: str,
        check: str,
        output: Value,
        along: Value,
        low: np.ndarray,
        high: np.ndarray,
        error: np.ndarray,
        got: np.ndarray | None = None,
    ) -> None:
        """Hold the derivative of a result along a direction to bounds, element by element."""
        received = wide(self.point.values[along] if got is None else got)
        size = np.maximum(np.abs(low), np.abs(high))
        with np.errstate(invalid="ignore"):
            tolerance = 10 * error + 8 * self.point.spread(along) + RELATIVE * size
            distance = np.maximum(np.maximum(low - received, received - high), 0.0)
            wrong = ~(distance <= tolerance)
        if wrong.any():
            at = np.unravel_index(int(np.argmax(np.where(wrong, distance, -1.0))), wrong.shape)
            place = f"{int(wrong.sum())} of {wrong.size} elements of a result, most at {[int(i) for i in at]}"
            expected: Any = float(low[at]) if low[at] == high[at] else (float(low[at]), float(high[at]))
            mismatch = Mismatch(name, place, expected, float(received[at]), float(tolerance[at]))
            raise failure(check, self.function, mismatch, self._blame(1), self.options)
        if _hidden(np.maximum(size, np.abs(received)), tolerance):
            self.checks.skip(ROUNDING)
        elif received.size:
            self.checks.add(name, distance, tolerance)

    def _blame(self, order: int) -> Callable[[], str]:
        return lambda: first_wrong_gradient(self.problem, self.point, order, self.kinks == kinked.CONVENTION)

    def _at_kink(self) -> bool:
        return any(distance == 0 for distance in self.distances.values())

    def _step(self, moving: Known) -> float:
        """The largest step of differences along a direction; 0 where that leads over a kink at the point itself."""
        return kinked.first_step(self.point.line(self.problem.forward, moving), self.distances)

    def _step_between_kinks(self, line: Line) -> float:
        """A step that crosses no kink but those at the point itself."""
        here = kinked.crossed(line, self.distances, kinked.SMALLEST_STEP * line.unit)
        farther = {node: distance for node, distance in self.distances.items() if node not in here}
        # A node at one kink may have the next one near by: its distance speaks of the first only.
        start = FIRST_STEP / 128 * line.unit if here else None
        return kinked.first_step(line, farther, start) or kinked.SMALLEST_STEP * line.unit

    def _finite(self, number: int) -> bool:
        """Whether gradients are finite; false where a kink or pole is met. Elsewhere they must be."""
        for value, derivative in zip(self.problem.inputs, self.problem.derivatives[number], strict=True):
            got = wide(self.point.values[derivative])
            if not np.isfinite(got).all():
                if self._at_kink():
                    return False
                received = float(got[~np.isfinite(got)][0])
                mismatch = Mismatch(
                    f"gradient of order {number + 1}", f"by {label(value)!r}", "a finite number", received, 0.0
                )
                raise failure("finite", self.function, mismatch, self._blame(number + 1), self.options)
        return True


def _require_same(function: Function, problem: Problem, point: Point, seed: int, error: GradientError) -> None:
    """Raise `TypeError` if the function computes something else when it is traced once more."""
    again = build(function, 1, wide=True)
    other = again.point(function.arrays, seed)
    for old, new in zip(problem.outputs, again.outputs, strict=True):
        if not np.array_equal(point.values[old], other.values[new], equal_nan=True):
            raise TypeError(
                f"{function.name}: Expected a function that computes the same whenever it is traced. Received: one "
                "that is random; draw outside of it, or let it drop nothing (training=False)"
            ) from error


def _hidden(size: np.ndarray, tolerance: np.ndarray | float) -> bool:
    """Whether rounding may be as large as derivatives of these sizes, so that a wrong one passes like a right one.

    0 counts as 1, the size of directions: that it is 0 tells nothing where rounding is larger than that.
    """
    hidden = ~(tolerance < np.where(size > 0, size, 1.0))
    return bool(hidden.any() and not (~hidden & (size > 0)).any())


def _require_finite(function: Function, problem: Problem, point: Point) -> None:
    if not _finite(point, problem.outputs):
        first = next(v for v in problem.forward if v.dtype.is_float and not _finite(point, [v]))
        what = f"argument {label(first)!r}" if isinstance(first.op, Input) else where(first)
        raise NotFiniteError(
            f"{function.name}: Expected arrays at which it is finite. Received: arrays at which {what} is not"
        )


def _finite(point: Point, values: Sequence[Value]) -> bool:
    return all(np.isfinite(wide(point.values[value])).all() for value in values)


def _moved_off_kinks(function: Function, problem: Problem, point: Point, seed: int) -> tuple[Function, Point]:
    """The point, or one near by from which there is more room to walk, and where the function is finite, too."""
    rng = np.random.default_rng([2, seed])
    best, arrays, chosen = -1.0, function.arrays, (function, point)
    for _ in range(TRIES):
        if _finite(point, problem.outputs):
            line = point.line(problem.forward, {x: direction(rng, point.values[x]) for x in problem.inputs})
            room = kinked.first_step(line, kinked.distances(problem.forward, point.values))
            if room > best:
                best, chosen = room, (function.moved_to(arrays), point)
            if room >= NEAR:
                break
        arrays = {name: _nearby(array, rng) for name, array in function.arrays.items()}
        point = problem.point(arrays, seed)
    return chosen


def _nearby(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if array.dtype.kind in "iub":
        return array
    moved = wide(array) + rng.uniform(-1, 1, array.shape) * sizes(array) / 32
    return np.asarray(moved.astype(array.dtype))
