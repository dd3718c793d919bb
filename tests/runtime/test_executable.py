"""Running programs: steps, indices, state in place, layouts, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from handmade import elementwise_kernel, gather_kernel, make_program, tensor
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler.program import Argument, Call, Pointer, Program
from gradloom.compiler.types import F32, I32, I64, OPEN
from gradloom.runtime.binding import ArgumentError, RowError
from gradloom.runtime.executable import Executable


def increment_program() -> Program:
    """A step takes `state` ← `state` + `by`, through the arena."""
    kernels = [
        elementwise_kernel("increment", 5, lambda b, x, y: b.add(x, y), 2),
        elementwise_kernel("copy", 5, lambda b, x: x, 1),
    ]
    state, by, sum_ = Pointer("argument", 0), Pointer("argument", 1), Pointer("arena", 64)
    schedule = [Call("increment", (state, by, sum_), 5), Call("copy", (sum_, state), 5)]
    arguments = [Argument("state", tensor(I64, 5), "state", written=True), Argument("by", tensor(I64, 5))]
    return make_program(kernels, schedule, arguments, 128)


def gather_program(batch: int, width: int) -> Program:
    """A step adds the rows of `data` that its part of `rows` names to `total`."""
    schedule = [Call("gather", tuple(Pointer("argument", n) for n in range(3)), width)]
    arguments = [
        Argument("data", tensor(F32, OPEN, width), "data"),
        Argument("rows", tensor(I32, batch), "indices"),
        Argument("total", tensor(F32, width), "state", written=True),
    ]
    return make_program([gather_kernel("gather", batch, width)], schedule, arguments)


def layout_program() -> Program:
    """`y` ← `x` + `y` on matrices that the caller keeps transposed."""
    kernels = [
        elementwise_kernel("add", 6, lambda b, x, y: b.add(x, y), 2),
        elementwise_kernel("copy", 6, lambda b, x: x, 1),
    ]
    x, y, sum_ = Pointer("argument", 0), Pointer("argument", 1), Pointer("arena", 0)
    schedule = [Call("add", (x, y, sum_), 6), Call("copy", (sum_, y), 6)]
    arguments = [
        Argument("x", tensor(I64, 2, 3), permutation=(1, 0)),
        Argument("y", tensor(I64, 2, 3), "state", (1, 0), written=True),
    ]
    return make_program(kernels, schedule, arguments, 64)


@pytest.fixture(scope="module")
def increment() -> Executable:
    return Executable(increment_program())


@pytest.fixture(scope="module")
def gather() -> Executable:
    return Executable(gather_program(4, 3))


@pytest.fixture(scope="module")
def layout() -> Executable:
    return Executable(layout_program())


def test_state_is_updated_in_place_over_many_steps(increment):
    values = np.arange(5)
    increment.run({"state": values, "by": np.full(5, 3)}, steps=7)
    np.testing.assert_array_equal(values, np.arange(5) + 21)


def test_no_steps_change_nothing(increment):
    values = np.arange(5)
    increment.run({"state": values, "by": np.full(5, 3)}, steps=0)
    np.testing.assert_array_equal(values, np.arange(5))


def test_a_serialized_program_runs_the_same(increment):
    program = Program.from_bytes(increment.program.to_bytes())
    assert program == increment.program
    values = np.arange(5)
    Executable(program).run({"state": values, "by": np.full(5, -1)}, steps=2)
    np.testing.assert_array_equal(values, np.arange(5) - 2)


@given(
    data=st.integers(1, 40),
    steps=st.lists(st.integers(0, 3), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    flat=st.booleans(),
)
def test_each_step_reads_its_own_indices(gather, data, steps, seed, flat):
    generator = np.random.default_rng(seed)
    x = generator.integers(-9, 9, (data, 3)).astype(np.float32)
    rows = generator.integers(0, data, (sum(steps), 4)).astype(np.int32)
    total, first = np.zeros(3, np.float32), 0
    arrays = {"data": x, "rows": rows.reshape(-1) if flat else rows, "total": total}
    for count in steps:
        gather.run(arrays, first=first, steps=count)
        first += count
        # Sums of small integers are exact.
        np.testing.assert_array_equal(total, x[rows[:first].reshape(-1)].sum(0))


@pytest.mark.parametrize("bad", [10, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("at", [0, 3, 11])
def test_rows_beyond_the_data_are_refused_before_anything_runs(gather, bad, at):
    rows, total = np.zeros(12, np.int32), np.zeros(3, np.float32)
    binding = gather.bind({"data": np.ones((10, 3), np.float32), "rows": rows, "total": total})
    # The check belongs to the run: the caller shuffles the bound array in place.
    rows[at] = bad
    with pytest.raises(
        RowError, match=re.escape(f"from 0 to 9, the last one of 'data'. Received: {bad} in step {at // 4}")
    ):
        binding.run(0, 3)
    np.testing.assert_array_equal(total, 0)
    steps = [step for step in range(3) if step != at // 4]
    for step in steps:
        binding.run(step)
    np.testing.assert_array_equal(total, 8)


def test_steps_beyond_the_indices_are_refused(gather):
    arrays = {"data": np.ones((2, 3), np.float32), "rows": np.zeros(8, np.int32), "total": np.zeros(3, np.float32)}
    with pytest.raises(ArgumentError, match=r"indices of 3 steps of 4\. Received: 8 indices"):
        gather.run(arrays, first=1, steps=2)
    with pytest.raises(ArgumentError, match=r"range of steps\. Received: first=-1"):
        gather.run(arrays, first=-1)


def test_permuted_arguments_are_converted_on_entry_and_exit(layout):
    x, y = np.arange(6).reshape(3, 2), np.ones((3, 2), np.int64)
    layout.run({"x": x, "y": y}, steps=2)
    np.testing.assert_array_equal(y, 1 + 2 * np.arange(6).reshape(3, 2))
    y[:] = 0
    layout.run({"x": x, "y": y})
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(x, np.arange(6).reshape(3, 2))


def test_inside_a_binding_layouts_are_written_back_on_demand_and_at_the_end(layout):
    x, y = np.arange(6).reshape(3, 2), np.zeros((3, 2), np.int64)
    binding = layout.bind({"x": x, "y": y})
    with binding:
        binding.run()
        np.testing.assert_array_equal(y, 0)
        binding.sync()
        np.testing.assert_array_equal(y, x)
        binding.run(steps=2)
    np.testing.assert_array_equal(y, 3 * x)


def test_layouts_are_written_back_when_the_body_raises(layout):
    x, y = np.arange(6).reshape(3, 2), np.zeros((3, 2), np.int64)
    with pytest.raises(KeyboardInterrupt), layout.bind({"x": x, "y": y}) as binding:  # noqa: PT012
        binding.run()
        raise KeyboardInterrupt
    np.testing.assert_array_equal(y, x)


def test_read_only_layouts_are_kept_while_the_version_stays(layout):
    x, y = np.ones((3, 2), np.int64), np.zeros((3, 2), np.int64)
    arrays = {"x": x, "y": y}
    layout.run(arrays, version=1)
    x[:] = 10
    layout.run(arrays, version=1)
    np.testing.assert_array_equal(y, 2)
    layout.run(arrays, version=2)
    np.testing.assert_array_equal(y, 12)
    y[:] = 0  # What the program writes is converted each time.
    layout.run(arrays, version=2)
    np.testing.assert_array_equal(y, 10)
    x[:] = 5
    layout.run(arrays)
    np.testing.assert_array_equal(y, 15)


def test_other_arrays_are_bound_anew(increment):
    by = np.ones(5, np.int64)
    for start in (0, 10):
        values = np.full(5, start)
        increment.run({"state": values, "by": by})
        increment.run({"by": by, "state": values})
        np.testing.assert_array_equal(values, start + 2)


GOOD = np.arange(5)
READ_ONLY = np.arange(5)
READ_ONLY.flags.writeable = False
UNALIGNED = np.zeros(41, np.uint8)[1:].view(np.int64)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2, 3, 4, 5], "'state': Expected a NumPy array. Received: list"),
        (GOOD.astype(np.int32), "'state': Expected dtype int64. Received: int32"),
        (GOOD.astype(">i8"), "'state': Expected dtype int64. Received: int64 of foreign byte order"),
        (np.zeros(4, np.int64), "'state': Expected shape (5). Received: (4,)"),
        (np.zeros((5, 1), np.int64), "'state': Expected shape (5). Received: (5, 1)"),
        (np.zeros(10, np.int64)[::2], "'state': Expected a C-contiguous, aligned array. Received: strides (16,)"),
        (UNALIGNED, "'state': Expected a C-contiguous, aligned array."),
        (READ_ONLY, "'state': Expected a writeable array"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(increment, state, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        increment.run({"state": state, "by": GOOD.copy()})


def test_missing_and_unknown_names_are_refused(increment):
    with pytest.raises(ArgumentError, match="Missing: state"):
        increment.run({"by": GOOD})
    with pytest.raises(ArgumentError, match=r"Expected arrays for by, state\. Received: other"):
        increment.run({"by": GOOD, "state": GOOD.copy(), "other": GOOD})


def test_written_memory_may_not_be_shared(increment):
    memory = np.zeros(9, np.int64)
    with pytest.raises(ArgumentError, match="shares memory with"):
        increment.run({"state": memory[:5], "by": memory[4:]})
    with pytest.raises(ArgumentError, match="shares memory with"):
        increment.run({"state": memory[4:], "by": memory[:5]})
    memory = np.zeros(10, np.int64)
    increment.run({"state": memory[5:], "by": memory[:5]})


@given(
    spans=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.booleans()), max_size=5),
)
def test_shared_memory_is_found_wherever_it_is(spans):
    from gradloom.runtime.binding import Place, _check_overlap

    memory = np.zeros(40, np.uint8)
    places = [Place(memory[start : start + size], memory[start:].ctypes.data) for start, size, _ in spans]
    arguments = tuple(Argument(str(n), tensor(I64, 1), written=span[2]) for n, span in enumerate(spans))
    touched = [set(range(start, start + size)) for start, size, _ in spans]
    clash = any(touched[a] & touched[b] and (spans[a][2] or spans[b][2]) for a in range(len(spans)) for b in range(a))
    if clash:
        with pytest.raises(ArgumentError):
            _check_overlap(arguments, places)
    else:
        _check_overlap(arguments, places)


def test_scratch_belongs_to_one_thread(threads):
    from gradloom.compiler.loops.builder import Builder
    from gradloom.compiler.loops.grammar import Buffer

    # Each block fills the scratch with its own number and then adds it up.
    b = Builder("scratch")
    out = b.param(Buffer("out", tensor(I64, 64)))
    scratch = b.allocate(Buffer("scratch", tensor(I64, 100), "scratch"))
    with b.parallel(64) as block:
        with b.loop(0, 100) as loop:
            b.store(scratch, loop.index, b.expr(block.index))
        with b.loop(0, 100, initial=[b.zero(I64)]) as loop:
            loop.next(b.add(loop.carried[0], b.load(scratch, loop.index)))
        b.store(out, block.index, loop.results[0])
    schedule = [Call("scratch", (Pointer("argument", 0),), 64)]
    program = make_program([b.kernel(64)], schedule, [Argument("out", tensor(I64, 64), "output", written=True)])
    assert program.scratch_bytes == 832
    executable, values = Executable(program), np.zeros(64, np.int64)
    for count in (1, 4, 2):
        threads(count)
        values[:] = 0
        executable.run({"out": values}, steps=200)
        np.testing.assert_array_equal(values, 100 * np.arange(64))


def test_constants_and_partial_steps(increment):
    kernel = elementwise_kernel("add", 3, lambda b, x, y: b.add(x, y), 2)
    data = np.array([5, -7, 2**40]).tobytes()
    schedule = [Call("add", (Pointer("argument", 0), Pointer("constant", data), Pointer("argument", 1)), 3)]
    arguments = [Argument("x", tensor(I64, 3)), Argument("y", tensor(I64, 3), "output", written=True)]
    y = np.zeros(3, np.int64)
    Executable(make_program([kernel], schedule, arguments)).run({"x": np.ones(3, np.int64), "y": y})
    np.testing.assert_array_equal(y, [6, -6, 2**40 + 1])


def test_what_was_checked_is_bound_again_without_a_check(monkeypatch):
    from gradloom.runtime import binding

    increment = Executable(increment_program())
    arrays = {name: np.zeros(5, np.int64) for name in ("state", "by")}
    places = increment.places({**arrays, "no argument": np.zeros(1)})
    assert list(places) == ["state", "by"]
    monkeypatch.setattr(binding, "address", None)
    assert increment.bind(places).holds(arrays)
