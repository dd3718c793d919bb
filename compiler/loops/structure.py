"""The structure of a kernel: what its code depends on, with buffers and values by number instead of name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradloom.compiler.loops.grammar import Block, Buffer, Expr, For, Kernel, Store


def structure(kernel: Kernel) -> str:
    """Text that kernels have in common if, and only if, they differ in names and in the number of their blocks."""
    return "\n".join(_Writer().kernel(kernel))


class _Writer:
    def __init__(self) -> None:
        self.numbers: dict[Expr | Buffer, int] = {}

    def number(self, thing: Expr | Buffer) -> int:
        """Things are numbered in the order in which they are met."""
        return self.numbers.setdefault(thing, len(self.numbers))

    def kernel(self, kernel: Kernel) -> Iterator[str]:
        for buffer in kernel.buffers:
            # The shape of what a pointer points to is in the offsets already.
            yield f"{self.number(buffer)} param {buffer.type.dtype}"
        for buffer in kernel.scratch:
            yield f"{self.number(buffer)} {buffer.space} {buffer.type}"
        yield f"blocks {self.number(kernel.begin)} {self.number(kernel.end)}"
        yield from self.block(kernel.body)

    def block(self, block: Block) -> Iterator[str]:
        yield "{"
        for statement in block.statements:
            if isinstance(statement, Expr):
                yield self.definition(statement)
            elif isinstance(statement, Store):
                parts = (self.number(statement.buffer), self.number(statement.offset), self.number(statement.value))
                yield f"store {parts} {statement.active}"
            elif isinstance(statement, For):
                yield from self.loop(statement)
            else:
                yield f"if {self.number(statement.condition)}"
                yield from self.block(statement.body)
        yield "}"

    def loop(self, loop: For) -> Iterator[str]:
        bounds = self.number(loop.start), self.number(loop.stop), loop.step
        initial = [self.number(value) for value in loop.initial]
        carried = [f"{self.number(value)}: {value.type}" for value in loop.carried]
        yield f"for {self.number(loop.var)} {bounds} {loop.parallel} {initial} {carried}"
        yield from self.block(loop.body)
        following = [self.number(value) for value in loop.next]
        yield f"next {following} {[self.number(value) for value in loop.results]}"

    def definition(self, expr: Expr) -> str:
        args = [self.number(arg) for arg in expr.args]
        return f"{self.number(expr)}: {expr.type} = {expr.op} {args} {self.attribute(expr)}"

    def attribute(self, expr: Expr) -> str:
        if expr.op == "load":
            buffer, active = expr.attr
            return f"{self.number(buffer)} {active}"
        if expr.op == "const":
            # By its bits: 0.0 is not -0.0, and every NaN is one of its own.
            return np.asarray(expr.attr, expr.dtype.numpy).tobytes().hex()
        return str(expr.attr)
