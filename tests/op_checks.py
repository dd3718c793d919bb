"""How the compiled result of an op is compared with its reference: bits where it is exact, else the promised bound."""

import numpy as np

from gradloom.compiler.ops.arithmetic import Maximum, Minimum, Remainder
from gradloom.compiler.ops.base import for_arithmetic
from gradloom.compiler.ops.convolution import Conv2DInputGrad
from gradloom.compiler.ops.elementwise import Sign
from gradloom.compiler.ops.pooling import Pooling
from gradloom.compiler.ops.reductions import Extremum, Prod
from gradloom.compiler.ops.winograd import WinogradConv2D, WinogradConv2DKernelGrad, WinogradKernel
from gradloom.compiler.types import as_dtype
from op_cases import OpCase

ZERO_OF_ANY_SIGN = (Maximum, Minimum, Extremum, Pooling, Sign)
"""Ops that promise no sign of a zero result."""

ON_TILES = (WinogradKernel, WinogradConv2D, WinogradConv2DKernelGrad)
"""Ops whose transforms add and subtract: their error is one of the largest result, not of each."""

FOR_FINITE = (Conv2DInputGrad, *ON_TILES)
"""Ops that need not make NaN of infinite operands as the reference does.

At the edges, the first multiplies weights by the zeros around the cotangent, where the reference adds nothing; of the
others, the whole tile may become NaN.
"""


def sample(case: OpCase, seed: int, special: bool) -> dict[str, np.ndarray]:
    """Operands; of what is summed or multiplied in no fixed order, none so large or small that the order matters."""
    arrays = case.sample(seed, special and not isinstance(case.op, FOR_FINITE))
    if case.length > 1 or isinstance(case.op, Prod):
        for array in arrays.values():
            if as_dtype(array.dtype).is_float:
                size = np.abs(*for_arithmetic(array))
                array[(size > 0) & (size < 1e-3)] = 1
                array[np.isfinite(size) & (size > 1e3)] = 1
    return arrays


def check_case(case: OpCase, got: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    """Compare with the reference: bits where the op is exact, the promised bound elsewhere."""
    operands = list(arrays.values())
    expected = reference(case, operands)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    got, expected = for_arithmetic(got, expected)
    if got.dtype.kind != "f" or (case.ulps == 0 and case.length == 1):
        np.testing.assert_array_equal(got, expected)
        if got.dtype.kind == "f" and not isinstance(case.op, ZERO_OF_ANY_SIGN):
            np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(expected[got == 0]))
        return
    with np.errstate(over="ignore"):
        _check_close(case, got, expected, operands)


def _check_close(case: OpCase, got: np.ndarray, expected: np.ndarray, operands: list[np.ndarray]) -> None:
    # The reference itself is off by a few units.
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    bound = (case.ulps + 4) * np.spacing(np.abs(expected[finite]))
    if isinstance(case.op, Remainder):
        bound = ((case.ulps + 4) * np.spacing(np.abs(operands[0]) + np.abs(operands[1])))[finite]
    if case.length > 1:
        total = reference(case, [np.abs(x) if as_dtype(x.dtype).is_float else x for x in operands])
        if isinstance(case.op, ON_TILES):
            total = np.full_like(expected, np.abs(expected).max())
        bound = (case.length + 2) * np.finfo(got.dtype).eps * total[finite]
    error = np.abs(got[finite] - expected[finite])
    assert np.all(error <= bound), (got[finite][error > bound], expected[finite][error > bound])


def reference(case: OpCase, operands: list[np.ndarray]) -> np.ndarray:
    result: np.ndarray = case.op.reference(*operands)  # type: ignore[attr-defined]
    return result
