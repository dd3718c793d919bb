"""Affine indices: where in a tensor a lane reads, as Σ coefficient·variable + constant + stride·lane."""

from __future__ import annotations

from dataclasses import dataclass

from gradloom.compiler.loops.grammar import Expr


@dataclass(frozen=True)
class Index:
    """An index that may differ from lane to lane.

    `terms` maps scalar i64 expressions to coefficients; lane l adds `stride`·l; `vector` is a vector of i64 that could
    not be written affinely. `low` and `high` bound the value over all lanes (None: unknown).
    """

    terms: tuple[tuple[Expr, int], ...] = ()
    constant: int = 0
    stride: int = 0
    vector: Expr | None = None
    low: int | None = None
    high: int | None = None

    @property
    def is_uniform(self) -> bool:
        """The same for all lanes."""
        return self.stride == 0 and self.vector is None

    @property
    def is_constant(self) -> bool:
        return self.is_uniform and not self.terms

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            other = constant(other)
        if self.vector is not None and other.vector is not None:
            raise ValueError("the sum of two vectors of indices is built by Builder.index_add")
        terms = dict(self.terms)
        for variable, coefficient in other.terms:
            terms[variable] = terms.get(variable, 0) + coefficient
        return Index(
            tuple((variable, coefficient) for variable, coefficient in terms.items() if coefficient),
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
            return constant(0)
        low, high = self.low, self.high
        if factor < 0:
            low, high = high, low
        return Index(
            tuple((variable, coefficient * factor) for variable, coefficient in self.terms),
            self.constant * factor,
            self.stride * factor,
            None,
            None if low is None else low * factor,
            None if high is None else high * factor,
        )

    def split(self, divisor: int) -> tuple[Index, Index] | None:
        """Quotient and remainder by `divisor`, when they can be told apart without computing; else None."""
        if self.vector is not None or self.low is None or self.high is None:
            return None
        if 0 <= self.low and self.high < divisor:
            return constant(0), self
        if any(coefficient % divisor for _, coefficient in self.terms) or self.stride % divisor:
            return self._split_mixed(divisor)
        quotient, rest = divmod(self.constant, divisor)
        whole = Index(
            tuple((variable, coefficient // divisor) for variable, coefficient in self.terms),
            quotient,
            self.stride // divisor,
            None,
            (self.low - rest) // divisor,
            (self.high - rest) // divisor,
        )
        return whole, constant(rest)

    def _split_mixed(self, divisor: int) -> tuple[Index, Index] | None:
        """Quotient and remainder where some terms are multiples of `divisor` and the others stay below it."""
        whole, low, high = constant(0), self.constant % divisor, self.constant % divisor
        kept: list[tuple[Expr, int]] = []
        for variable, coefficient in self.terms:
            if variable.attr is None or not isinstance(variable.attr, LoopRange):
                return None
            if coefficient % divisor == 0:
                whole = whole + of(variable).scaled(coefficient // divisor)
            else:
                kept.append((variable, coefficient))
                ends = (variable.attr.low * coefficient, variable.attr.high * coefficient)
                low, high = low + min(ends), high + max(ends)
        assert self.low is not None and self.high is not None
        stride = 0 if self.stride % divisor == 0 else self.stride
        if stride:
            # What the bounds of the whole leave for the lanes, beyond the bounds of the terms.
            total = sum(
                max(variable.attr.low * coefficient, variable.attr.high * coefficient)
                for variable, coefficient in self.terms
            )
            lanes = max(0, self.high - self.constant - total)
            high += lanes
        if low < 0 or high >= divisor:
            return None
        whole = whole + Index((), self.constant // divisor, 0, None, self.constant // divisor, self.constant // divisor)
        if stride == 0 and self.stride:
            return None
        return whole, Index(tuple(kept), self.constant % divisor, stride, None, low, high)


@dataclass(frozen=True)
class LoopRange:
    """The name of a loop variable and the bounds of its value, both inclusive."""

    name: str
    low: int
    high: int

    def __str__(self) -> str:
        return self.name


def constant(value: int) -> Index:
    """The index `value`."""
    return Index((), value, 0, None, value, value)


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
