"""Affine indices: where in a tensor a lane reads, as Σ coefficient·variable + constant + stride·lane."""

from __future__ import annotations

from dataclasses import dataclass

from gradloom.compiler.loops.grammar import Expr

Terms = tuple[tuple[Expr, int], ...]


@dataclass(frozen=True)
class Index:
    """An index that may differ from lane to lane.

    `terms` maps scalar i64 expressions to coefficients; lane l adds `stride`·l; `vector` is a vector of i64 that could
    not be written affinely. `low` and `high` bound the value over all lanes that matter (None: unknown): they are the
    sums of the bounds of its parts, or looser.
    """

    terms: Terms = ()
    constant: int = 0
    stride: int = 0
    vector: Expr | None = None
    low: int | None = None
    high: int | None = None

    @property
    def is_uniform(self) -> bool:
        """The same for all lanes."""
        return self.stride == 0 and self.vector is None

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            other = constant(other)
        if self.vector is not None and other.vector is not None:
            raise ValueError("the sum of two vectors of indices is built by Builder.index_add")
        return Index(
            _sum(self.terms, other.terms),
            self.constant + other.constant,
            self.stride + other.stride,
            self.vector if self.vector is not None else other.vector,
            None if self.low is None or other.low is None else self.low + other.low,
            None if self.high is None or other.high is None else self.high + other.high,
        )

    def scaled(self, factor: int) -> Index:
        """`self`·factor, for an index without a vector part."""
        assert self.vector is None, "a vector of indices is scaled by Builder.index_scale"
        if factor == 0:
            return ZERO
        if factor == 1:
            return self
        low, high = self.low, self.high
        if factor < 0:
            low, high = high, low
        return Index(
            tuple([(variable, coefficient * factor) for variable, coefficient in self.terms]),
            self.constant * factor,
            self.stride * factor,
            None,
            None if low is None else low * factor,
            None if high is None else high * factor,
        )

    def split(self, divisor: int) -> tuple[Index, Index] | None:
        """Quotient and remainder by `divisor`, when they can be told apart without computing; else None.

        Multiples of the divisor go to the quotient; what is left is the remainder if it stays between two multiples.
        """
        if self.vector is not None or self.low is None or self.high is None:
            return None
        multiples = tuple(term for term in self.terms if term[1] % divisor == 0)
        others = tuple(term for term in self.terms if term[1] % divisor)
        lanes_stay = self.stride % divisor != 0
        if (bounds := self._bounds_without(multiples, others, lanes_stay)) is None:
            return None
        low, high = bounds
        quotient = low // divisor
        if high // divisor != quotient:
            return None
        whole = Index(
            tuple((variable, coefficient // divisor) for variable, coefficient in multiples),
            quotient,
            0 if lanes_stay else self.stride // divisor,
            None,
            self.low // divisor,
            self.high // divisor,
        )
        shift = quotient * divisor
        rest = Index(others, self.constant - shift, self.stride if lanes_stay else 0, None, low - shift, high - shift)
        return whole, rest

    def _bounds_without(self, multiples: Terms, others: Terms, lanes_stay: bool) -> tuple[int, int] | None:
        """Bounds of the index without the terms `multiples` (and without its lanes, unless they stay)."""
        assert self.low is not None and self.high is not None
        if not lanes_stay and (bounds := _range(others)) is not None:
            return self.constant + bounds[0], self.constant + bounds[1]
        if (lanes_stay or self.stride == 0) and (bounds := _range(multiples)) is not None:
            # How far the lanes reach is known from the bounds of the whole alone.
            return self.low - bounds[0], self.high - bounds[1]
        return None


@dataclass(frozen=True)
class LoopRange:
    """The name of a loop variable, the bounds of its value, both inclusive, and the steps in which it goes up."""

    name: str
    low: int
    high: int
    step: int = 1

    def __str__(self) -> str:
        return self.name


def constant(value: int) -> Index:
    """The index `value`."""
    return Index((), value, 0, None, value, value)


ZERO = constant(0)


def of(variable: Expr) -> Index:
    """The index that is a scalar i64 expression: bounded if it is a loop variable."""
    if isinstance(variable.attr, LoopRange):
        return Index(((variable, 1),), 0, 0, None, variable.attr.low, variable.attr.high)
    return Index(((variable, 1),))


def lanes(start: Index, count: int, stride: int = 1) -> Index:
    """The index that begins at `start` and grows by `stride` from lane to lane, over `count` lanes that matter."""
    span = (count - 1) * stride
    low = None if start.low is None else start.low + min(0, span)
    high = None if start.high is None else start.high + max(0, span)
    return Index(start.terms, start.constant, start.stride + stride, start.vector, low, high)


def _sum(terms: Terms, others: Terms) -> Terms:
    """The terms of a sum, without those that cancel out."""
    if not terms or not others:
        return terms or others
    coefficients = dict(terms)
    for variable, coefficient in others:
        coefficients[variable] = coefficients.get(variable, 0) + coefficient
    return tuple([term for term in coefficients.items() if term[1]])


def _range(terms: Terms) -> tuple[int, int] | None:
    """The least and the largest value of a sum of loop variables with coefficients; None for other terms."""
    low = high = 0
    for variable, coefficient in terms:
        if not isinstance(variable.attr, LoopRange):
            return None
        ends = variable.attr.low * coefficient, variable.attr.high * coefficient
        low, high = low + min(ends), high + max(ends)
    return low, high
