"""Forked children: whatever another thread was in the midst of, compiling and running go on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

PRELUDE = """
import gc, os, signal, sys, threading, traceback
import numpy as np
import gradloom as gl

x = np.ones((3, 4), np.float32)
parent, armed = os.getpid(), False
inside, leave = threading.Event(), threading.Event()

def block():
    "Hold whatever locks the caller holds; the child, where nobody can set the event, goes on."
    if armed and os.getpid() == parent:
        inside.set()
        leave.wait()

def fork_during(work, child_work):
    "Fork while another thread works, and return the child's exit code."
    global armed
    armed = True
    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends it, whatever it waits for
        try:
            child_work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    leave.set()
    thread.join()
    return code
"""

TRACING = """
def double(x):
    block()
    return x * 2.0

compiled = gl.function(double)

def check():
    assert (compiled(x) == 2).all()
"""

BUILDING = """
model = gl.Sequential([gl.Input((4,)), gl.layers.Lambda(lambda x: (block(), x * 2.0)[1])])

def check():
    assert (model.predict(x) == 2).all()
    assert gc.isenabled()  # though the other thread had switched it off
"""

DRAWING = """
class Drawn(gl.initializers.RandomInitializer):
    def draw(self, *arguments):
        block()
        return np.ones((4, 3), np.float32)

model = gl.Sequential([gl.Input((4,)), gl.layers.Dense(3, kernel_initializer=Drawn())])

def check():
    assert (model.predict(x) == 4).all()
"""

# The weights are prepared inside of a prediction: two locks are held.
PREDICTING = """
from gradloom.runtime.binding import Binding

model = gl.Sequential([gl.Input((4,)), gl.layers.Dense(3, kernel_initializer="ones"), gl.layers.BatchNormalization()])
run = Binding.run
Binding.run = lambda *arguments, **options: (block(), run(*arguments, **options))[1]

def check():
    np.testing.assert_allclose(model.predict(x), 4, rtol=1e-2)
"""

# A stage of the compiler is being computed, which is an attribute of the graph's lowering.
LOWERING = """
from gradloom.compiler import pipeline

plan = pipeline.plan_memory
pipeline.plan_memory = lambda *arguments: (block(), plan(*arguments))[1]

def check():
    assert (gl.function(lambda x: x * 5.0)(x) == 5).all()
"""

# Kernels are being named while a stage is read, for which they are lowered one by one.
SEEING = """
from gradloom.compiler import pipeline

symbol = pipeline._symbol
pipeline._symbol = lambda name: (block(), symbol(name))[1]
inspection = gl.inspect(gl.ops.exp, x)

def check():
    assert inspection.stages["memory"].text()
    assert [kernel.name for kernel in inspection.lowering.kernels] == ["k0_exp"]
"""

# LLVM's own locks are nobody's to renew: the fork waits until LLVM is done. What is set here first, when the fork
# begins, lets it go on.
INSIDE_LLVM = """
from llvmlite.binding import ffi

def check():
    assert (gl.function(lambda x: x * 3.0)(x) == 3).all()

def work():
    check()
    gc.collect()

check()
os.register_at_fork(before=leave.set)
called = ffi.lib.{name}
inner = called._cfn
called._cfn = lambda *arguments: (block(), inner(*arguments))[1]
"""


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GRADLOOM_CACHE": "0"}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + text], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "setting",
    [TRACING, BUILDING, DRAWING, PREDICTING, LOWERING, SEEING],
    ids=["tracing", "building", "drawing", "predicting", "lowering", "seeing"],
)
def test_locks_held_at_a_fork_are_free_in_the_child(setting: str) -> None:
    done = run_script(setting + "print(fork_during(check, check))\ncheck()\n")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


@pytest.mark.parametrize("name", ["LLVMPY_ParseAssembly", "LLVMPY_LLJIT_Link", "LLVMPY_LLJIT_Dylib_Tracker_Dispose"])
def test_a_fork_waits_until_llvm_is_done(name: str) -> None:
    done = run_script(INSIDE_LLVM.format(name=name) + "print(fork_during(work, check))\ncheck()\n")
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
