"""What kernels on Winograd's tiles share: transforms as instructions, scratch by points, and the micro-kernel on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from gradloom.compiler.ir import Value
from gradloom.compiler.kernels.lowering import Lowering
from gradloom.compiler.kernels.outer_product import Vectors, multiply_add
from gradloom.compiler.loops import index as ix
from gradloom.compiler.loops.builder import Builder
from gradloom.compiler.loops.grammar import Buffer, Expr
from gradloom.compiler.loops.index import Index
from gradloom.compiler.ops.base import Position
from gradloom.compiler.ops.winograd import Matrix
from gradloom.compiler.types import DType, TensorType

Grid = Sequence[Sequence[Expr]]
"""A tile's pixels or points, each a vector of channels."""

VECTORS = 2
"""Vectors in a panel of filters: with all other registers for rows, each element that is loaded is used most often."""


def linear(b: Builder, matrix: Matrix, x: Sequence[Expr]) -> list[Expr]:
    """The rows of `matrix` · x.

    Points of interpolation come in pairs ±p, so that rows, or columns, agree up to signs: what they share is a sum that
    the builder emits once.
    """
    width = len(matrix[0])
    pairs = [(j, j + 1) for j in range(1, width - 1, 2) if all(abs(row[j]) == abs(row[j + 1]) for row in matrix)]
    return [_paired(b, row, x, pairs) if pairs else _by_parity(b, row, x) for row in matrix]


def _paired(b: Builder, row: Sequence[Fraction], x: Sequence[Expr], pairs: Sequence[tuple[int, int]]) -> Expr:
    """A row whose entries at each pair of columns agree up to the sign."""
    terms = []
    inside = {j for pair in pairs for j in pair}
    for j, entry in enumerate(row):
        if j not in inside:
            terms.append((entry, x[j]))
    for j, k in pairs:
        terms.append((row[j], b.add(x[j], x[k]) if row[j] == row[k] else b.sub(x[j], x[k])))
    return _sum(b, terms)


def _by_parity(b: Builder, row: Sequence[Fraction], x: Sequence[Expr]) -> Expr:
    """A row as the sum, or the difference, of its even and its odd terms: the row of the opposite point shares both."""
    even, odd = ([(entry, x[j]) for j, entry in enumerate(row) if j % 2 == parity and entry] for parity in (0, 1))
    if not even or not odd:
        return _sum(b, even or odd)
    if odd[0][0] < 0:
        return b.sub(_sum(b, even), _sum(b, [(-entry, value) for entry, value in odd]))
    return b.add(_sum(b, even), _sum(b, odd))


def _sum(b: Builder, terms: Sequence[tuple[Fraction, Expr]]) -> Expr:
    """Σ entry · value, beginning with an entry of 1 if there is one."""
    ordered = sorted(((entry, value) for entry, value in terms if entry), key=lambda term: term[0] != 1)
    entry, value = ordered[0]
    total = value if entry == 1 else b.mul(value, float(entry))
    for entry, value in ordered[1:]:
        if abs(entry) == 1:
            total = b.add(total, value) if entry == 1 else b.sub(total, value)
        else:
            total = b.fma(value, float(entry), total)
    return total


def both_axes(b: Builder, matrix: Matrix, tile: Grid) -> list[list[Expr]]:
    """`matrix` · tile · `matrix`ᵀ."""
    down = [linear(b, matrix, column) for column in zip(*tile, strict=True)]
    return [linear(b, matrix, row) for row in zip(*down, strict=True)]


class Planes:
    """Scratch for one matrix [rows, columns] at each point of a tile.

    A tile has `side` by `side` points. Rows and planes that lie a power of two apart would all fall into the same few
    sets of the cache: each is longer by a vector than what it holds.
    """

    def __init__(self, b: Builder, name: str, dtype: DType, shape: tuple[int, int, int], lanes: int) -> None:
        self.side, rows, width = shape
        self.row = width + lanes
        self.plane = rows * self.row + lanes
        self.buffer = b.allocate(Buffer(name, TensorType(dtype, (self.side**2, self.plane)), "scratch"))

    def at(self, point: Index, row: Index, column: Index) -> Index:
        """Where an element lies."""
        return point.scaled(self.plane) + row.scaled(self.row) + column

    def keep(self, b: Builder, row: Index, column: Index, points: Grid) -> None:
        """Store the points of a tile, a vector each."""
        for n, point in enumerate(point for line in points for point in line):
            b.store(self.buffer, self.at(ix.constant(n), row, column), point)

    def kept(self, b: Builder, row: Index, column: Index) -> Grid:
        """The points of a tile that were stored."""

        def point(n: int) -> Expr:
            return b.broadcast(b.load(self.buffer, self.at(ix.constant(n), row, column)), b.lanes)

        return [[point(i * self.side + j) for j in range(self.side)] for i in range(self.side)]


def window(lowering: Lowering, value: Value, corner: Position, side: int) -> Grid:
    """The pixels of an image from a corner on, `side` by `side`, a vector of channels each, to be computed with."""
    image, line, column, channels = corner
    b, dtype = lowering.b, value.dtype.arithmetic

    def pixel(i: int, j: int) -> Expr:
        stored = lowering.evaluator.read(value, (image, line + i, column + j, channels))
        return b.broadcast(b.convert(stored, dtype), b.lanes)

    return [[pixel(i, j) for j in range(side)] for i in range(side)]


def multiply_tile(
    b: Builder,
    sums: Sequence[Expr],
    vectors: Vectors,
    depth: int,
    left: Callable[[int, Index], Expr],
    right: Callable[[Index, Index], Expr],
) -> list[Expr]:
    """The micro-kernel: add left(row, k) · right(columns, k) over all k to the sums of a tile of rows by vectors."""
    with b.loop(0, depth, initial=sums, name="k") as loop:
        vectors_of_right = []
        for at, lanes, active in vectors:
            with b.vectorized(lanes, active):
                vectors_of_right.append(b.broadcast(right(first_lanes(at, active), loop.index), lanes))
        results = []
        for r in range(len(sums) // len(vectors)):
            with b.vectorized(1):
                element = left(r, loop.index)
            for n, vector in enumerate(vectors_of_right):
                results.append(multiply_add(b, element, vector, loop.carried[r * len(vectors) + n]))
        loop.next(*results)
    return list(loop.results)


def by_row(b: Builder, sums: Sequence[Expr], vectors: Vectors) -> Iterator[tuple[int, Index, Expr]]:
    """Each sum of a tile with its row and its columns, inside of which it is to be stored."""
    for slot, result in enumerate(sums):
        r, n = divmod(slot, len(vectors))
        at, lanes, active = vectors[n]
        with b.vectorized(lanes, active):
            yield r, first_lanes(at, active), result


def first_lanes(start: int, active: int) -> Index:
    """The index of a vector whose first `active` lanes count, from `start` on."""
    return ix.lanes(ix.constant(start), active)
