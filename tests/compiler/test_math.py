"""Elementary functions of the loop IR against wider arithmetic, in units in the last place, on every target."""

import decimal
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_runner import CompiledKernel

from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops import math as lm
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Kernel
from gradloom.compiler.types import F32, F64, DType, TensorType

CHUNK = 64
ULPS = 4.0
INF, NAN = math.inf, math.nan


def erf(x: np.ndarray) -> np.ndarray:
    """The error function to 40 digits by its Taylor series, rounded to a long double."""
    with decimal.localcontext(decimal.Context(prec=80, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)):
        pi = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620900")
        results = []
        for value in x.ravel():
            if math.isnan(value) or abs(value) > 7:
                results.append(np.longdouble(np.sign(value)))
                continue
            exact = decimal.Decimal(float(value))
            term = total = exact
            n = 0
            while term and abs(term) > abs(total) * decimal.Decimal("1e-40"):
                n += 1
                term = -term * exact * exact / n
                total += term / (2 * n + 1)
            results.append(np.longdouble(str(2 * total / pi.sqrt())))
    return np.array(results, np.longdouble).reshape(x.shape)


ORACLES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": erf,
    "power": np.power,
}

_compiled: dict[tuple[str, DType, int, str], CompiledKernel] = {}


def function_kernel(name: str, dtype: DType, lanes: int) -> Kernel:
    """y[i] = f(x[i]) over CHUNK elements, `lanes` at a time."""
    b = Builder(name)
    count = 2 if name == "power" else 1
    operands = [b.param(Buffer(f"x{i}", TensorType(dtype, (CHUNK,)))) for i in range(count)]
    result = b.param(Buffer("y", TensorType(dtype, (CHUNK,))))
    with b.vectorized(lanes), b.loop(0, CHUNK, lanes) as loop:
        at = ix.lanes(loop.index, lanes)
        b.store(result, at, getattr(lm, name)(b, *(b.load(operand, at) for operand in operands)))
    return b.kernel(1)


