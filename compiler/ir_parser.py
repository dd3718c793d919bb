"""Reading the text form of graphs; the grammar stands in `gradloom.compiler.ir_text`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import numpy as np

import gradloom.compiler.ops  # noqa: F401  (fills Op.registry)
from gradloom.compiler.errors import GradloomError, ParseError
from gradloom.compiler.ir import GRAPH_STAGES, Constant, Graph, Group, Input, Op, Output, Value
from gradloom.compiler.provenance import Provenance
from gradloom.compiler.types import BOOL, DTYPES, MOST_BYTES, OPEN, DType, TensorType

MAX_RANK = 32
MAX_CONSTANT = 2**26
"""Bytes of a constant: the IR keeps small ones only, and a short text must not claim gigabytes."""
MAX_INTEGER = 2**64

INFERENCE = "inference"
"""The word of a graph whose weights stay as they are."""

_DTYPES = {dtype.name: dtype for dtype in DTYPES}
_TOKEN = re.compile(
    r"""[ \t\r]*(?:
      (?P<comment>\#.*)
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<value>%[0-9]+)
    | (?P<nan>nan:0x[0-9a-fA-F]+)
    | (?P<float>-?(?:[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|inf\b)|\b(?:nan|inf)\b)
    | (?P<int>-?[0-9]+)
    | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
    | (?P<mark>->|[:={}\[\],?])
    | (?P<unknown>\S)
    )""",
    re.VERBOSE,
)

_LAYER = re.compile(r'"(?:[^"\\]|\\.)*"|[^",\s][^",]*')
_LAYERS = re.compile(rf"(?:{_LAYER.pattern})(?:, (?:{_LAYER.pattern}))*")


class Place(NamedTuple):
    """A line and a column of the text, from 1."""

    line: int
    column: int = 1

    def error(self, message: str) -> ParseError:
        """The error that something is wrong here."""
        return ParseError(f"line {self.line}: {message}", self.line, self.column)


class Token(NamedTuple):
    """A word of the grammar: its kind is a group's name in `_TOKEN`, or "end" at the end of a line."""

    kind: str
    text: str
    column: int


class NanBits(int):
    """The literal `nan:0x…`: bits whose width is known only with the dtype."""


@dataclass
class Node:
    """A node as written, before its operands are known."""

    place: Place
    number: int
    type: TensorType
    op: Op
    operands: tuple[int, ...]
    layers: tuple[str, ...] = ()


@dataclass
class Kernel:
    """A kernel as written."""

    place: Place
    name: str
    kind: str
    members: list[int] = field(default_factory=list)
    results: tuple[int, ...] = ()


def parse(text: str) -> Graph:
    """Return the graph that `text` describes: `parse(str(graph)) == graph`.

    Raises `ParseError`, with the line and what was expected there, for any other text.
    """
    return _Parser(text).graph()


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        tokens = [
            Token(kind := str(match.lastgroup), match.group(kind), match.start(kind) + 1)
            for match in _TOKEN.finditer(text)
        ]
        self.comment = "".join(token.text[1:].strip() for token in tokens if token.kind == "comment")
        self.tokens = [token for token in tokens if token.kind != "comment"]
        self.position = 0

    @property
    def next(self) -> Token:
        if self.position < len(self.tokens):
            return self.tokens[self.position]
        last = self.tokens[-1]
        return Token("end", "the end of the line", last.column + len(last.text))

    @property
    def place(self) -> Place:
        """Where the next token is."""
        return Place(self.number, self.next.column)

    def take(self) -> Token:
        token = self.next
        self.position += 1
        return token

    def accept(self, text: str) -> bool:
        """Take the mark or word `text` if it comes next."""
        if self.next.kind in ("mark", "word") and self.next.text == text:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"`{text}`")

    def word(self, meaning: str) -> str:
        return self.take().text if self.next.kind == "word" else self.fail(meaning)

    def string(self, meaning: str) -> str:
        if self.next.kind != "string":
            self.fail(f"{meaning} in quotes")
        try:
            return str(json.loads(self.next.text))
        except ValueError:
            self.fail(f"{meaning}, escaped as in JSON")
        finally:
            self.position += 1

    def reference(self) -> int:
        if self.next.kind != "value" or len(self.next.text) > 10:
            self.fail("a value such as %3")
        return int(self.take().text[1:])

    def references(self) -> tuple[int, ...]:
        numbers = []
        while self.next.kind == "value":
            numbers.append(self.reference())
        return tuple(numbers)

    def end(self) -> None:
        if self.next.kind != "end":
            self.fail("the end of the line")

    def fail(self, expected: str) -> NoReturn:
        received = self.next.text if len(self.next.text) <= 60 else self.next.text[:60] + "…"
        raise self.place.error(f"expected {expected}. Received: {received}")

    def type(self) -> TensorType:
        place, name = self.place, self.word("a type such as f32[32,784]")
        if name not in _DTYPES:
            raise place.error(f"unknown dtype. Expected one of {', '.join(_DTYPES)}. Received: {name}")
        return TensorType(_DTYPES[name], self.shape())

    def shape(self) -> tuple[int, ...]:
        place = self.place
        self.expect("[")
        shape: list[int] = []
        total = 1
        while not self.accept("]"):
            if shape:
                self.expect(",")
            if self.accept("?"):
                size = OPEN
            else:
                size = self.integer()
                total *= max(size, 1)
                if size < 0:
                    raise place.error(f"expected a size of 0 or more. Received: {size}")
            shape.append(size)
            if len(shape) > MAX_RANK or total > MOST_BYTES:
                raise place.error(
                    f"expected a type of at most {MAX_RANK} axes and less than 2**63 elements. "
                    f"Received: {', '.join(map(str, shape))}, …"
                )
        return tuple(shape)

    def integer(self) -> int:
        if self.next.kind != "int" or len(self.next.text) > 21 or abs(int(self.next.text)) > MAX_INTEGER:
            self.fail("an integer of at most 64 bits")
        return int(self.take().text)

    def literal(self, depth: int = 0) -> Any:
        """An attribute's value; lists become tuples."""
        kind, text, _ = self.next
        if kind == "int":
            return self.integer()
        if kind == "float":
            self.take()
            return float(text)
        if kind == "nan":
            self.take()
            return NanBits(text[4:], 16)
        if kind == "string":
            return self.string("a string")
        if kind == "word" and text in ("true", "false", "none"):
            self.take()
            return {"true": True, "false": False, "none": None}[text]
        if kind == "word" and text in _DTYPES:
            following = self.tokens[self.position + 1 : self.position + 2]
            if [token.text for token in following] == ["["]:
                return self.type()
            return _DTYPES[self.take().text]
        if (kind, text) == ("mark", "[") and depth < MAX_RANK:
            return self.items(depth)
        self.fail("a literal")

    def items(self, depth: int) -> tuple[Any, ...]:
        self.expect("[")
        items: list[Any] = []
        while not self.accept("]"):
            if items:
                self.expect(",")
            items.append(self.literal(depth + 1))
        return tuple(items)

    def attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        if not self.accept("{"):
            return attributes
        while not self.accept("}"):
            if attributes:
                self.expect(",")
            place, name = self.place, self.word("the name of an attribute")
            if name in attributes:
                raise place.error(f"attribute {name!r} is given twice")
            self.expect("=")
            attributes[name] = self.literal()
        return attributes


