"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gradloom.runtime.threads import get_num_threads, set_num_threads


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for one test."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)
