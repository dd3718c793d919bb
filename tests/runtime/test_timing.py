"""Time stamps: what they say of a run, and that what notes them computes the same and is otherwise as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradloom as gl
from gradloom.compiler.ir import Graph
from gradloom.compiler.options import Options, cache_key
from gradloom.compiler.pipeline import lower
from gradloom.compiler.program import TIME_STAMPS, Barrier
from gradloom.runtime.binding import ArgumentError
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import get_num_threads, set_num_threads
from gradloom.runtime.timing import Timeline, stamps_for


def chain() -> Graph:
    """Two products with a sum between, which threads divide and wait for."""

    def f(x: gl.TensorSpec, y: gl.TensorSpec) -> gl.TensorSpec:
        z = gl.ops.matmul(x, y)
        return gl.ops.matmul(z - gl.ops.sum(z, axis=0, keepdims=True), y)

    return gl.trace(f, gl.TensorSpec((96, 96)), gl.TensorSpec((96, 96)))


def test_only_timed_programs_look_at_the_clock() -> None:
    plain, timed = (lower(chain(), Options(timed=timed)) for timed in (False, True))
    assert "clock" not in "".join(plain.modules())
    calls = re.findall(r"call i32 @\"clock_gettime\"", "".join(timed.modules()))
    assert len(calls) == len(timed.steps) + 1
    assert plain.steps == timed.steps
    assert timed.arguments[:-1] == plain.arguments and timed.arguments[-1].role == TIME_STAMPS
    assert cache_key(chain(), plain.options) != cache_key(chain(), timed.options)


def test_a_timed_program_computes_the_same_and_stamps_every_point() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 96, 96), np.float32)
    results, steps, before = [np.empty((96, 96), np.float32) for _ in range(2)], 3, get_num_threads()
    lowering = lower(chain(), Options(cores=2, timed=True))
    try:
        set_num_threads(2)
        Executable(lower(chain(), Options(cores=2)).program()).run({"x": x, "y": y, "result": results[0]})
        executable = Executable(lowering.program())
        stamps = stamps_for(lowering.arguments[-1], steps, 2)
        executable.run({"x": x, "y": y, "result": results[1], TIME_STAMPS: stamps}, 5, steps)
        with pytest.raises(ArgumentError, match="Expected at least 8 rows, for 4 steps on 2 threads. Received: 6"):
            executable.run({"x": x, "y": y, "result": results[1], TIME_STAMPS: stamps}, 0, 4)
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(*results)
    barriers = [isinstance(step, Barrier) for step in lowering.steps]
    timeline = Timeline.read(stamps, barriers, steps)
    assert timeline.times.shape == (steps, 2, len(barriers) + 1)
    assert (np.diff(timeline.times, axis=-1) >= 0).all() and (timeline.times > 0).all()
    assert (timeline.times[1:, :, 0] >= timeline.times[:-1, :, -1]).all()
    # Nobody leaves a barrier before all have come.
    at = np.flatnonzero(barriers)
    assert at.size and (timeline.ends[:, :, at].min(axis=1) >= timeline.starts[:, :, at].max(axis=1)).all()


def test_a_step_waits_for_the_thread_that_arrives_last() -> None:
    # Items: a kernel, a barrier, a kernel. Thread 1 is late at the barrier, thread 0 at the end.
    times = np.array([[[0, 10, 32, 50], [1, 30, 31, 41]]])
    timeline = Timeline(times, [False, True, False])
    np.testing.assert_array_equal(timeline.critical, [[29, 2, 18]])
    np.testing.assert_array_equal(timeline.busy, [[19.5, 11.5, 14]])


def test_stretches_without_a_barrier_reach_into_the_next_step() -> None:
    # Thread 0 takes 5 for its kernel each time, thread 1 takes 9: the whole run waits for thread 1.
    times = np.array([[[0, 5], [0, 9]], [[5, 10], [9, 18]]])
    np.testing.assert_array_equal(Timeline(times, [False]).critical, [[9], [9]])


def test_threads_that_had_no_part_are_left_out() -> None:
    stamps = np.zeros((4, 8, 2), np.int64)
    stamps[:2, :3] = [[[1, 5], [1, 8], [2, 1]], [[2, 1], [2, 2], [2, 4]]]
    timeline = Timeline.read(stamps, [False, True], steps=2)
    assert timeline.threads == 1
    np.testing.assert_array_equal(
        timeline.times[:, 0], [[10**9 + 5, 10**9 + 8, 2 * 10**9 + 1], 2 * 10**9 + np.r_[1, 2, 4]]
    )


@given(data=st.data())
def test_the_times_of_all_items_add_up_to_the_run(data: st.DataObject) -> None:
    steps, threads = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    barriers = data.draw(st.lists(st.booleans(), min_size=1, max_size=6))
    clock = np.array(data.draw(st.lists(st.integers(0, 9), min_size=threads, max_size=threads)))
    begun, times = clock.copy(), np.zeros((steps, threads, len(barriers) + 1), np.int64)
    for step in range(steps):
        times[step, :, 0] = clock
        for item, barrier in enumerate(barriers):
            spent = np.array(data.draw(st.lists(st.integers(0, 99), min_size=threads, max_size=threads)))
            clock = (clock.max() if barrier else clock) + spent
            times[step, :, item + 1] = clock
    timeline = Timeline(times, barriers)
    assert (timeline.critical >= 0).all()
    # From the begin of the thread that the first barrier waits for to the end of the last one.
    assert clock.max() - begun.max() <= timeline.critical.sum() <= clock.max() - begun.min()
