"""Serialized programs: they read back equal, and a header that contradicts itself is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.compiler.program import Argument, Call, Pointer, Program, ProgramError, Slot
from gradloom.compiler.types import DTYPES, F32, OPEN, TensorType

SIZES = st.integers(0, 5)


@st.composite
def arguments(draw: st.DrawFn) -> tuple[Argument, ...]:
    found = []
    for name in draw(st.lists(st.text(max_size=8), unique=True, max_size=4)):
        shape = tuple(draw(st.lists(SIZES, max_size=3)))
        permutation = tuple(draw(st.permutations(range(len(shape))))) if draw(st.booleans()) else ()
        if not permutation and draw(st.booleans()):
            shape = (OPEN, *shape)
        type_ = TensorType(draw(st.sampled_from(DTYPES)), shape)
        found.append(Argument(name, type_, draw(st.text(max_size=8)), permutation, 0, draw(st.booleans())))
    return tuple(found)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    arena = 64 * draw(st.integers(0, 10))
    texts = st.lists(st.text(max_size=10), max_size=3).map(tuple)
    slots = [
        Slot(draw(st.text()), offset, draw(st.integers(0, arena - offset)), first, first + 1)
        for offset, first in draw(st.lists(st.tuples(st.integers(0, arena), st.integers(0, 3)), max_size=3))
    ]
    return Program(
        draw(st.text()),
        tuple(draw(st.lists(st.binary(max_size=50), min_size=1, max_size=3))),
        draw(arguments()),
        arena,
        64 * draw(st.integers(0, 3)),
        draw(st.integers(1, 64)),
        draw(texts),
        tuple(slots),
        draw(texts),
    )


@given(programs())
def test_a_program_reads_back_equal(program):
    assert Program.from_bytes(program.to_bytes()) == program


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(program=programs(), field=st.integers(0, 8), value=JSON)
def test_a_changed_header_is_refused_or_gives_a_program_that_reads_back(program, field, value):
    data = program.to_bytes()
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[16 : 16 + length])
    header[list(header)[field]] = value
    changed = json.dumps(header).encode()
    try:
        read = Program.from_bytes(data[:8] + len(changed).to_bytes(8, "little") + changed + b"".join(program.code))
    except ProgramError:
        return
    assert Program.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arena_bytes": 100}, "arena_bytes in units of 64"),
        ({"max_threads": 0}, "at least 1 as max_threads"),
        ({"buffers": (Slot("b", 64, 65, 0, 0),)}, "a buffer within 128 bytes"),
        ({"arguments": (Argument("x", TensorType(F32, (2, 3)), permutation=(0, 0)),)}, "a permutation of the axes"),
        ({"arguments": (Argument("x", TensorType(F32, (3, OPEN))),)}, "a shape"),
        ({"arguments": (Argument("x", TensorType(F32, ())),) * 2}, "arguments of different names"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ProgramError, match=message):
        Program(**{"name": "p", "code": (b"",), "arguments": (), "arena_bytes": 128, **changes})


def test_the_host_shape_undoes_the_permutation():
    argument = Argument("x", TensorType(F32, (4, 2, 3)), permutation=(2, 0, 1))
    assert argument.host_shape == (2, 3, 4)


def test_prepared_arrays_come_as_they_are_stored():
    panelled = Argument("kernel", TensorType(F32, (3, 4, 64)), "parameter", panel=32)
    assert panelled.is_converted and panelled.host_shape == (3, 4, 64)
    prepared = Argument("kernel", TensorType(F32, (3, 4, 64)), "prepared", panel=32)
    assert not prepared.is_converted and prepared.host_shape == prepared.stored_shape == (2, 3, 4, 32)


def test_the_driver_refuses_a_call_with_other_parameters_than_the_kernel_has():
    from handmade import elementwise_kernel, make_program

    from gradloom.compiler.errors import VerificationError

    kernel = elementwise_kernel("copy", 4, lambda b, x: x, 1)
    with pytest.raises(VerificationError, match="copy: Expected 5 parameters. Received: 4"):
        make_program([kernel], [Call("copy", (Pointer("arena", 0),), 4)], [], 64)
