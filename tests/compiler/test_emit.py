"""Every opcode of the loop IR against NumPy, in scalars and vectors, on every instruction set this machine runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from kernel_runner import CompiledKernel, run_kernel

from gradloom.compiler.errors import VerificationError
from gradloom.compiler.llvm import codegen
from gradloom.compiler.llvm.target import Target, host_levels
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import OPCODES, Buffer, Expr, VType
from gradloom.compiler.ops.base import for_arithmetic
from gradloom.compiler.types import BF16, BOOL, DTYPES, F32, F64, I32, I64, U8, DType, TensorType

COUNT = 48
LEVELS = [pytest.param(level, id=level) for level in host_levels()]
INTEGERS, FLOATS = (U8, I32, I64), (F32, F64)
_compiled: dict[tuple[object, ...], CompiledKernel] = {}


def lanes_of(width: str, level: str) -> int:
    return 1 if width == "scalar" else Target.named(level).lanes


def elementwise(name: str, operands: list[np.ndarray], result: DType, emit, width: str, level: str) -> np.ndarray:
    """emit(b, *values) on each element; kernels are compiled once."""
    key = name, width, level, result, *(operand.dtype for operand in operands)
    if key not in _compiled:
        lanes = lanes_of(width, level)
        b = Builder("elementwise")
        types = [next(d for d in DTYPES if d.numpy == operand.dtype) for operand in operands]
        sources = [b.param(Buffer(f"x{i}", TensorType(dtype, (COUNT,)))) for i, dtype in enumerate(types)]
        target = b.param(Buffer("y", TensorType(result, (COUNT,))))
        with b.vectorized(lanes), b.loop(0, COUNT, lanes) as loop:
            at = ix.lanes(loop.index, lanes)
            b.store(target, at, emit(b, *(b.load(source, at) for source in sources)))
        _compiled[key] = CompiledKernel(b.kernel(1), Target.named(level))
    y = np.zeros(COUNT, result.numpy)
    _compiled[key](*operands, y)
    return y


def arrays(dtype: DType) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any values, with the awkward ones frequent."""
    if dtype == BOOL:
        return hnp.arrays(np.bool_, COUNT)
    if dtype == BF16:
        return hnp.arrays(np.uint16, COUNT).map(lambda bits: bits.view(BF16.numpy))
    if dtype.is_float:
        special = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            np.inf,
            -np.inf,
            np.nan,
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            2.0**31,
            -(2.0**31) - 1,
            1e30,
        ]
        return hnp.arrays(
            dtype.numpy,
            COUNT,
            elements=st.one_of(st.sampled_from(special), st.floats(width=dtype.bits)),
            fill=st.nothing(),
        )
    info = np.iinfo(dtype.numpy)
    special = [value for value in (0, 1, -1, 2, 3, info.min, info.max) if info.min <= value <= info.max]
    values = st.one_of(st.sampled_from(special), st.integers(int(info.min), int(info.max)))
    return hnp.arrays(dtype.numpy, COUNT, elements=values, fill=st.nothing())


def rounded(function):
    return lambda *x: function(*x).astype(x[0].dtype)


def divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Integer quotient toward zero, 0 for a zero divisor."""
    quotients = [0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a, b in pairs(x, y)]
    return wrapped(quotients, x.dtype)


def remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return wrapped([0 if b == 0 else abs(a) % abs(b) * (-1 if a < 0 else 1) for a, b in pairs(x, y)], x.dtype)


def pairs(x: np.ndarray, y: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def wrapped(values: list[int], dtype: np.dtype) -> np.ndarray:
    bits = dtype.itemsize * 8
    unsigned = np.array([value % 2**bits for value in values], dtype=f"u{dtype.itemsize}")
    return unsigned.view(dtype)


def shift_right(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = x.dtype.itemsize * 8
    return wrapped([a % 2**bits >> (b % bits) for a, b in pairs(x, y)], x.dtype)


def shift_left(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    bits = x.dtype.itemsize * 8
    return wrapped([a << (b % bits) for a, b in pairs(x, y)], x.dtype)


ARITHMETIC = tuple(dtype for dtype in DTYPES if dtype != BF16)
BINARY = {
    "add": (np.add, (*INTEGERS, *FLOATS)),
    "sub": (np.subtract, (*INTEGERS, *FLOATS)),
    "mul": (np.multiply, (*INTEGERS, *FLOATS)),
    "div": (lambda x, y: np.divide(x, y) if x.dtype.kind == "f" else divide(x, y), (*INTEGERS, *FLOATS)),
    "rem": (remainder, INTEGERS),
    "min": (np.minimum, ARITHMETIC),
    "max": (np.maximum, ARITHMETIC),
    "and": (np.bitwise_and, (BOOL, *INTEGERS)),
    "or": (np.bitwise_or, (BOOL, *INTEGERS)),
    "xor": (np.bitwise_xor, (BOOL, *INTEGERS)),
    "shl": (shift_left, INTEGERS),
    "shr": (shift_right, INTEGERS),
}
COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip
UNARY = {
    "neg": (np.negative, (*INTEGERS, *FLOATS)),
    "abs": (np.abs, (*INTEGERS, *FLOATS)),
    "sqrt": (np.sqrt, FLOATS),
    "floor": (rounded(np.floor), (*INTEGERS, *FLOATS)),
    "ceil": (rounded(np.ceil), (*INTEGERS, *FLOATS)),
    "round": (rounded(np.round), (*INTEGERS, *FLOATS)),
    "not": (np.logical_not, (BOOL,)),
}


def cases(table: dict[str, tuple[object, tuple[DType, ...]]]) -> list[object]:
    return [pytest.param(op, dtype, id=f"{op}-{dtype}") for op, (_, dtypes) in table.items() for dtype in dtypes]


def check(name: str, operands: list[np.ndarray], result: DType, emit, expected: np.ndarray) -> None:
    for level in host_levels():
        for width in ("scalar", "vector"):
            actual = elementwise(name, operands, result, emit, width, level)
            np.testing.assert_array_equal(
                *for_arithmetic(actual, expected), err_msg=f"{name} {operands} {width} {level}"
            )


quick = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize(("op", "dtype"), cases(BINARY))
@quick
@given(data=st.data())
def test_binary(op: str, dtype: DType, data: st.DataObject) -> None:
    x, y = data.draw(arrays(dtype)), data.draw(arrays(dtype))
    with np.errstate(all="ignore"):
        expected = BINARY[op][0](x, y)
    check(op, [x, y], dtype, lambda b, x, y: b.binary(op, x, y), expected)


@pytest.mark.parametrize("dtype", ARITHMETIC, ids=str)
@pytest.mark.parametrize("op", COMPARE)
@quick
@given(data=st.data())
def test_compare(op: str, dtype: DType, data: st.DataObject) -> None:
    x, y = data.draw(arrays(dtype)), data.draw(arrays(dtype))
    y = np.where(np.arange(COUNT) % 3 == 0, x, y)
    check(op, [x, y], BOOL, lambda b, x, y: b.compare(op, x, y), COMPARE[op](x, y))


@pytest.mark.parametrize(("op", "dtype"), cases(UNARY))
@quick
@given(data=st.data())
def test_unary(op: str, dtype: DType, data: st.DataObject) -> None:
    x = data.draw(arrays(dtype))
    with np.errstate(all="ignore"):
        expected = UNARY[op][0](x)
    check(op, [x], dtype, lambda b, x: b.unary(op, x), expected)


def saturating(x: np.ndarray, dtype: DType) -> np.ndarray:
    """What `convert` means, said with Python integers."""
    if x.dtype == BF16.numpy:
        x = x.astype(np.float32)
    if dtype == BF16:
        return x.astype(np.float32).astype(BF16.numpy)
    if dtype == BOOL:
        return x != 0
    if x.dtype.kind != "f" or dtype.is_float:
        return x.astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    whole = [0 if np.isnan(v) else int(np.clip(v, -1e30, 1e30)) for v in x.tolist()]
    return np.array([min(max(v, int(info.min)), int(info.max)) for v in whole], dtype.numpy)


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
@quick
@given(data=st.data())
def test_convert(source: DType, target: DType, data: st.DataObject) -> None:
    x = data.draw(arrays(source))
    with np.errstate(all="ignore"):
        expected = saturating(x, target)
    check("convert", [x], target, lambda b, x: b.convert(x, target), expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@quick
@given(data=st.data())
def test_fma_rounds_once_or_twice(dtype: DType, data: st.DataObject) -> None:
    x, y, z = (data.draw(arrays(dtype)) for _ in range(3))
    with np.errstate(all="ignore"):
        twice = x * y + z
        if dtype == F32:
            wide = x.astype(np.float64) * y.astype(np.float64)
            exact = wide.astype(np.longdouble) + z
            once = exact.astype(np.float32)
    for level in host_levels():
        for width in ("scalar", "vector"):
            actual = elementwise("fma", [x, y, z], dtype, lambda b, *x: b.fma(*x), width, level)
            if not Target.named(level).has_fma:
                np.testing.assert_array_equal(actual, twice)
            elif dtype == F32:
                np.testing.assert_array_max_ulp(np.nan_to_num(actual, nan=1), np.nan_to_num(once, nan=1), 1)


def test_fma_is_fused_where_the_target_can() -> None:
    x = np.full(COUNT, 1 + 2.0**-30)
    z = np.full(COUNT, -1 - 2.0**-29)
    for level in host_levels():
        exact = 2.0**-60 if Target.named(level).has_fma else 0.0
        for width in ("scalar", "vector"):
            actual = elementwise("fma", [x, x, z], F64, lambda b, *x: b.fma(*x), width, level)
            np.testing.assert_array_equal(actual, exact)


@quick
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_select_and_bitcast(data: st.DataObject, dtype: DType) -> None:
    condition, x, y = data.draw(arrays(BOOL)), data.draw(arrays(dtype)), data.draw(arrays(dtype))
    check("select", [condition, x, y], dtype, lambda b, c, x, y: b.select(c, x, y), np.where(condition, x, y))
    bits = data.draw(arrays(I32))
    actual = elementwise("bitcast", [bits], F32, lambda b, x: b.bitcast(x, F32), "vector", host_levels()[-1])
    np.testing.assert_array_equal(actual.view(np.int32), bits)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("divisor", [1, 3, -3, 7, 0, -1])
@pytest.mark.parametrize("dtype", [I32, I64], ids=str)
def test_division_by_literals(dtype: DType, divisor: int, level: str) -> None:
    info = np.iinfo(dtype.numpy)
    x = np.resize(np.array([0, 1, -1, 2, 20, -20, info.min, info.max, info.min + 1], dtype.numpy), COUNT)
    y = np.full_like(x, divisor)
    for op, oracle in (("div", divide), ("rem", remainder)):
        for width in ("scalar", "vector"):
            name = f"{op} {divisor}"
            actual = elementwise(name, [x], dtype, lambda b, x, op=op: b.binary(op, x, divisor), width, level)
            np.testing.assert_array_equal(actual, oracle(x, y))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [F32, F64, I32, I64, U8], ids=str)
@pytest.mark.parametrize("op", ["add", "mul", "min", "max"])
def test_reduce_is_a_tree_of_halves(op: str, dtype: DType, level: str) -> None:
    lanes = 16
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(lanes) * 5).astype(dtype.numpy)
    b = Builder("reduce")
    source, target = b.param(Buffer("x", TensorType(dtype, (lanes,)))), b.param(Buffer("y", TensorType(dtype, ())))
    with b.vectorized(lanes):
        b.store(target, 0, b.reduce(op, b.load(source, ix.lanes(ix.constant(0), lanes))))
    y = np.zeros((), dtype.numpy)
    run_kernel(b.kernel(1), x, y, target=Target.named(level))
    expected = x
    combine = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[op]
    with np.errstate(over="ignore"):
        while expected.size > 1:
            expected = combine(expected[: expected.size // 2], expected[expected.size // 2 :])
    assert y == expected[0]


def test_reduce_of_bools_extract_and_iota() -> None:
    b = Builder("lanes")
    any_, all_ = (b.param(Buffer(name, TensorType(BOOL, ()))) for name in ("any", "all"))
    third = b.param(Buffer("third", TensorType(I64, ())))
    flags = b.compare("gt", b.iota(8), 6)
    b.store(any_, 0, b.reduce("or", flags))
    b.store(all_, 0, b.reduce("and", flags))
    b.store(third, 0, b.extract(b.mul(b.iota(8), 10), 3))
    results = [np.zeros((), np.bool_), np.ones((), np.bool_), np.zeros((), np.int64)]
    run_kernel(b.kernel(1), *results)
    assert [int(result) for result in results] == [1, 0, 30]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("space", ["param", "scratch", "stack"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_accesses_touch_active_lanes_only(dtype: DType, space: str, level: str) -> None:
    """Copies the first lanes of a vector through memory of each kind; what lies behind them stays as it was."""
    lanes = 16
    for active in (1, 3, 8, 13, 16):
        b = Builder("masked")
        source = b.param(Buffer("x", TensorType(dtype, (lanes,))))
        target = b.param(Buffer("y", TensorType(dtype, (lanes,))))
        behind = b.param(Buffer("z", TensorType(dtype, (lanes,))))
        middle = target if space == "param" else b.allocate(Buffer("t", TensorType(dtype, (lanes,)), space))
        at = ix.lanes(ix.constant(0), lanes)
        with b.vectorized(lanes):
            b.store(middle, at, b.const(1, dtype, lanes))
        with b.vectorized(lanes, active):
            loaded = b.load(source, at)
            b.store(middle, at, loaded)
        with b.vectorized(lanes):
            b.store(behind, at, loaded)
            if middle is not target:
                b.store(target, at, b.load(middle, at))
        x = np.arange(3, 3 + lanes).astype(dtype.numpy)
        y, z = np.zeros(lanes, dtype.numpy), np.zeros(lanes, dtype.numpy)
        run_kernel(b.kernel(1), x, y, z, target=Target.named(level))
        np.testing.assert_array_equal(y, np.where(np.arange(lanes) < active, x, np.ones(lanes, dtype.numpy)))
        np.testing.assert_array_equal(z, np.where(np.arange(lanes) < active, x, np.zeros(lanes, dtype.numpy)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("active", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gather_and_scatter(dtype: DType, active: int | None, level: str) -> None:
    lanes, size = 8, 40
    b = Builder("scattered")
    source, target = (b.param(Buffer(name, TensorType(dtype, (size,)))) for name in ("x", "y"))
    rows = b.param(Buffer("rows", TensorType(I64, (lanes,))))
    with b.vectorized(lanes):
        offsets = b.index(b.load(rows, ix.lanes(ix.constant(0), lanes)))
    with b.vectorized(lanes, active):
        b.store(target, ix.lanes(ix.constant(1), lanes, 5), b.load(source, offsets))
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2 if dtype == BOOL else 100, size).astype(dtype.numpy)
    y = np.zeros(size, dtype.numpy)
    places = rng.permutation(size)[:lanes]
    if active is not None:
        places[active:] = 1 << 40  # what must not be read
    run_kernel(b.kernel(1), x, y, places.astype(np.int64), target=Target.named(level))
    count = lanes if active is None else active
    expected = np.zeros(size, dtype.numpy)
    expected[1 : 1 + 5 * count : 5] = x[places[:count]]
    np.testing.assert_array_equal(y, expected)


@given(st.integers(-5, 12), st.integers(-5, 12), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_loops_run_as_python_ranges_do(start: int, stop: int, step: int) -> None:
    """With bounds known to the compiler, and with bounds loaded at run time."""
    for constant in (True, False):
        b = Builder("range")
        bounds = b.param(Buffer("bounds", TensorType(I64, (2,))))
        y = b.param(Buffer("y", TensorType(I64, (2,))))
        first, last = (start, stop) if constant else (b.load(bounds, 0), b.load(bounds, 1))
        with b.loop(first, last, step, [b.const(0, I64), b.const(7, I64)]) as loop:
            index = b.expr(loop.index)
            loop.next(b.add(loop.carried[0], 1), b.add(b.mul(loop.carried[1], 3), index))
        for place, result in enumerate(loop.results):
            b.store(y, place, result)
        count, value = 0, 7
        for i in range(start, stop, step):
            count, value = count + 1, 3 * value + i
        y_array = np.zeros(2, np.int64)
        run_kernel(b.kernel(1), np.array([start, stop]), y_array)
        assert y_array.tolist() == [count, value]


def test_conditions_and_shares_of_blocks() -> None:
    b = Builder("even")
    y = b.param(Buffer("y", TensorType(I32, (10,))))
    with b.parallel(10) as block:
        even = b.compare("eq", b.binary("rem", b.expr(block.index), 2), 0)
        with b.when(even):
            b.store(y, block.index, b.const(1, I32))
    kernel = CompiledKernel(b.kernel(10))
    result = np.zeros(10, np.int32)
    kernel(result, begin=3, end=9)
    assert result.tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 1, 0]


def test_stack_buffers_become_registers() -> None:
    b = Builder("tile")
    x, y = (b.param(Buffer(name, TensorType(F32, (32,)))) for name in ("x", "y"))
    tile = b.allocate(Buffer("tile", TensorType(F32, (32,)), "stack"))
    with b.vectorized(16):
        for first in (0, 16):
            b.store(tile, ix.lanes(ix.constant(first), 16), b.load(x, ix.lanes(ix.constant(first), 16)))
        for first in (0, 16):
            b.store(y, ix.lanes(ix.constant(first), 16), b.load(tile, ix.lanes(ix.constant(16 - first), 16)))
    kernel = CompiledKernel(b.kernel(1))
    assert "alloca" not in codegen.llvm_text(kernel.module, kernel.target)
    data, result = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    kernel(data, result)
    np.testing.assert_array_equal(result, np.concatenate([data[16:], data[:16]]))


def test_scratch_buffers_lie_side_by_side() -> None:
    b = Builder("scratch")
    y = b.param(Buffer("y", TensorType(F32, (2,))))
    one = b.allocate(Buffer("one", TensorType(U8, (70,)), "scratch"))
    other = b.allocate(Buffer("other", TensorType(F32, (3,)), "scratch"))
    b.store(other, 0, b.const(2.5, F32))
    with b.loop(0, 70) as loop:
        b.store(one, loop.index, b.const(9, U8))
    b.store(y, 0, b.load(other, 0))
    b.store(y, 1, b.convert(b.load(one, 69), F32))
    result = np.zeros(2, np.float32)
    run_kernel(b.kernel(1), result)
    assert result.tolist() == [2.5, 9.0]


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-45, 3.4028235e38, float("inf"), float("nan"), float("-inf")])
@pytest.mark.parametrize("lanes", [1, 16])
def test_literals_keep_their_bits(value: float, lanes: int) -> None:
    b = Builder("literal")
    y = b.param(Buffer("y", TensorType(F32, (lanes,))))
    with b.vectorized(lanes):
        b.store(y, ix.lanes(ix.constant(0), lanes) if lanes > 1 else 0, b.const(value, F32, lanes))
    result = np.zeros(lanes, np.float32)
    run_kernel(b.kernel(1), result)
    np.testing.assert_array_equal(result.view(np.int32), np.full(lanes, value, np.float32).view(np.int32))


def test_a_generation_is_counted() -> None:
    before = codegen.compilations
    b = Builder("counted")
    b.store(b.param(Buffer("y", TensorType(F32, ()))), 0, b.const(1.0, F32))
    run_kernel(b.kernel(1), np.zeros((), np.float32))
    assert codegen.compilations == before + 1


def test_defects_of_a_kernel_are_named() -> None:
    b = Builder("broken")
    y = b.param(Buffer("y", TensorType(F32, ())))
    with b.loop(0, 3):
        inner = b.unary("sqrt", b.load(y, 0))
    stray = b.unary("neg", Expr("var", VType(F32), (), "nowhere"))
    b.store(y, 0, b.add(inner, stray))
    with pytest.raises(VerificationError, match="broken: var of f32 is read where it is not defined"):
        run_kernel(b.kernel(1), np.zeros((), np.float32))
    b = Builder("unknown")
    y = b.param(Buffer("y", TensorType(F32, ())))
    b.store(y, 0, b.unary("gamma", b.load(y, 0)))
    with pytest.raises(VerificationError, match="unknown: LLVM emission knows no 'gamma' of f32"):
        run_kernel(b.kernel(1), np.zeros((), np.float32))


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_dot2_of_words_with_two_numbers_each(lanes: int) -> None:
    """Small integers are exact in bf16, and so are the sums of their products."""
    b = Builder("dot2")
    x, y = (b.param(Buffer(name, TensorType(I32, (lanes,)))) for name in "xy")
    z = b.param(Buffer("z", TensorType(F32, (lanes,))))
    with b.vectorized(lanes):
        at = ix.lanes(ix.constant(0), lanes)
        # A word that is the same for all lanes is broadcast.
        b.store(z, at, b.dot2(b.load(x, 0), b.load(y, at), b.load(z, at)))
    rng = np.random.default_rng(lanes)
    left, right = rng.integers(-100, 100, (2, lanes, 2))
    total = rng.integers(-100, 100, lanes).astype(np.float32)
    expected = total + (left[0] * right).sum(1)
    words = [(side.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.int32) for side in (left, right)]
    run_kernel(b.kernel(1), words[0].reshape(-1), words[1].reshape(-1), total)
    np.testing.assert_array_equal(total, expected)


def test_every_opcode_is_tested() -> None:
    here = {
        *BINARY,
        *COMPARE,
        *UNARY,
        "const",
        "var",
        "fma",
        "dot2",
        "select",
        "convert",
        "bitcast",
        "broadcast",
        "iota",
    }
    assert here | {"reduce", "extract", "load"} == set(OPCODES)