class _Parser:
    """Reads all lines into nodes, kernels and outputs, and then builds the graph in the order of the numbers."""

    def __init__(self, text: str) -> None:
        self.lines = self._lines(text)
        self.last = 0
        self.nodes: dict[int, Node] = {}
        self.kernels: list[Kernel] = []
        self.outputs: dict[str, tuple[Place, int, int | None]] = {}

    def _lines(self, text: str) -> Iterator[_Line]:
        number = 0
        for number, line in enumerate(text.split("\n"), 1):
            tokens = _Line(number, line)
            if tokens.tokens:
                yield tokens
        self.last = number

    def line(self, expected: str) -> _Line:
        try:
            return next(self.lines)
        except StopIteration:
            raise Place(self.last).error(f"expected {expected}. Received: the end of the text") from None

    def graph(self) -> Graph:
        line = self.line('`graph "name" {`')
        line.expect("graph")
        graph = Graph(line.string("the graph's name"))
        if line.next.kind == "word" and line.next.text != INFERENCE:
            place, graph.stage = line.place, line.word("a stage")
            if graph.stage not in GRAPH_STAGES:
                raise place.error(f"expected one of the stages {', '.join(GRAPH_STAGES)}. Received: {graph.stage}")
        graph.inference = line.accept(INFERENCE)
        line.expect("{")
        line.end()
        self.body()
        for extra in self.lines:
            raise extra.place.error(f"expected the end of the text. Received: {extra.next.text}")
        self.build(graph)
        return graph

    def body(self) -> None:
        while True:
            line = self.line("a node, a kernel, an output or `}`")
            if line.accept("}"):
                return line.end()
            if line.accept("kernel"):
                self.kernel(line)
            elif line.accept("output"):
                self.output(line)
            elif line.next.kind == "value":
                self.node(line)
            else:
                line.fail("a node, a kernel, an output or `}`")

    def kernel(self, line: _Line) -> None:
        kernel = Kernel(line.place, line.string("the kernel's name"), line.word("the kernel's kind"))
        line.expect("{")
        line.end()
        while True:
            line = self.line("a node or `}`")
            if line.accept("}"):
                break
            kernel.members.append(self.node(line))
        line.expect("->")
        kernel.results = line.references()
        line.end()
        self.kernels.append(kernel)

    def output(self, line: _Line) -> None:
        place, name = line.place, line.string("the output's name")
        if name in self.outputs:
            raise place.error(f"output {name!r} is given twice")
        line.expect("=")
        place, number = line.place, line.reference()
        donor = line.reference() if line.accept("onto") else None
        line.end()
        self.outputs[name] = (place, number, donor)

    def node(self, line: _Line) -> int:
        start, number = line.place, line.reference()
        line.expect(":")
        type_ = line.type()
        line.expect("=")
        place, name = line.place, line.word("the name of an op")
        operands = line.references()
        attributes = line.attributes()
        line.end()
        op = _op(place, name, attributes, type_)
        node = Node(place, number, type_, op, operands, _layers(line.comment))
        # A node that several kernels compute is written in each of them.
        known = self.nodes.setdefault(number, node)
        if (known.type, known.op, known.operands) != (node.type, node.op, node.operands):
            raise start.error(f"%{number} was defined otherwise on line {known.place.line}")
        return number

    def build(self, graph: Graph) -> None:
        values: dict[int, Value] = {}

        def look_up(place: Place, number: int) -> Value:
            if number not in values:
                reason = "comes later" if number in self.nodes else "is not defined"
                raise place.error(f"expected a value defined before. Received: %{number}, which {reason}")
            return values[number]

        for number in sorted(self.nodes):
            node = self.nodes[number]
            operands = [look_up(node.place, operand) for operand in node.operands]
            try:
                value = graph.apply(node.op, *operands, provenance=map(Provenance, node.layers))
            except Exception as error:
                # Typing rules may fail in any way on attributes that no function of `gradloom.ops` would give.
                text = str(error) if isinstance(error, GradloomError) else f"{node.op}: attributes do not fit: {error}"
                raise node.place.error(text) from None
            if value.type != node.type:
                raise node.place.error(f"{node.op} has type {value.type}. Received: {node.type}")
            values[number] = value
        for name, (place, number, donor) in self.outputs.items():
            result = look_up(place, number)
            origin = None if donor is None else look_up(place, donor)
            if origin is not None and (not isinstance(origin.op, Input) or origin.type != result.type):
                raise place.error(f"expected an input of type {result.type} after `onto`. Received: %{donor}")
            graph.outputs.append(Output(name, result, origin))
        graph.groups = tuple(
            Group(k.name, k.kind, tuple(values[n] for n in k.members), tuple(look_up(k.place, n) for n in k.results))
            for k in self.kernels
        )


