"""Sequences that are made while they are read."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler.growing import Growing


@given(st.lists(st.integers(), max_size=20), st.data())
def test_it_is_the_sequence_of_its_source(items: list[int], data: st.DataObject) -> None:
    growing = Growing(iter(items))
    begun = iter(growing)
    seen = [next(begun) for _ in range(data.draw(st.integers(0, len(items))))]
    assert list(growing) == items
    assert seen + list(begun) == items
    assert len(growing) == len(items) and growing[:] == items and growing[2:-1] == items[2:-1]
    assert all(growing[place] == item for place, item in enumerate(items))


def test_nothing_is_made_before_it_is_read_and_nothing_twice() -> None:
    made = []

    def source() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    growing = Growing(source())
    assert not made
    first, second = iter(growing), iter(growing)
    assert next(first) == next(second) == 0 and made == [0]
    assert [*first, *second] == [1, 2, 1, 2] and made == [0, 1, 2]


def test_threads_read_the_same_items() -> None:
    growing = Growing(object() for _ in range(2000))
    start, seen = threading.Barrier(4), []

    def read() -> None:
        start.wait()
        seen.append(list(growing))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4 and len(seen[0]) == 2000
    assert all(items == seen[0] for items in seen)


@pytest.mark.parametrize("raised", [ValueError("third"), KeyboardInterrupt()], ids=repr)
def test_what_breaks_it_is_never_taken_for_its_end(raised: BaseException) -> None:
    def source() -> Iterator[int]:
        yield from (1, 2)
        raise raised

    told = []
    growing = Growing(source(), lambda: told.append("broken"))
    with pytest.raises(type(raised)):
        list(growing)
    assert told == ["broken"]
    reader = iter(growing)
    assert [next(reader), next(reader)] == [1, 2]
    for again in (lambda: next(reader), lambda: len(growing), lambda: growing[0]):
        with pytest.raises(RuntimeError, match="Expected a sequence made to its end"):
            again()
    assert told == ["broken"]
