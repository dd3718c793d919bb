"""Functions of `keras.ops` for linear algebra: products of matrices and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradloom.compiler.errors import ShapeError
from gradloom.compiler.ir import Value
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.functions_elementwise import multiply
from gradloom.compiler.ops.functions_reduction import sum as sum_
from gradloom.compiler.ops.functions_shape import expand_dims, ravel, reshape, transpose
from gradloom.compiler.ops.operands import TensorLike, canonical_axis, factors, numbers


def matmul(x1: TensorLike, x2: TensorLike) -> Value:
    """The matrix product over x1's last and x2's last but one axis; the axes before broadcast.

    A vector as x1 is a row, as x2 a column; that axis vanishes from the result.
    """
    a, b = factors(x1, x2, function="matmul")
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(f"matmul: expected operands of rank 1 at least. Received: {a.type}, {b.type}")
    row, column = a.ndim == 1, b.ndim == 1
    if a.shape[-1] != b.shape[0 if column else -2]:
        raise ShapeError(
            f"matmul: expected the last size of the first operand to be the last but one of the second. "
            f"Received: {a.type}, {b.type}"
        )
    a, b = (expand_dims(a, 0) if row else a), (expand_dims(b, 1) if column else b)
    product = _product(a, b)
    kept = list(product.shape)
    if column:
        del kept[-1]
    if row:
        del kept[-1 if column else -2]
    return reshape(product, kept)


def _product(a: Value, b: Value) -> Value:
    if not a.dtype.is_float:
        # Integers have no kernel of their own: the sum of products is one reduction.
        return sum_(expand_dims(a, -1) * expand_dims(b, -3), axis=-2)
    if b.ndim == 2 and a.ndim > 2:
        # One large product instead of many small ones.
        rows = math.prod(a.shape[:-1])
        flat = a.graph.apply(Matmul(), reshape(a, (rows, a.shape[-1])), b)
        return reshape(flat, (*a.shape[:-1], b.shape[-1]))
    return a.graph.apply(Matmul(), a, b)


def dot(x1: TensorLike, x2: TensorLike) -> Value:
    """The sum of products over x1's last and x2's last but one axis (a vector's only one); a scalar multiplies."""
    a, b = factors(x1, x2, function="dot")
    if a.ndim == 0 or b.ndim == 0:
        return multiply(a, b)
    return tensordot(a, b, ([a.ndim - 1], [max(b.ndim - 2, 0)]))


def tensordot(x1: TensorLike, x2: TensorLike, axes: int | Sequence[int | Sequence[int]] = 2) -> Value:
    """The sum of products over pairs of axes: x1's last `axes` with x2's first, or the listed ones."""
    a, b = factors(x1, x2, function="tensordot")
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(f"tensordot: expected axes up to {min(a.ndim, b.ndim)}. Received: axes={axes}")
        of_a, of_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        first, second = axes
        of_a = [canonical_axis(at, a.ndim, "tensordot") for at in ([first] if isinstance(first, int) else first)]
        of_b = [canonical_axis(at, b.ndim, "tensordot") for at in ([second] if isinstance(second, int) else second)]
    if [a.shape[at] for at in of_a] != [b.shape[at] for at in of_b]:
        raise ShapeError(f"tensordot: expected pairs of axes of equal size. Received: {a.type}, {b.type}, axes={axes}")
    free_a = [at for at in range(a.ndim) if at not in of_a]
    free_b = [at for at in range(b.ndim) if at not in of_b]
    shape_a, shape_b = [a.shape[at] for at in free_a], [b.shape[at] for at in free_b]
    inner = math.prod(a.shape[at] for at in of_a)
    left = reshape(transpose(a, free_a + of_a), (math.prod(shape_a), inner))
    right = reshape(transpose(b, of_b + free_b), (inner, math.prod(shape_b)))
    return reshape(_product(left, right), (*shape_a, *shape_b))


def outer(x1: TensorLike, x2: TensorLike) -> Value:
    """All products of an element of x1 and one of x2, both flattened: [size of x1, size of x2]."""
    a, b = numbers(x1, x2, function="outer")
    return expand_dims(ravel(a), 1) * expand_dims(ravel(b), 0)


def einsum(subscripts: str, *operands: TensorLike) -> Value:
    """The sum of products that Einstein's notation describes: `einsum("bij,bjk->bik", x, y)`.

    Letters only, each once per operand (no "..." and no diagonals). Several operands are contracted from left to right.
    """
    values = factors(*operands, function="einsum")
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    sizes: dict[str, int] = {}
    for term, value in zip(terms, values, strict=False):
        for letter, size in zip(term, value.shape, strict=False):
            if sizes.setdefault(letter, size) != size:
                raise ShapeError(f"einsum: expected one size for {letter!r} in {subscripts!r}. Received: {value.type}")
    valid = len(terms) == len(values) and all(len(t) == v.ndim for t, v in zip(terms, values, strict=True))
    if (
        not valid
        or any(len(set(t)) < len(t) or (t and not t.isalpha()) for t in (*terms, result))
        or set(result) - set(sizes)
    ):
        received = ", ".join(str(value.type) for value in values)
        raise ShapeError(f"einsum: expected subscripts of the operands' ranks. Received: {subscripts!r}, {received}")
    term, value = terms[0], values[0]
    for position in range(1, len(terms)):
        later = set(result).union(*terms[position + 1 :])
        term, value = _contract_pair(term, value, terms[position], values[position], later)
    gone = tuple(at for at, letter in enumerate(term) if letter not in result)
    value = sum_(value, gone) if gone else value
    term = "".join(letter for letter in term if letter in result)
    return transpose(value, [term.index(letter) for letter in result])


def _contract_pair(term_a: str, a: Value, term_b: str, b: Value, later: set[str]) -> tuple[str, Value]:
    """Contract two operands over the letters that both have and nothing later needs."""
    term_a, a = _sum_private(term_a, a, later | set(term_b))
    term_b, b = _sum_private(term_b, b, later | set(term_a))
    a, b = factors(a, b, function="einsum")
    shared = [letter for letter in term_a if letter in term_b]
    batch = [letter for letter in shared if letter in later]
    inner = [letter for letter in shared if letter not in later]
    free_a = [letter for letter in term_a if letter not in shared]
    free_b = [letter for letter in term_b if letter not in shared]
    size = {letter: a.shape[at] for at, letter in enumerate(term_a)}
    size |= {letter: b.shape[at] for at, letter in enumerate(term_b)}

    def arranged(value: Value, term: str, *groups: list[str]) -> Value:
        ordered = transpose(value, [term.index(letter) for group in groups for letter in group])
        return reshape(ordered, [math.prod(size[letter] for letter in group) for group in groups])

    left = arranged(a, term_a, batch, free_a, inner)
    right = arranged(b, term_b, batch, inner, free_b)
    if not batch:
        left, right = reshape(left, left.shape[1:]), reshape(right, right.shape[1:])
    term = [*batch, *free_a, *free_b]
    return "".join(term), reshape(_product(left, right), [size[letter] for letter in term])


def _sum_private(term: str, value: Value, needed: set[str]) -> tuple[str, Value]:
    """Sum over the letters that only this operand has."""
    gone = tuple(at for at, letter in enumerate(term) if letter not in needed)
    if not gone:
        return term, value
    return "".join(letter for letter in term if letter in needed), sum_(value, gone)
