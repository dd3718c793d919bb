"""The text form: everything parses back, every bit of it; text that is no graph is refused by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import gradloom.compiler
from gradloom.compiler import ops, parse
from gradloom.compiler.errors import ParseError
from gradloom.compiler.ir import Constant, Graph, Group, Op
from gradloom.compiler.ir_text import print_graph
from gradloom.compiler.passes.fuse import fuse
from gradloom.compiler.passes.simplify import simplify
from gradloom.compiler.provenance import layer_scope
from gradloom.compiler.types import BF16, DTYPES, F32, I32, OPEN, U8, DType, TensorType
from gradloom.testing import graphs
from op_cases import CASES, OpCase

Case = tuple[Graph, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Everything(Op):
    """An op with an attribute of every kind."""

    name: ClassVar[str] = "test.everything"
    size: int
    rate: float
    flag: bool
    label: str
    dtype: DType
    wanted: TensorType
    axes: tuple[int, ...]
    nested: tuple[tuple[int, float], ...]
    maybe: int | None = None
    scale: float = 0.0

    def infer(self, *operands: TensorType) -> TensorType:
        return self.wanted


@pytest.fixture(scope="module", autouse=True)
def _without_the_ops_of_this_file() -> Iterator[None]:
    # Known again if tests of other files came in between.
    Op.registry[Everything.name] = Everything
    yield
    del Op.registry[Everything.name]


def dense() -> Graph:
    """One dense layer on a slice of a data set, written onto a state."""
    graph = Graph("dense")
    x = graph.input("x", TensorType(U8, (OPEN, 28, 28)), "data")
    rows = graph.input("rows", TensorType(I32, (32,)), "indices")
    total = graph.input("total", TensorType(F32, (32, 128)), "state")
    with layer_scope("rescaling"):
        batch = ops.cast(ops.take(x, rows, axis=0), "float32") / 255.0
    with layer_scope("flatten"):
        batch = ops.reshape(batch, (32, 784))
    with layer_scope("dense"):
        kernel = graph.input("dense/kernel", TensorType(F32, (784, 128)), "parameter")
        bias = graph.input("dense/bias", TensorType(F32, (128,)), "parameter")
        result = ops.relu(batch @ kernel + bias)
    graph.output("result", result)
    graph.output("total", total + result, total)
    return graph


def assert_round_trip(graph: Graph) -> None:
    text = str(graph)
    copy = parse(text)
    assert copy == graph
    assert parse(str(copy)) == graph
    copy.verify()


# Round trips.


@given(graphs())
def test_random_graphs_parse_back(case: Case) -> None:
    assert_round_trip(case[0])


@given(graphs())
def test_fused_random_graphs_parse_back(case: Case) -> None:
    fused, _ = fuse(simplify(case[0]))
    assert_round_trip(fused)
    assert parse(str(fused)).groups != () or not fused.groups


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_op_parses_back(case: OpCase) -> None:
    graph = Graph("case")
    operands = [graph.input(f"x{n}", type_) for n, type_ in enumerate(case.operands)]
    graph.output("y", graph.apply(case.op, *operands))
    assert_round_trip(graph)
    assert parse(str(graph)).values[-1].op == case.op


@st.composite
def constants(draw: st.DrawFn) -> Constant:
    """Any bits at all, also those of odd NaNs."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    type_ = TensorType(dtype, shape)
    byte = (
        st.integers(0, 1)
        if dtype.name == "bool"
        else st.sampled_from([0, 0x7F, 0x80, 0xC0, 0xF0, 0xFF]) | st.integers(0, 255)
    )
    element = (
        st.binary(min_size=0)
        if not type_.size
        else st.lists(byte, min_size=dtype.itemsize, max_size=dtype.itemsize).map(bytes)
    )
    if type_.size and draw(st.booleans()):
        return Constant(type_, draw(element) * type_.size)
    return Constant(type_, b"".join(draw(element) for _ in range(type_.size)))


@given(constants())
@example(Constant(TensorType(BF16, ()), b"\x00\x80"))
def test_constants_keep_every_bit(constant: Constant) -> None:
    graph = Graph()
    graph.output("c", graph.apply(constant))
    assert parse(str(graph)).values[0].op == constant


@given(st.floats(width=32), st.floats())
def test_floats_are_written_shortly(single: float, double: float) -> None:
    graph = Graph()
    graph.output("f32", graph.constant(single, "f32"))
    graph.output("f64", graph.constant(double, "f64"))
    assert_round_trip(graph)
    assert max(map(len, str(graph).splitlines())) < 60


