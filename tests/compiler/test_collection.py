"""Sparing the garbage collector: it is back when the last compilation has ended, and stays off where it was off."""

import gc
from contextlib import ExitStack

from gradloom.compiler.collection import no_garbage_collection


def test_the_collector_comes_back_with_the_last_compilation() -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(no_garbage_collection())
    second.enter_context(no_garbage_collection())
    first.close()
    assert not gc.isenabled()
    second.close()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with no_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
