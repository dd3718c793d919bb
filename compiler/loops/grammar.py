"""The grammar of the loop IR.

    kernel     ::=  Kernel(name, buffers, blocks, body)
    block      ::=  statement*
    statement  ::=  expr                                             an SSA definition, computed where it stands
                 |  Store(buffer, offset, value, active)
                 |  For(var, start, stop, step, body, carried, …)    a counted loop with loop-carried values
                 |  If(condition, body)
    expr       ::=  Expr(op, type, args, attr)                       `op` is one of OPCODES
    type       ::=  VType(dtype, lanes)                              a scalar (one lane) or a vector <lanes x dtype>

A kernel runs `blocks` independent blocks; each thread gets a range of them as [begin, end). Offsets count elements.
`active` is the number of leading lanes that a memory access touches (None: all of them); the others of a load are 0.
A bf16 is loaded, stored, moved and converted, but not computed with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradloom.compiler.types import BOOL, DType, TensorType

OPCODES: dict[str, str] = {
    "const": "the literal `attr`, in every lane",
    "var": "a loop index (i64), the range of blocks, or a loop-carried value; `attr` is its name",
    "add": "x + y", "sub": "x - y", "mul": "x * y",
    "div": "x / y for floats; for integers the quotient rounded toward zero, 0 where y is 0",
    "rem": "the remainder that belongs to div; 0 where y is 0",
    "min": "the smaller one, NaN if either is", "max": "the larger one, NaN if either is",
    "neg": "-x", "abs": "|x|", "sqrt": "square root",
    "floor": "toward -inf", "ceil": "toward +inf", "round": "to nearest, ties to even",
    "fma": "x * y + z, rounded once where the target can, else twice",
    "dot2": "x0 * y0 + x1 * y1 + z for f32 z and words x and y (i32) that hold two bf16, the first in the lower half; "
    "where the target has an instruction for it, denormals count as 0",
    "and": "bits or bools", "or": "bits or bools", "xor": "bits or bools", "not": "of a bool",
    "shl": "x << y", "shr": "x >> y without sign",
    "eq": "x == y", "ne": "x != y (true for NaN)", "lt": "x < y", "le": "x <= y", "gt": "x > y", "ge": "x >= y",
    "select": "y where x else z",
    "convert": "to the type's dtype: float to integer truncates and saturates, NaN gives 0; to bool is x != 0; "
    "to bf16 rounds to nearest, ties to even",
    "bitcast": "the same bits as another dtype",
    "broadcast": "a scalar in every lane", "iota": "0, 1, 2, …, in the lanes",
    "reduce": "all lanes combined by `attr` (add, mul, min, max, and, or) in a tree of halves",
    "extract": "the scalar in lane `attr`",
    "load": "from `attr` = (buffer, active); a scalar offset reads adjacent lanes, a vector of offsets gathers",
}  # fmt: skip
"""Every opcode with its meaning; operands have one type unless the meaning says otherwise."""


@dataclass(frozen=True)
class VType:
    """The type of an expression: a scalar (one lane) or a vector."""

    dtype: DType
    lanes: int = 1

    def __str__(self) -> str:
        return str(self.dtype) if self.lanes == 1 else f"<{self.lanes} x {self.dtype}>"

    def with_dtype(self, dtype: DType) -> VType:
        return VType(dtype, self.lanes)

    @property
    def truth(self) -> VType:
        """The type of a comparison of two such values."""
        return VType(BOOL, self.lanes)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory that a kernel reads or writes: a parameter of the kernel, or its own scratch.

    `space` is "param" (a pointer handed in), "scratch" (memory of the running thread, alive during one kernel) or
    "stack" (a few vectors that the compiler should keep in registers). With a `panel`, elements do not lie in row-major
    order: the last axis is cut into panels of so many columns, which lie one behind the other. With a `border`, each
    image of a batch of images lies in a larger one, with so many lines above and below it, and columns to its left and
    right.
    """

    name: str
    type: TensorType
    space: str = "param"
    panel: int = 0
    border: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that lies in memory: with the border."""
        if not any(self.border):
            return self.type.shape
        images, height, width, channels = self.type.shape
        top, bottom, left, right = self.border
        return (images, height + top + bottom, width + left + right, channels)

    @property
    def nbytes(self) -> int:
        """Bytes in memory: with the border."""
        return TensorType(self.type.dtype, self.shape).nbytes


@dataclass(frozen=True, eq=False)
class Expr:
    """An SSA expression; equal only to itself."""

    op: str
    type: VType
    args: tuple[Expr, ...] = ()
    attr: Any = None

    @property
    def lanes(self) -> int:
        return self.type.lanes

    @property
    def dtype(self) -> DType:
        return self.type.dtype


@dataclass(frozen=True, eq=False)
class Store:
    """Write `value` at `offset`: adjacent lanes for a scalar offset, scattered ones for a vector of offsets."""

    buffer: Buffer
    offset: Expr
    value: Expr
    active: int | None = None


@dataclass(eq=False)
class Block:
    """Statements in order."""

    statements: list[Expr | Store | For | If] = field(default_factory=list)


@dataclass(eq=False)
class For:
    """A counted loop, `for (var = start; var < stop; var += step)`.

    Each of `carried` starts as `initial` and takes `next` at the end of every turn; `results` are the values after the
    loop. A `parallel` loop stands outermost and runs over the thread's blocks.
    """

    var: Expr
    start: Expr
    stop: Expr
    step: int
    body: Block
    carried: tuple[Expr, ...] = ()
    initial: tuple[Expr, ...] = ()
    next: tuple[Expr, ...] = ()
    results: tuple[Expr, ...] = ()
    parallel: bool = False


@dataclass(eq=False)
class If:
    """Run `body` when the scalar bool `condition` holds."""

    condition: Expr
    body: Block


@dataclass(frozen=True, eq=False)
class Kernel:
    """A loop nest over buffers.

    `buffers` are its parameters in order, `scratch` the memory that it needs for itself; `begin` and `end` are the
    variables that hold the thread's range of `blocks`.
    """

    name: str
    buffers: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    blocks: int
    begin: Expr
    end: Expr
    body: Block

    def stored(self) -> set[Buffer]:
        """The buffers that the kernel writes."""
        return {statement.buffer for statement in self._statements() if isinstance(statement, Store)}

    def loaded(self) -> set[Buffer]:
        """The buffers that the kernel reads."""
        return {
            statement.attr[0]
            for statement in self._statements()
            if isinstance(statement, Expr) and statement.op == "load"
        }

    def _statements(self) -> Iterator[Expr | Store | For | If]:
        """All statements, those inside of others too."""
        waiting = [self.body]
        while waiting:
            for statement in waiting.pop().statements:
                yield statement
                if isinstance(statement, For | If):
                    waiting.append(statement.body)

    def __str__(self) -> str:
        from gradloom.compiler.loops.text import print_kernel

        return print_kernel(self)


def nbytes(buffers: Sequence[Buffer]) -> int:
    """Bytes that buffers need side by side, each aligned to 64."""
    return sum(-(-buffer.type.nbytes // 64) * 64 for buffer in buffers)
