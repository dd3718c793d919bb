"""Interrupts that wait for a moment at which everything is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gradloom.runtime.interrupts import HeldBack


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    """A shell may have started this process to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def interrupted(work: Callable[[list[object]], None]) -> list[object]:
    """What `work` noted before a KeyboardInterrupt came out of it."""
    notes: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        work(notes)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return notes


def test_an_interrupt_waits_for_the_end() -> None:
    def work(notes: list[object]) -> None:
        with HeldBack():
            interrupt()
            notes.append("inside")
        notes.append("after")

    assert interrupted(work) == ["inside"]


def test_an_interrupt_waits_until_it_is_delivered() -> None:
    def work(notes: list[object]) -> None:
        with HeldBack() as interrupts:
            interrupts.deliver()
            interrupt()
            notes.append("before")
            interrupts.deliver()
            notes.append("after")

    assert interrupted(work) == ["before"]


@pytest.mark.parametrize("early", [True, False])
def test_interrupts_are_let_through_at_once(early: bool) -> None:
    def work(notes: list[object]) -> None:
        with HeldBack() as interrupts:
            if early:
                interrupt()
            try:
                with interrupts.let_through():
                    notes.append("callback")
                    interrupt()
                    notes.append("after")
            finally:
                interrupt()  # A second one does not disturb what the first one passes on its way.
                notes.append("whole")

    assert interrupted(work) == (["whole"] if early else ["callback", "whole"])


def test_within_another_one_they_wait_for_that() -> None:
    def work(notes: list[object]) -> None:
        with HeldBack():
            with HeldBack() as inner, inner.let_through():
                interrupt()
                notes.append("inner")
            notes.append("outer")

    assert interrupted(work) == ["inner", "outer"]


def test_the_users_handler_is_called() -> None:
    calls: list[int] = []

    def handler(number: int, frame: Any) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with HeldBack():
            interrupt()
            interrupt()
            assert calls == []
        assert calls == [signal.SIGINT] and signal.getsignal(signal.SIGINT) is handler
        with HeldBack() as interrupts, interrupts.let_through():
            interrupt()
            interrupt()
        assert len(calls) == 3
        with HeldBack():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with HeldBack():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_interrupts() -> None:
    handlers: list[Any] = []

    def look() -> None:
        with HeldBack() as interrupts, interrupts.let_through():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
