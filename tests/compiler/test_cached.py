"""Attributes that are computed when they are first asked for, by threads beside each other."""

from __future__ import annotations

import threading

import pytest

from gradloom.compiler.cached import cached_property


class Slow:
    """Its attribute is computed as long as its event is not set, and says by its number how often it was."""

    def __init__(self) -> None:
        self.begun, self.leave = threading.Event(), threading.Event()
        self.made = 0

    @cached_property
    def number(self) -> int:
        """How often it was computed."""
        self.begun.set()
        self.leave.wait()
        self.made += 1
        return self.made


def test_threads_get_what_one_of_them_computes() -> None:
    slow, got = Slow(), []
    threads = [threading.Thread(target=lambda: got.append(slow.number)) for _ in range(8)]
    for thread in threads:
        thread.start()
    slow.begun.wait()
    slow.leave.set()
    for thread in threads:
        thread.join()
    assert got == [1] * 8 and vars(slow).keys() == {"begun", "leave", "made", "number"}


def test_nobody_waits_for_the_attribute_of_another_object() -> None:
    slow, quick = Slow(), Slow()
    quick.leave.set()
    thread = threading.Thread(target=lambda: slow.number)
    thread.start()
    slow.begun.wait()
    assert quick.number == 1 and not slow.made
    slow.leave.set()
    thread.join()


def test_after_an_error_it_is_computed_again() -> None:
    class Failing:
        tries = 0

        @cached_property
        def number(self) -> int:
            """An error the first time."""
            self.tries += 1
            if self.tries == 1:
                raise ValueError("once")
            return self.tries

    failing = Failing()
    with pytest.raises(ValueError, match="once"):
        _ = failing.number
    assert failing.number == 2 and failing.number == 2
    assert isinstance(Failing.number, cached_property)
