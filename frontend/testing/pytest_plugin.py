"""The pytest plugin: collects gradient properties, prints tests to paste, and makes a profile known.

Gradient properties take the profile `gradloom-ci` by themselves where the environment variable `CI` is set and no
other profile is chosen. Another one is chosen as always, by `--hypothesis-profile=NAME` or
`hypothesis.settings.load_profile(NAME)` in a conftest.py; `--hypothesis-profile=gradloom-ci` gives this one to all
tests.
"""

from __future__ import annotations

from collections.abc import Generator
from types import FunctionType
from typing import Any

import pytest


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Register the profile before hypothesis's own plugin looks for it."""
    if str(getattr(early_config.known_args_namespace, "hypothesis_profile", None)).startswith("gradloom"):
        import gradloom.testing.profiles  # noqa: F401 - registers it


def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> list[pytest.Item] | None:
    """Collect gradient properties of any name; those called `test_…` are collected anyway."""
    if isinstance(obj, FunctionType) and "gradient_property" in obj.__dict__ and not collector.funcnamefilter(name):
        # As pytest makes them of functions called `test_…`: one for each set of parameters.
        return list(collector._genfunctions(name, obj))
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the test that a wrong gradient comes with once more, as it is: in messages, "E" stands before each line."""
    report = yield
    error: Any = None if call.excinfo is None else call.excinfo.value
    if type(error).__module__ == "gradloom.testing.errors" and hasattr(error, "snippet"):
        report.sections.append(("the failing check as a test", error.snippet))
    return report
