"""Steps to smaller sizes: a size is made smaller wherever all ops accept it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.ir import Constant, Graph, Input, Op, Value
from gradloom.compiler.ops.movement import Reshape
from gradloom.compiler.reducer.rebuilding import Rebuilding
from gradloom.compiler.types import TensorType


def smaller_sizes(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """A smaller size, everywhere where a size occurs, or on one axis of one input, where all ops accept it."""
    leaves = [value for value in graph.live() if isinstance(value.op, Input | Constant)]
    sizes = sorted({size for value in graph.live() for size in value.shape if size > 1}, reverse=True)
    for size in sizes:
        for smaller in _less_than(size):
            yield from _shrunk(graph, dict.fromkeys(leaves), size, smaller)
    for value in leaves:
        for axis, size in enumerate(value.shape):
            for smaller in _less_than(size):
                yield from _shrunk(graph, {value: axis}, size, smaller)


def _less_than(size: int) -> list[int]:
    """Smaller sizes to try: the smallest first."""
    return sorted({1, 2, size // 2, size - 1} & set(range(1, size)))


def _shrunk(graph: Graph, leaves: dict[Value, int | None], size: int, smaller: int) -> Iterator[tuple[str, Graph]]:
    """The graph with a size of some leaves made smaller (on the axis given, or on each that has it), if that is one.

    Attributes that hold sizes (a reshape's, a slice's end) follow where they must, or all of them; and what has several
    times the size follows too, or does not.
    """
    for multiples in (False, True):
        for eagerly in (False, True):
            build = Rebuilding.of(graph)
            resize = _Resize(size, smaller, multiples)
            try:
                for value in graph.live():
                    if value in leaves:
                        build.image[value] = build.new.apply(_resized_leaf(value, leaves[value], resize), provenance=())
                    else:
                        operands = [build.image[operand] for operand in value.inputs]
                        build.image[value] = _applied(build.new, value, operands, resize, eagerly)
                candidate = build.finish()
            except (GradloomError, ValueError, TypeError, IndexError, ZeroDivisionError):
                continue  # Ops refuse types and attributes that don't fit in various ways.
            if _elements(candidate) < _elements(graph):
                yield f"made a size of {size} one of {smaller}", candidate


@dataclass(frozen=True)
class _Resize:
    """From a size to a smaller one."""

    size: int
    smaller: int
    multiples: bool

    def __call__(self, number: int) -> int:
        if number == self.size:
            return self.smaller
        if self.multiples and number > 0 and number % self.size == 0:
            return number // self.size * self.smaller
        return number

    def shape(self, shape: tuple[int, ...], axis: int | None = None) -> tuple[int, ...]:
        return tuple(self(n) if axis is None or place == axis else n for place, n in enumerate(shape))


def _resized_leaf(value: Value, axis: int | None, resize: _Resize) -> Op:
    type_ = TensorType(value.dtype, resize.shape(value.shape, axis))
    if isinstance(value.op, Constant):
        return Constant(type_, value.op.array[tuple(map(slice, type_.shape))].tobytes())
    assert isinstance(value.op, Input)
    return replace(value.op, type=type_)


def _applied(graph: Graph, value: Value, operands: list[Value], resize: _Resize, eagerly: bool) -> Value:
    """The node on resized operands, with its attributes as they are or, where it refuses those, resized."""
    op = value.op
    changes = {name: _resized_attribute(given, resize) for name, given in op.attributes.items()}
    resized = replace(op, **changes)  # type: ignore[type-var]
    candidates = [resized, op] if eagerly else [op, resized]
    if isinstance(op, Reshape):
        candidates.append(Reshape(_refitted(op.shape, operands[0].type.size)))
    for candidate in candidates:
        try:
            return graph.apply(candidate, *operands, provenance=value.graph.provenance[value])
        except GradloomError:
            continue
    return graph.apply(op, *operands)


def _refitted(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """A shape with its axes divided, the first ones first, so that it holds `size` elements, if that can be."""
    surplus = math.prod(shape) // max(size, 1)
    sizes = []
    for axis in shape:
        divisor = math.gcd(axis, surplus)
        sizes.append(axis // divisor)
        surplus //= divisor
    return tuple(sizes)


def _resized_attribute(given: object, resize: _Resize) -> object:
    if isinstance(given, TensorType):
        return TensorType(given.dtype, resize.shape(given.shape))
    if isinstance(given, tuple) and all(isinstance(number, int) for number in given):
        return resize.shape(given)
    if isinstance(given, int) and not isinstance(given, bool):
        return resize(given)
    return given


def _elements(graph: Graph) -> int:
    return sum(value.type.size for value in graph.live())