def compute(name: str, dtype: DType, *operands: np.ndarray, lanes: int = 0, level: str = "") -> np.ndarray:
    """f at any number of points, by compiled code; by default in full vectors of the host."""
    target = Target.named(level) if level else Target.host()
    key = name, dtype, lanes or target.lanes_for(dtype), target.level if level else "host"
    if key not in _compiled:
        _compiled[key] = CompiledKernel(function_kernel(name, dtype, key[2]), target)
    size = operands[0].size
    padded = [np.resize(operand.astype(dtype.numpy), -(-size // CHUNK) * CHUNK) for operand in operands]
    result = np.empty_like(padded[0])
    for first in range(0, result.size, CHUNK):
        part = slice(first, first + CHUNK)
        _compiled[key](*(operand[part] for operand in padded), result[part])
    return result[:size]


def ulps(name: str, actual: np.ndarray, *operands: np.ndarray) -> np.ndarray:
    """How many units in the last place each result is off; 0 where both are the same special value."""
    dtype = actual.dtype
    wide = [operand.astype(dtype).astype(np.longdouble) for operand in operands]
    with np.errstate(all="ignore"):
        expected = ORACLES[name](*wide)
        rounded = expected.astype(dtype)
        smallest = np.finfo(dtype).smallest_subnormal
        unit = np.maximum(np.spacing(np.abs(np.nextafter(rounded, dtype.type(0)))), smallest).astype(np.longdouble)
        error = np.abs(actual.astype(np.longdouble) - expected) / unit
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(error), 0, error).astype(float)


def assert_close(name: str, dtype: DType, *operands: np.ndarray, **where: object) -> None:
    operands = tuple(operand.astype(dtype.numpy) for operand in operands)
    actual = compute(name, dtype, *operands, **where)
    error = ulps(name, actual, *operands)
    error = np.where(np.isnan(error), np.inf, error)
    worst = int(error.argmax())
    assert error[worst] <= ULPS, (
        f"{name} of {[float(o[worst]) for o in operands]}: {error[worst]:.2f} ulp off, got {float(actual[worst])!r}"
    )


RANGES = {
    "exp": {F32: (-104.5, 89.5), F64: (-747, 711)},
    "expm1": {F32: (-25, 89.5), F64: (-45, 711)},
    "tanh": {F32: (-11, 11), F64: (-22, 22)},
    "sigmoid": {F32: (-105, 90), F64: (-747, 711)},
    "erf": {F32: (-4.5, 4.5), F64: (-6.5, 6.5)},
    "log": {F32: (0, 10), F64: (0, 10)},
    "log1p": {F32: (-1, 10), F64: (-1, 10)},
}


@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", RANGES)
def test_functions_are_within_four_ulp(name: str, dtype: DType) -> None:
    rng = np.random.default_rng(1)
    count = 3_000 if name == "erf" else 40_000
    low, high = RANGES[name][dtype]
    info = np.finfo(dtype.numpy)
    sweep = np.linspace(low, high, count)
    # Every magnitude that there is, subnormals included.
    sizes = 2.0 ** rng.uniform(math.log2(float(info.smallest_subnormal)), info.maxexp - 0.01, count)
    magnitudes = sizes * rng.choice([-1.0, 1.0], count)
    near_one = 1 + np.linspace(-1e-3, 1e-3, count)
    assert_close(name, dtype, np.concatenate([sweep, magnitudes, near_one, -near_one]))


@pytest.mark.parametrize("level", host_levels())
@pytest.mark.parametrize("lanes", [1, 0], ids=["scalar", "vector"])
@pytest.mark.parametrize("name", RANGES)
def test_functions_hold_on_every_target(name: str, lanes: int, level: str) -> None:
    rng = np.random.default_rng(2)
    for dtype in (F32, F64):
        low, high = RANGES[name][dtype]
        assert_close(name, dtype, rng.uniform(low, high, 512), lanes=lanes, level=level)


@pytest.mark.parametrize("level", host_levels())
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_power_is_within_four_ulp(dtype: DType, level: str) -> None:
    rng = np.random.default_rng(3)
    info = np.finfo(dtype.numpy)
    count = 8_192
    base = 2.0 ** rng.uniform(info.minexp - info.nmant, info.maxexp - 0.01, count)
    # Exponents that bring the result anywhere between the subnormals and overflow.
    exponent = rng.uniform(info.minexp - info.nmant, info.maxexp, count) / np.log2(base)
    assert_close("power", dtype, base, exponent, level=level)
    near_one = 1 + rng.uniform(-0.3, 0.4, count)
    exponent = rng.uniform(info.minexp, info.maxexp, count) / np.log2(near_one)
    assert_close("power", dtype, near_one, exponent, level=level)
    assert_close("power", dtype, -rng.uniform(0, 20, count), rng.integers(-60, 60, count).astype(float), level=level)


SPECIAL = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e30, -1e30, 1e-30, -1e-30]


@pytest.mark.parametrize("lanes", [1, 0], ids=["scalar", "vector"])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", ORACLES)
def test_special_values(name: str, dtype: DType, lanes: int) -> None:
    info = np.finfo(dtype.numpy)
    values = np.array([*SPECIAL, info.max, -info.max, info.smallest_subnormal, -info.smallest_subnormal, info.tiny])
    operands = (values,)
    if name == "power":
        operands = tuple(grid.ravel() for grid in np.meshgrid(values, values))
    operands = tuple(operand.astype(dtype.numpy) for operand in operands)
    actual = compute(name, dtype, *operands, lanes=lanes)
    with np.errstate(all="ignore"):
        expected = ORACLES[name](*operands).astype(dtype.numpy)
    exact = np.isnan(expected) | np.isinf(expected) | (expected == 0)
    np.testing.assert_array_equal(np.where(exact, actual, 0), np.where(exact, expected, 0))
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(actual[zero]), np.signbit(expected[zero]))
    assert_close(name, dtype, *operands, lanes=lanes)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=CHUNK), st.sampled_from(sorted(ORACLES)))
def test_any_float_gives_what_numpy_gives(values: list[float], name: str) -> None:
    x = np.array(values, np.float32)
    operands = (x, x[::-1].copy()) if name == "power" else (x,)
    assert_close(name, F32, *operands)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=CHUNK), st.sampled_from(sorted(set(ORACLES) - {"erf"})))
def test_any_double_gives_what_numpy_gives(values: list[float], name: str) -> None:
    x = np.array(values, np.float64)
    operands = (x, x[::-1].copy()) if name == "power" else (x,)
    assert_close(name, F64, *operands)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=CHUNK))
def test_sigmoid_and_tanh_stay_in_bounds_and_are_monotonic(values: list[float]) -> None:
    x = np.sort(np.array([value for value in values if not math.isnan(value)] or [0.0], np.float32))
    for name, low, high in (("sigmoid", 0, 1), ("tanh", -1, 1), ("erf", -1, 1)):
        y = compute(name, F32, x)
        assert np.all((y >= low) & (y <= high)), name
        # Neighbours may be swapped by rounding, by no more than the error allowed.
        assert np.all(np.diff(y) >= -2 * ULPS * np.spacing(np.float32(np.abs(y).max(initial=0)))), name
