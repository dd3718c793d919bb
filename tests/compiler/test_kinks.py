"""Kinks of ops: how far they are, and that gradients at them are the ones that ops document."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradloom.compiler.autodiff import gradients
from gradloom.compiler.errors import NoGradientError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.ops.arithmetic import Divide, FloorDivide, Maximum, Minimum, Power, Remainder
from gradloom.compiler.ops.base import TensorOp
from gradloom.compiler.ops.comparison import Greater, NotEqual
from gradloom.compiler.ops.elementwise import Absolute, Ceil, Convert, Exp, Floor, Log1p, Round, Sign, Sqrt
from gradloom.compiler.ops.pooling import MaxPool
from gradloom.compiler.ops.reductions import Max, Min
from gradloom.compiler.types import BOOL, F64, I32, TensorType
from op_cases import CASES, OpCase

X = np.array([[0.75, -2.25, 4.0], [-0.5, 3.0, 1.25]])
Y = np.array([0.5, -2.0, 3.0])


@pytest.mark.parametrize(
    ("op", "operands", "distance"),
    [
        (Exp(), (X,), math.inf),
        (Absolute(), (X,), 0.5),
        (Sign(), (X,), 0.5),
        (Floor(), (X - 0.1,), 0.1),
        (Ceil(), (X[0],), 0.0),
        (Round(), (X,), 0.0),
        (Round(), (np.array([0.75]),), 0.25),
        (Sqrt(), (np.array([4.0, 0.5]),), 0.5),
        (Log1p(), (np.array([-0.75]),), 0.25),
        (Divide(), (X, Y), 0.5),
        (Maximum(), (X, Y), 0.125),
        (Minimum(), (X, X), 0.0),
        (Greater(), (X, Y), 0.125),
        (NotEqual(), (X, X), math.inf),
        (Power(), (np.array([0.25]), np.array([2.0])), math.inf),
        (Power(), (np.array([0.25]), np.array([0.5])), 0.25),
        (FloorDivide(), (np.array([5.0]), np.array([2.0])), 0.5 * 2 / 4.5),
        (Remainder(), (np.array([6.0]), np.array([2.0])), 0.0),
        (Max((1,)), (X,), 0.875),
        (Max((0, 1)), (X,), 0.5),
        (Min((0,)), (X,), 0.625),
        (Max((0,)), (X[:1],), math.inf),
        (Max((1,)), (X[:0],), math.inf),
        (Min((1,)), (X[:, :0],), math.inf),
        (MaxPool((1, 2), (1, 2)), (X.reshape(1, 2, 3, 1)[:, :, :2],), 1.5),
        (Convert(I32), (np.array([0.25, 1.75]),), 0.25),
        (Convert(BOOL), (np.array([0.25]),), 0.25),
    ],
    ids=lambda value: value.name if isinstance(value, TensorOp) else "",
)
def test_distance_to_the_next_kink(op: TensorOp, operands: tuple[np.ndarray, ...], distance: float) -> None:
    assert op.kink_distance(*operands) == pytest.approx(distance)


def kinked(case: OpCase) -> bool:
    """Whether an op of floats says what its gradient is at kinks."""
    arrays = list(case.sample(0).values())
    tangents = [np.zeros(array.shape) for array in arrays]
    return isinstance(case.op, TensorOp) and case.op.at_kink(arrays, tangents) is not None


KINKED = [case.in_float64() for case in CASES if any(t.dtype.is_float for t in case.operands) and case.operands]
KINKED = [case for case in KINKED if all(t.dtype == F64 for t in case.operands) and kinked(case)]


def test_the_ops_with_conventions_are_all_here() -> None:
    assert {case.op.name for case in KINKED} == {
        *("absolute", "sign", "floor", "ceil", "round", "maximum", "minimum", "max", "min", "max_pool"),
        *("floor_divide", "remainder"),
    }


@pytest.mark.parametrize("case", KINKED, ids=lambda case: case.name)
def test_gradients_at_kinks_are_the_documented_ones(case: OpCase) -> None:
    rng = np.random.default_rng(0)
    graph = Graph()
    operands = [graph.input(f"x{n}", TensorType(F64, type_.shape)) for n, type_ in enumerate(case.operands)]
    result = graph.apply(case.op, *operands)
    upstream = graph.input("upstream", result.type)
    try:
        found = gradients([result], operands, [upstream])
    except NoGradientError:
        pytest.fail("an op with kinks has a gradient")
    for place, value in enumerate(found):
        graph.output(f"d{place}", value)
    # Few different numbers, so that there are ties, zeros, integers and halves; no division by 0.
    arrays = {f"x{n}": rng.integers(-3, 4, type_.shape) / 2 for n, type_ in enumerate(case.operands)}
    if isinstance(case.op, FloorDivide | Remainder):
        arrays["x1"] = np.where(arrays["x1"] == 0, 2.0, arrays["x1"])
    arrays["upstream"] = rng.normal(size=result.shape)
    cotangents = interpret(graph, arrays)
    values = [arrays[f"x{n}"] for n in range(len(operands))]
    assert isinstance(case.op, TensorOp) and case.op.kink_distance(*values) == 0
    tangents = [rng.normal(size=value.shape) for value in values]
    along = case.op.at_kink(values, tangents)
    assert along is not None
    expected = np.sum(arrays["upstream"] * along)
    received = sum(np.sum(cotangents[f"d{n}"] * tangent) for n, tangent in enumerate(tangents))
    np.testing.assert_allclose(received, expected, rtol=1e-12, atol=1e-12)