@given(
    st.builds(
        Everything,
        size=st.integers(-(2**63), 2**63 - 1),
        rate=st.floats(),
        flag=st.booleans(),
        label=st.text(),
        dtype=st.sampled_from(DTYPES),
        wanted=st.builds(TensorType, st.sampled_from(DTYPES), st.lists(st.integers(0, 9), max_size=4).map(tuple)),
        axes=st.lists(st.integers(-9, 9)).map(tuple),
        nested=st.lists(st.tuples(st.integers(-9, 9), st.floats(allow_nan=False))).map(tuple),
        maybe=st.none() | st.integers(0, 9),
        scale=st.sampled_from([0.0, -0.0, float("inf"), 1e-300]),
    )
)
def test_attributes_of_every_kind_parse_back(op: Everything) -> None:
    graph = Graph()
    graph.output("y", graph.apply(op))
    found = parse(str(graph)).values[0].op
    # Compared by their text, in which −0.0 is not 0.0 and NaN is NaN.
    assert repr(found) == repr(op)
    assert isinstance(found, Everything)
    assert np.float64(found.rate).tobytes() == np.float64(op.rate).tobytes()


def test_names_may_hold_anything() -> None:
    graph = Graph('quote " backslash \\ newline \n tab \t NUL \0 \u2028 # } ü \ud800')
    with layer_scope("layer\nwith } lines"):
        x = graph.input("%1: # {\r", TensorType(F32, (2,)))
    graph.output("", ops.exp(x), x)
    assert_round_trip(graph)


def test_a_node_in_several_kernels_is_written_in_each() -> None:
    graph = dense()
    nodes = [value for value in graph.live() if value.op.name not in ("input", "constant")]
    graph.groups = (
        Group("one", "contraction", tuple(nodes[:-1]), (nodes[-2],)),
        Group("two", "map", (nodes[0], nodes[1], nodes[-1]), (nodes[-1],)),
    )
    assert str(graph).count(f"%{nodes[0].number}: ") == 2
    assert_round_trip(graph)
    assert [group.kind for group in parse(str(graph)).groups] == ["contraction", "map"]


def test_dead_nodes_are_left_out() -> None:
    graph = dense()
    before = str(graph)
    ops.exp(graph.inputs[2])
    assert str(graph) == before


def test_comments_and_blank_lines_mean_nothing() -> None:
    graph = dense()
    assert "# dense" in str(graph) and "#" not in print_graph(graph, comments=False)
    text = "# a graph\n\n" + str(graph).replace("\n", "  # noted\r\n\n")
    assert parse(text) == graph


def test_text_has_no_file_names() -> None:
    assert "test_ir_text" not in str(dense())


def test_goldens(golden: Callable[[str, str], None]) -> None:
    graph = dense()
    golden("dense.ir", str(graph))
    golden("dense_fused.ir", str(fuse(simplify(graph))[0]))


def test_the_grammar_shows_a_graph() -> None:
    assert gradloom.compiler.ir_text.__doc__ is not None
    lines = gradloom.compiler.ir_text.__doc__.splitlines()
    start = lines.index('    graph "step" {')
    example = "\n".join(line[4:] for line in lines[start : lines.index("    }", start) + 1])
    assert print_graph(parse(example), comments=False).split() == example.replace("# dense", "").split()


# What is refused.