def _layers(comment: str) -> tuple[str, ...]:
    """The layer paths in a comment, as the printer writes them; what reads otherwise is for people."""
    if not _LAYERS.fullmatch(comment):
        return ()
    try:
        return tuple(json.loads(path) if path.startswith('"') else path for path in _LAYER.findall(comment))
    except ValueError:
        return ()


def _op(place: Place, name: str, attributes: dict[str, Any], type: TensorType) -> Op:
    """The op called `name`, from its attributes as read; raises `ParseError` for what the op does not have."""
    if name not in Op.registry:
        near = get_close_matches(name, Op.registry, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Expected one of: {', '.join(sorted(Op.registry))}."
        raise place.error(f"unknown op. {hint} Received: {name}")
    if name == Constant.name:
        return Constant(type, _constant_data(place, attributes, type))
    cls = Op.registry[name]
    known = [attribute.name for attribute in fields(cls)]  # type: ignore[arg-type]
    hints = _hints(cls)
    for attribute, value in attributes.items():
        if attribute not in known:
            raise place.error(f"{name} has attributes: {', '.join(known) or 'none'}. Received: {attribute}")
        attributes[attribute] = value = _number(value)
        if not _fits(value, hints[attribute]):
            raise place.error(f"{name} expects {attribute} of type {hints[attribute]}. Received: {value!r}")
    if "type" in known:
        attributes.setdefault("type", type)
    try:
        return cls(**attributes)
    except (GradloomError, TypeError, ValueError) as error:
        raise place.error(f"{name}: {error}") from None


@cache
def _hints(cls: type[Op]) -> dict[str, Any]:
    return get_type_hints(cls)


def _number(value: Any) -> Any:
    """The literal as Python keeps it: a NaN with bits becomes a float."""
    if isinstance(value, NanBits):
        return float(np.uint64(value & (2**64 - 1)).view(np.float64))
    return tuple(map(_number, value)) if isinstance(value, tuple) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a literal may stand for an attribute that is annotated with `hint`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple and isinstance(value, tuple):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(arguments) == len(value) and all(map(_fits, value, arguments))
    if hint in (int, str, bool, DType, TensorType):
        return isinstance(value, hint) and (hint is not int or not isinstance(value, bool))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    return origin is not tuple


def _constant_data(place: Place, attributes: dict[str, Any], type: TensorType) -> bytes:
    """The bytes of a constant, from `value=` or `bytes=`."""
    if OPEN in type.shape or type.nbytes > MAX_CONSTANT:
        raise place.error(f"expected a constant of at most {MAX_CONSTANT} bytes. Received: {type}")
    if len(attributes) != 1 or next(iter(attributes)) not in ("value", "bytes"):
        received = ", ".join(attributes) or "no attribute"
        raise place.error(f"constant expects `value` or `bytes`. Received: {received}")
    ((name, value),) = attributes.items()
    if name == "bytes":
        try:
            data = bytes.fromhex(value)
        except (TypeError, ValueError):
            raise place.error("expected hexadecimal digits in quotes") from None
        if len(data) != type.nbytes:
            raise place.error(f"expected {type.nbytes} bytes for {type}. Received: {len(data)}")
        return data
    if not isinstance(value, tuple):
        return _scalar_data(place, value, type.dtype) * type.size
    return b"".join(_elements(place, value, type.dtype, type.shape))


def _elements(place: Place, value: Any, dtype: DType, shape: tuple[int, ...]) -> Iterator[bytes]:
    if not shape:
        yield _scalar_data(place, value, dtype)
        return
    if not isinstance(value, tuple) or len(value) != shape[0]:
        received = f"{len(value)} items" if isinstance(value, tuple) else repr(value)
        raise place.error(f"expected a list of {shape[0]} items. Received: {received}")
    for item in value:
        yield from _elements(place, item, dtype, shape[1:])


def _scalar_data(place: Place, value: Any, dtype: DType) -> bytes:
    """The bytes of one element."""
    if isinstance(value, NanBits) and dtype.is_float and value < 2**dtype.bits:
        return value.to_bytes(dtype.itemsize, "little")
    is_number = isinstance(value, int) and not isinstance(value, bool | NanBits)
    fits = isinstance(value, bool) if dtype == BOOL else is_number or (dtype.is_float and isinstance(value, float))
    if fits:
        try:
            with np.errstate(over="ignore"):
                return bytes(np.asarray(value, dtype.numpy).tobytes())
        except OverflowError:
            pass
    raise place.error(f"expected an element of type {dtype}. Received: {value!r}")
