"""Random numbers by counting: published vectors, the distribution, and independence of shape, stream and threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiled import assert_same, run_program
from gradloom.compiler import pipeline
from gradloom.compiler.errors import ShapeError
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.ops.random_bits import RandomUniform, threefry
from gradloom.compiler.types import I64, TensorType
from op_cases import types

counters = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("key", "words", "expected"),
    [
        # Known answers that the authors publish with their implementation (Random123).
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_known_answers(key: tuple[int, int], words: tuple[int, int], expected: tuple[int, int]) -> None:
    found = threefry(key, (np.array([words[0]], np.uint32), np.array([words[1]], np.uint32)))
    assert tuple(int(word[0]) for word in found) == expected


def draw(count: int, counter: int, stream: int = 0) -> np.ndarray:
    return RandomUniform((count,), stream).reference(np.array(counter, np.int64))


@settings(max_examples=20)
@given(counter=counters, stream=st.integers(0, 2**31 - 1))
def test_uniform_in_steps_of_a_float(counter: int, stream: int) -> None:
    count = 20_000
    drawn = draw(count, counter, stream).astype(np.float64)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.array_equal(drawn * 2**24, np.round(drawn * 2**24))
    # Six standard deviations: of the mean, of the variance, of a bin's count, of the correlation of neighbours.
    assert abs(drawn.mean() - 1 / 2) < 6 * np.sqrt(1 / 12 / count)
    assert abs(drawn.var() - 1 / 12) < 6 * np.sqrt(1 / 180 / count)
    bins = np.bincount((drawn * 16).astype(int), minlength=16)
    assert np.abs(bins - count / 16).max() < 6 * np.sqrt(count / 16)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 6 / np.sqrt(count)


@settings(max_examples=20)
@given(counter=st.integers(0, 2**62), stream=st.integers(0, 1000))
def test_steps_and_streams_are_independent(counter: int, stream: int) -> None:
    own = draw(5000, counter, stream)
    for other in (
        draw(5000, counter + 1, stream),
        draw(5000, counter + (1 << 32), stream),
        draw(5000, counter, stream + 1),
    ):
        assert np.mean(own == other) < 0.01
        assert abs(np.corrcoef(own, other)[0, 1]) < 6 / np.sqrt(5000)


def test_a_number_depends_on_its_index_not_on_the_shape() -> None:
    counter = np.array(7, np.int64)
    whole = RandomUniform((6, 35), 2).reference(counter)
    assert np.array_equal(whole.ravel(), RandomUniform((2, 3, 35), 2).reference(counter).ravel())
    assert np.array_equal(whole.ravel()[:50], RandomUniform((50,), 2).reference(counter))


@settings(max_examples=4)
@given(counter=counters)
def test_compiled_bits_for_any_number_of_threads(counter: int) -> None:
    graph = Graph("random")
    operand = graph.input("counter", TensorType(I64, ()))
    for stream, shape in enumerate([(3, 50, 67), (100_001,), (7, 40, 2)]):
        graph.output(f"u{stream}", graph.apply(RandomUniform(shape, stream), operand))
    arrays = {"counter": np.array(counter, np.int64)}
    program = pipeline.compile_graph(graph, pipeline.Options(cores=2))
    for threads in (1, 2):
        assert_same(run_program(program, graph, arrays, threads), interpret(graph, arrays))


def test_two_streams_are_two_nodes() -> None:
    graph = Graph()
    counter = graph.input("counter", TensorType(I64, ()))
    assert graph.apply(RandomUniform((4,), 0), counter) is graph.apply(RandomUniform((4,), 0), counter)
    assert graph.apply(RandomUniform((4,), 0), counter) is not graph.apply(RandomUniform((4,), 1), counter)


@pytest.mark.parametrize(
    ("op", "counter", "message"),
    [
        (RandomUniform((4,), 0), "i32[]", "one i64"),
        (RandomUniform((4,), 0), "i64[1]", "one i64"),
        (RandomUniform((4,), -1), "i64[]", "stream=-1"),
        (RandomUniform((-1,), 0), "i64[]", r"shape=\[-1\]"),
        (RandomUniform((1 << 20, 1 << 13), 0), "i64[]", "at most"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_refused(op: RandomUniform, counter: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        op.type_of(*types(counter))