HEAD = 'graph "g" {\n  %0: f32[2] = input {label="x"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected `graph \"name\" {`. Received: the end of the text"),
        ("model {", "line 1: expected `graph`. Received: model"),
        (HEAD, "line 3: expected a node, a kernel, an output or `}`. Received: the end of the text"),
        (HEAD + "}\n}", "line 4: expected the end of the text. Received: }"),
        (HEAD + "  %1: f32[2] = exq %0\n}", "line 3: unknown op. Did you mean exp\\? Received: exq"),
        (HEAD + "  %1: f32[3] = exp %0\n}", r"line 3: exp has type f32\[2\]. Received: f32\[3\]"),
        (HEAD + "  %1: f32[2] = exp %0 %0\n}", "line 3: exp"),
        (
            HEAD + "  %1: f32[2] = exp %2\n}",
            "line 3: expected a value defined before. Received: %2, which is not defined",
        ),
        (HEAD + "  %1: f32[2] = exp %1\n}", "line 3: .* %1, which comes later"),
        (HEAD + "  %0: f32[2] = input\n}", "line 3: input: .*label"),
        (HEAD + '  %0: f32[2] = input {label="y"}\n}', "line 3: %0 was defined otherwise on line 2"),
        (HEAD + "  %1: f32[] = sum %0 {axes=1}\n}", "line 3: sum expects axes of type"),
        (HEAD + "  %1: f32[] = sum %0 {axis=[0]}\n}", "line 3: sum has attributes: axes. Received: axis"),
        (HEAD + "  %1: f32[] = sum %0 {axes=[0], axes=[0]}\n}", "line 3: attribute 'axes' is given twice"),
        (HEAD + "  %1: f16[2] = exp %0\n}", "line 3: unknown dtype. Expected one of bool, .*Received: f16"),
        (HEAD + "  %1: f32[2 = exp %0\n}", "line 3: expected `,`. Received: ="),
        (HEAD + "  %1: f32[-2] = exp %0\n}", "line 3: expected a size of 0 or more"),
        (HEAD + "  %1: f32[] = constant {value=true}\n}", "line 3: expected an element of type f32. Received: True"),
        (HEAD + "  %1: u8[] = constant {value=256}\n}", "line 3: expected an element of type u8. Received: 256"),
        (HEAD + "  %1: f32[2] = constant {value=[1.0]}\n}", "line 3: expected a list of 2 items. Received: 1 items"),
        (HEAD + '  %1: f32[2] = constant {bytes="00"}\n}', r"line 3: expected 8 bytes for f32\[2\]. Received: 1"),
        (HEAD + '  %1: f32[2] = constant {bytes="0g"}\n}', "line 3: expected hexadecimal digits"),
        (HEAD + "  %1: f32[2] = constant\n}", "line 3: constant expects `value` or `bytes`. Received: no attribute"),
        (HEAD + '  output "y" = %7\n}', "line 3: .*%7, which is not defined"),
        (HEAD + '  output "y" = %0\n' * 2 + "}", "line 4: output 'y' is given twice"),
        (HEAD + '  %1: f32[2] = exp %0\n  output "y" = %0 onto %1\n}', "line 4: expected an input of type"),
        (HEAD + '  kernel "k" map {\n  } %0\n}', "line 4: expected `->`. Received: %0"),
        (HEAD + '  kernel "k" map {\n  } -> %0 %9\n}', "line 3: .*%9, which is not defined"),
        (HEAD + '  output "y" = %0 extra\n}', "line 3: expected the end of the line. Received: extra"),
        (HEAD + '  output "y\\q" = %0\n}', "line 3: expected the output's name, escaped as in JSON"),
        (HEAD + "  $\n}", r"line 3: expected a node, .*Received: \$"),
    ],
)
def test_errors_name_the_line_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "type_",
    [
        "f32[9999999999999]",
        "f64[65536,65536]",
        "u8[" + "9" * 5000 + "]",
        "f32[" + "1," * 100 + "1]",
        "f32[4611686018427387904,4]",
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(type_: str) -> None:
    with pytest.raises(ParseError, match="line 2: expected"):
        parse(f'graph "g" {{\n  %0: {type_} = constant {{value=0.0}}\n}}')


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ParseError, match="line 2: expected a literal"):
        parse('graph "g" {\n  %0: f32[1] = constant {value=' + "[" * 100_000 + "\n}")


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """The text of a graph after some edits: cut, doubled, swapped, overwritten by other parts of it or by anything."""
    text = str(fuse(dense())[0]) if draw(st.booleans()) else str(dense())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        other = draw(st.integers(0, len(text)))
        inserted = draw(
            st.sampled_from(
                ["", "\n", "%", "[", "]", "{", "}", ",", '"', "?", "-1", "0", "nan", "9" * 30, "%3", "input", "\\"]
            )
            | st.just(text[other : other + (end - start)])
            | st.text(max_size=3)
        )
        text = text[:start] + inserted + text[end:]
    return text


@given(mutants())
def test_mutants_parse_or_are_refused(text: str) -> None:
    try:
        graph = parse(text)
    except ParseError:
        return
    graph.verify()
    str(graph)


@given(st.text())
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="^line [0-9]+: "):
        parse(text)


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ("  %1: f32[2] = exq %0", "exq"),
        ("  %1: f16[2] = exp %0", "f16"),
        ("  %1: f32[2] = exp %1", "exp"),
        ("  %1: f32[2 = exp %0", "="),
        ("  %1: f32[] = sum %0 {axes=[0], axes=[0]}", "axes=[0]}"),
        ('  output "y" = %7', "%7"),
        ('  output "y" = ', ""),
    ],
)
def test_errors_know_their_column(line: str, at: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(HEAD + line + "\n}")
    expected = line.rindex(at) if at else len(line.rstrip())
    assert (caught.value.line, caught.value.column) == (3, expected + 1)
