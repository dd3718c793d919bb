"""The pytest plugin, in sessions of their own: what it collects, which profile it brings, what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = "gradloom.testing.pytest_plugin"

PROPERTIES = """
import gradloom as gl
import pytest
from gradloom.testing import gradient_property, tensor

@gradient_property(x=tensor("N"), max_examples=2, compiled_examples=0)
def relu_of_anything(x):
    return gl.ops.relu(x)

@pytest.mark.parametrize("factor", [2, 3])
@gradient_property(x=tensor("N"), max_examples=2, compiled_examples=0)
def multiple(x, factor):
    return x * factor

class TestGroup:
    def test_a_method(self):
        pass

@gradient_property(x=tensor(2), order=1, max_examples=2, compiled_examples=0)
def test_wrong(x):
    return gl.ops.custom_gradient(lambda x: (x * x, lambda upstream: upstream))(x)

def helper_that_is_no_test():
    raise AssertionError
"""

ORDINARY = """
import sys

def test_nothing_was_loaded():
    assert not {"gradloom.compiler", "llvmlite", "hypothesis", "numpy"} & set(sys.modules)
"""


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_module.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rA", *options]
    # An editable installation from before there was a plugin does not know of it.
    if not any(entry.value == PLUGIN for entry in entry_points(group="pytest11")):
        command += ["-p", PLUGIN]
    outside = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, timeout=120)


def test_properties_of_any_name_are_collected(tmp_path: Path) -> None:
    result = run(tmp_path, PROPERTIES)
    assert "PASSED test_module.py::relu_of_anything" in result.stdout
    assert "FAILED test_module.py::test_wrong" in result.stdout
    assert "helper_that_is_no_test" not in result.stdout
    assert "PASSED test_module.py::multiple[3]" in result.stdout
    assert "4 passed" in result.stdout and "1 failed" in result.stdout
    # The message is there, with the simplest values.
    assert "First wrong node: " in result.stdout and "np.array([0., 0.], 'float32')" in result.stdout


def test_the_test_to_paste_is_printed_as_it_is(tmp_path: Path) -> None:
    result = run(tmp_path, PROPERTIES)
    code = result.stdout.split("the failing check as a test")[1].split("\n", 1)[1].split("# End of the test.")[0]
    assert "def checked_wrong(x):" in code
    pasted = run(tmp_path, code)
    assert "1 failed" in pasted.stdout and "GradientError: checked_wrong: " in pasted.stdout, pasted.stdout
    # How it was checked is nothing that the test is about.
    assert "testing/check.py" not in result.stdout + pasted.stdout


def test_other_tests_load_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, ORDINARY)
    assert "1 passed" in result.stdout, result  # with its exit code


def test_the_profile_can_be_asked_for(tmp_path: Path) -> None:
    text = "import hypothesis\ndef test_profile():\n    assert hypothesis.settings().derandomize\n"
    result = run(tmp_path, text, "--hypothesis-profile=gradloom-ci")
    assert "1 passed" in result.stdout, result.stdout + result.stderr
