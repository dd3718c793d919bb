"""Threads: barriers, concurrent callers, the number of threads, forks and the end of the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from handmade import elementwise_kernel, make_program, neighbour_kernel, tensor

from gradloom.compiler.program import Argument, Barrier, Call, Pointer, Program
from gradloom.compiler.types import I64
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import ThreadCountError, get_num_threads, set_num_threads


def ring_program(count: int) -> Program:
    """A step takes x[i] ← x[(i + 1) % count] + 2, by way of the arena: each thread reads what its neighbour wrote."""
    x, y = Pointer("argument", 0), Pointer("arena", 0)
    schedule = [Call("ring", (x, y), count), Barrier(), Call("ring_back", (y, x), count), Barrier()]
    kernels = [neighbour_kernel("ring", count), neighbour_kernel("ring_back", count)]
    return make_program(kernels, schedule, [Argument("x", tensor(I64, count), written=True)], -(-count * 8 // 64) * 64)


def ring_reference(x: np.ndarray, steps: int) -> np.ndarray:
    return np.roll(x, -2 * steps) + 2 * steps


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_barriers_keep_threads_in_step(count, threads):
    threads(count)
    executable = Executable(ring_program(8))
    x = np.arange(8) * 1000
    expected = x.copy()
    for steps in (1, 2, 3000, 1, 2000):
        executable.run({"x": x}, steps=steps)
        expected = ring_reference(expected, steps)
        np.testing.assert_array_equal(x, expected)


def test_without_barriers_no_thread_waits_and_all_blocks_run_once(threads):
    threads(3)
    kernel = elementwise_kernel("double", 17, lambda b, x: b.mul(x, 2), 1)
    schedule = [Call("double", (Pointer("argument", 0), Pointer("argument", 1)), 17)]
    arguments = [Argument("x", tensor(I64, 17)), Argument("y", tensor(I64, 17), "output", written=True)]
    executable = Executable(make_program([kernel], schedule, arguments))
    y = np.zeros(17, np.int64)
    executable.run({"x": np.arange(17), "y": y})
    np.testing.assert_array_equal(y, np.arange(17) * 2)


def test_workers_serve_programs_of_other_libraries(threads):
    threads(2)
    executables = [Executable(ring_program(count)) for count in (2, 5, 8)]
    for steps in range(1, 30):
        for executable, count in zip(executables, (2, 5, 8), strict=True):
            x = np.arange(count)
            executable.run({"x": x}, steps=steps)
            np.testing.assert_array_equal(x, ring_reference(np.arange(count), steps))


def test_the_number_of_threads_may_change_between_runs(threads):
    executable = Executable(ring_program(6))
    x = np.arange(6)
    expected = x.copy()
    for count in (1, 3, 2, 4, 1, 2):
        threads(count)
        assert get_num_threads() == count
        executable.run({"x": x}, steps=50)
        expected = ring_reference(expected, 50)
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("shared", [True, False])
def test_concurrent_python_threads_do_not_disturb_each_other(shared, threads):
    threads(2)
    program = ring_program(4)
    common = Executable(program)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            executable = common if shared else Executable(program)
            x = np.arange(4) + seed
            for _ in range(20):
                executable.run({"x": x}, steps=50)
            np.testing.assert_array_equal(x, ring_reference(np.arange(4) + seed, 1000))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2", 100_000])
def test_bad_numbers_of_threads_are_refused(bad):
    with pytest.raises(ThreadCountError, match="Expected a number of threads"):
        set_num_threads(bad)


SCRIPT = """
import os, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_threads import ring_program, ring_reference
from gradloom.runtime.executable import Executable
from gradloom.runtime.threads import set_num_threads

def check(executable, steps=500):
    x = np.arange(4)
    executable.run({{"x": x}}, steps=steps)
    assert (x == ring_reference(np.arange(4), steps)).all(), x

set_num_threads(2)
executable = Executable(ring_program(4))
check(executable)
"""


def run_script(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(tests=str(Path(__file__).parent)) + text
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_process_that_used_threads_ends_cleanly():
    done = run_script("print('ok')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_process_may_run_programs_while_it_ends():
    done = run_script("""
import atexit, threading
import gradloom.runtime.threads as threads
atexit.unregister(threads._state.close)
atexit.register(lambda: (check(executable), print("ok")))
atexit.register(threads._state.close)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_daemon_thread_may_be_running_a_program_at_exit():
    done = run_script("""
import threading
started = threading.Event()
def work():
    while True:
        check(executable)
        started.set()
threading.Thread(target=work, daemon=True).start()
started.wait()
""")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_the_pool_is_rebuilt_in_a_forked_child():
    done = run_script("""
import threading
# One thread holds the locks while the process forks.
stop = threading.Event()
busy = Executable(ring_program(4))
def work():
    while not stop.is_set():
        check(busy, 2000)
thread = threading.Thread(target=work)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        check(executable)
        check(busy)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    check(executable)
stop.set()
thread.join()
print("ok")
""")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_ctrl_c_leaves_everything_usable():
    done = run_script("""
import signal
x = np.arange(4)
before = x.copy()  # an interrupt may come before the first call
taken = 0
signal.signal(signal.SIGALRM, signal.default_int_handler)
for _ in range(20):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        while True:
            before = x.copy()
            executable.run({"x": x}, steps=3000)
    except KeyboardInterrupt:
        # All the steps of a call were taken, or none.
        assert (x == before).all() or (x == ring_reference(before, 3000)).all()
        taken += 1
check(executable)
print(taken)
""")
    assert (done.returncode, done.stdout) == (0, "20\n"), done.stderr


def test_the_environment_bounds_the_number_of_threads():
    text = "import gradloom.runtime.threads as t; t._state.count = None; print(t.get_num_threads())"
    assert run_script(text, GRADLOOM_NUM_THREADS="1").stdout == "1\n"
    assert run_script(text, GRADLOOM_NUM_THREADS="9999").stdout == f"{available_cpus()}\n"
    assert "Expected a positive number in GRADLOOM_NUM_THREADS" in run_script(text, GRADLOOM_NUM_THREADS="two").stderr


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
        (
            {
                "proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/c\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_control_groups_bound_the_number_of_cpus(files, limit, tmp_path):
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_cpus(tmp_path) == (affinity if limit is None else limit)


def test_no_wake_up_is_lost_whether_workers_spin_doze_or_sleep(threads):
    threads(3)
    executable = Executable(ring_program(6))
    x = np.arange(6)
    binding, busy = executable.bind({"x": x}), np.zeros(1 << 14)
    for turn in range(2000):
        binding.run()
        # Idle times from none to beyond the workers' patience, so that launches meet them in every state.
        for _ in range(turn % 20):
            busy += 1
    np.testing.assert_array_equal(x, ring_reference(np.arange(6), 2000))
