"""Prints a kernel of the loop IR as pseudo-C.

    kernel relu(f32 x[100], out f32 y[100]) over 1 block {
        parallel for (block1 = begin; block1 < end; block1++) {
            for (i2 = 0; i2 < 96; i2 += 16) {
                y[i2 : +16] = max(x[i2 : +16], 0.0);
            }
        }
    }

`x[i : +16]` are 16 adjacent elements, `x[i : +4/16]` the first four of a vector whose other lanes stay untouched,
`x[v]` with a vector v of offsets a gather. An expression that is read once stands inside its reader, unless a store in
between could change what it loads. Scalars that meet vectors are broadcast silently.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from gradloom.compiler.loops.grammar import Block, Buffer, Expr, For, If, Kernel, Store, VType
from gradloom.compiler.types import I64, DType

_WIDTH = 88
"""Longer expressions get a name, and longer heads a line for each parameter."""

_ATOM, _UNARY, _CONDITIONAL = 10, 9, 0

# Each opcode's symbol and how tightly it binds, as in C; products are written without spaces.
_INFIX = {
    "mul": ("*", 8), "div": ("/", 8), "rem": ("%", 8),
    "add": (" + ", 7), "sub": (" - ", 7),
    "shl": (" << ", 6), "shr": (" >> ", 6),
    "lt": (" < ", 5), "le": (" <= ", 5), "gt": (" > ", 5), "ge": (" >= ", 5),
    "eq": (" == ", 4), "ne": (" != ", 4),
    "and": (" & ", 3), "xor": (" ^ ", 2), "or": (" | ", 1),
}  # fmt: skip

_PREFIX = {"neg": "-", "not": "!"}


@dataclass(frozen=True)
class _Text:
    """An expression in text: how tightly its outermost operator binds, and whether a store may change its value."""

    text: str
    binding: int = _ATOM
    loads: bool = False

    def within(self, binding: int) -> str:
        """The text as an operand of an operator."""
        return self.text if self.binding >= binding else f"({self.text})"


def print_kernel(kernel: Kernel) -> str:
    """The kernel as pseudo-C, one line for each store, loop, and value that is read more than once."""
    return "\n".join(_Printer(kernel).lines()) + "\n"


class _Printer:
    """Prints statements in order; keeps expressions that wait for their only reader."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.stored = kernel.stored()
        self.readers: Counter[Expr] = Counter()
        self.reader_block: dict[Expr, Block] = {}
        self._count(kernel)
        self.texts: dict[Expr, _Text] = {}
        self.waiting: dict[Expr, _Text] = {}
        self.taken = {buffer.name for buffer in (*kernel.buffers, *kernel.scratch)}
        self.number = 0

    def lines(self) -> Iterator[str]:
        kernel = self.kernel
        parameters = [f"{'out ' if buffer in self.stored else ''}{declaration(buffer)}" for buffer in kernel.buffers]
        over = f"over {kernel.blocks} block{'' if kernel.blocks == 1 else 's'} {{"
        head = f"kernel {kernel.name}({', '.join(parameters)}) {over}"
        if len(head) <= _WIDTH + 32:
            yield head
        else:
            yield f"kernel {kernel.name}("
            yield from (f"    {parameter}," for parameter in parameters)
            yield f") {over}"
        yield from (f"    {buffer.space} {declaration(buffer)};" for buffer in kernel.scratch)
        yield from self.block(kernel.body, 1)
        yield "}"

    def _count(self, kernel: Kernel) -> None:
        """Count the readers of each expression that counts, and note the block that reads it."""
        home: dict[Expr, Block] = {}
        reads: list[tuple[Expr, Block]] = []

        def walk(block: Block) -> None:
            for statement in block.statements:
                if isinstance(statement, Expr):
                    home[statement] = block
                elif isinstance(statement, Store):
                    reads.extend((expr, block) for expr in (statement.offset, statement.value))
                elif isinstance(statement, For):
                    reads.extend((expr, block) for expr in (statement.start, statement.stop, *statement.initial))
                    reads.extend((expr, statement.body) for expr in statement.next)
                    walk(statement.body)
                else:
                    reads.append((statement.condition, block))
                    walk(statement.body)

        walk(kernel.body)
        while reads:
            expr, block = reads.pop()
            if not self.readers[expr] and expr in home:
                reads.extend((arg, home[expr]) for arg in expr.args)
            self.readers[expr] += 1
            self.reader_block[expr] = block

    # Statements.

    def block(self, block: Block, depth: int) -> Iterator[str]:
        indent = "    " * depth
        for statement in block.statements:
            if isinstance(statement, Expr):
                yield from (indent + line for line in self.define(statement, block))
            elif isinstance(statement, Store):
                yield from (indent + line for line in self.store(statement))
            elif isinstance(statement, For):
                yield from self.loop(statement, depth)
            else:
                yield from self.condition(statement, depth)

    def define(self, expr: Expr, block: Block) -> Iterator[str]:
        """Let the expression wait for its reader, or give it a name."""
        if expr.op in ("const", "var") or not self.readers[expr]:
            return
        if self.is_plain(expr):
            self.texts[expr] = self.render(expr)
            return
        text = self.render(expr)
        waits = self.readers[expr] == 1 and self.reader_block[expr] is block
        if waits and len(text.text) <= _WIDTH:
            self.waiting[expr] = text
            return
        yield self.name(expr, text)

    def is_plain(self, expr: Expr) -> bool:
        """So simple that it is written out wherever it is read: a base with an offset, a name in every lane."""
        known = not any(arg in self.waiting for arg in expr.args)
        if expr.op == "add" and expr.dtype == I64 and expr.lanes == 1:
            base, offset = expr.args
            return known and offset.op == "const" and self.value(base).binding == _ATOM
        return expr.op == "iota" or (expr.op == "broadcast" and known)

    def name(self, expr: Expr, text: _Text) -> str:
        """The line that gives an expression a name."""
        self.number += 1
        while f"v{self.number}" in self.taken:
            self.number += 1
        self.texts[expr] = _Text(f"v{self.number}")
        return f"{type_name(expr.type)} v{self.number} = {text.text};"

    def settle(self) -> Iterator[str]:
        """Name everything that waits and that a store could change."""
        for expr in [expr for expr, text in self.waiting.items() if text.loads]:
            yield self.name(expr, self.waiting.pop(expr))

    def store(self, store: Store) -> Iterator[str]:
        target = self.access(store.buffer, store.offset, store.value.lanes, store.active)
        value = self.value(store.value).text
        yield from self.settle()
        yield f"{target} = {value};"

    def loop(self, loop: For, depth: int) -> Iterator[str]:
        indent = "    " * depth
        var, start, stop = str(loop.var.attr), self.value(loop.start).text, self.value(loop.stop).text
        initial = [self.value(value).text for value in loop.initial]
        yield from (indent + line for line in self.settle())
        names = [str(carried.attr) for carried in loop.carried]
        yield from (indent + line for line in self.begin(loop.carried, initial))
        advance = f"{var}++" if loop.step == 1 else f"{var} += {loop.step}"
        yield f"{indent}{'parallel ' * loop.parallel}for ({var} = {start}; {var} < {stop}; {advance}) {{"
        yield from self.block(loop.body, depth + 1)
        yield from (f"{indent}    {line}" for line in self.advance(names, loop.next))
        yield indent + "}"

    def begin(self, carried: Sequence[Expr], initial: Sequence[str]) -> Iterator[str]:
        """Declare the carried values: neighbours of one type that start alike share a line."""
        for (type, value), run in groupby(zip(carried, initial, strict=True), lambda pair: (pair[0].type, pair[1])):
            names = [str(expr.attr) for expr, _ in run]
            if len(names) > 3:
                names = [names[0], "…", names[-1]]
            yield f"{type_name(type)} {', '.join(names)} = {value};"

    def advance(self, names: Sequence[str], following: Sequence[Expr]) -> Iterator[str]:
        """The carried values take their next ones: all at once where one is computed from another that changed."""
        texts = [self.value(value).text for value in following]
        for place, text in enumerate(texts):
            if set(names[:place]) & set(re.findall(r"\w+", text)):
                yield f"({', '.join(names)}) = ({', '.join(texts)});"
                return
        yield from (f"{name} = {text};" for name, text in zip(names, texts, strict=True))

    def condition(self, statement: If, depth: int) -> Iterator[str]:
        indent = "    " * depth
        condition = self.value(statement.condition).text
        yield from (indent + line for line in self.settle())
        yield f"{indent}if ({condition}) {{"
        yield from self.block(statement.body, depth + 1)
        yield indent + "}"

    # Expressions.

    def value(self, expr: Expr) -> _Text:
        """An operand: a literal, a name, or the expression that waited for this reader."""
        if expr in self.waiting:
            return self.waiting.pop(expr)
        if expr.op == "const":
            text = literal(expr.attr, expr.dtype)
            return _Text(text, _UNARY if text.startswith("-") else _ATOM)
        if expr.op == "var":
            return _Text(str(expr.attr))
        return self.texts[expr]

    def render(self, expr: Expr) -> _Text:
        """The expression with its operands."""
        if expr.op == "load":
            buffer, active = expr.attr
            offset = expr.args[0]
            return _Text(self.access(buffer, offset, expr.lanes, active), _ATOM, buffer in self.stored)
        args = [self.value(arg) for arg in expr.args]
        loads = any(arg.loads for arg in args)
        if expr.op == "broadcast":
            return args[0]
        if infix := _INFIX.get(expr.op):
            symbol, binding = infix
            if expr.op == "add" and args[1].text.startswith("-"):
                symbol, args[1] = " - ", _Text(args[1].text[1:], args[1].binding)
            # Operators of one strength are grouped from the left.
            return _Text(f"{args[0].within(binding)}{symbol}{args[1].within(binding + 1)}", binding, loads)
        if prefix := _PREFIX.get(expr.op):
            return _Text(prefix + args[0].within(_ATOM), _UNARY, loads)
        if expr.op == "select":
            condition, x, y = (arg.within(_CONDITIONAL + 1) for arg in args)
            return _Text(f"{condition} ? {x} : {y}", _CONDITIONAL, loads)
        return _Text(self.call(expr, [arg.text for arg in args]), _ATOM, loads)

    def call(self, expr: Expr, args: Sequence[str]) -> str:
        if expr.op == "iota":
            return "iota"
        name = {
            "convert": type_name(expr.type),
            "bitcast": f"bits_as_{expr.dtype}",
            "reduce": f"reduce_{expr.attr}",
            "extract": f"lane{expr.attr}",
        }.get(expr.op, expr.op)
        return f"{name}({', '.join(args)})"

    def access(self, buffer: Buffer, offset: Expr, lanes: int, active: int | None) -> str:
        """Elements of a buffer: one, adjacent ones, or those at a vector of offsets."""
        count = str(lanes) if active is None else f"{active}/{lanes}"
        place = self.value(offset).text
        if offset.lanes == 1:
            return f"{buffer.name}[{place}]" if lanes == 1 else f"{buffer.name}[{place} : +{count}]"
        return f"{buffer.name}[{place}]" if active is None else f"{buffer.name}[{place} : {count}]"


def type_name(type: VType) -> str:
    """`f32`, or `f32x16` for a vector."""
    return str(type.dtype) if type.lanes == 1 else f"{type.dtype}x{type.lanes}"


def declaration(buffer: Buffer) -> str:
    """`f32 x[32,784]`."""
    shape = str(buffer.type)[len(str(buffer.type.dtype)) :]
    return f"{buffer.type.dtype} {buffer.name}{shape}"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A literal, floats with as many digits as tell them apart in their precision."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    return str(dtype.numpy.type(value)) if dtype.is_float and np.isfinite(value) else str(value)
