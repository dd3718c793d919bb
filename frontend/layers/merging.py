"""Layers that make one tensor of several, and the functions that are short for them."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

from gradloom import ops
from gradloom.compiler.errors import ShapeError
from gradloom.layers.layer import Layer, LayerOptions
from gradloom.layers.shapes import Shape, ShapeTree, is_integer, is_shape


class Merge(Layer):
    """Takes a list of tensors, at least `least` of them, whose shapes broadcast by NumPy's rule behind the batch.

    A tensor of less axes is the same for all of the first ones behind the batch: (batch, channels) merges with
    (batch, height, width, channels).
    """

    least = 1

    def call(self, inputs: Sequence[Any]) -> Any:
        rank = max(x.ndim for x in inputs)
        return self._merged([ops.reshape(x, _with_rank(x.shape, rank)) for x in inputs])

    @abstractmethod
    def _merged(self, inputs: list[Any]) -> Any:
        """Merge tensors of one rank."""

    def _check_shape(self, shape: ShapeTree) -> None:
        if is_shape(shape) or isinstance(shape, dict):
            raise ShapeError(self._refusal("a list of tensors", shape))
        if len(shape) < self.least:
            raise ShapeError(self._refusal(f"{self.least} tensors or more", shape))
        self._check_shapes(list(shape))

    def _check_shapes(self, shapes: list[Shape]) -> None:
        if not all(shapes):
            raise ShapeError(self._refusal("tensors with an axis for the batch", shapes))
        rank = max(len(shape) for shape in shapes)
        for sizes in zip(*(_with_rank(shape, rank) for shape in shapes), strict=True):
            if len({size for size in sizes if size not in (None, 1)}) > 1:
                raise ShapeError(self._refusal("shapes that broadcast", shapes))

    def _refusal(self, expected: str, received: object) -> str:
        return f"Layer {self.name!r} ({type(self).__name__}): Expected {expected}. Received: {received}"


class Add(Merge):
    """The sum of the tensors."""

    def _merged(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.add, inputs)


class Multiply(Merge):
    """The product of the tensors."""

    def _merged(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.multiply, inputs)


class Maximum(Merge):
    """The largest of the tensors, element by element."""

    def _merged(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.maximum, inputs)


class Minimum(Merge):
    """The smallest of the tensors, element by element."""

    def _merged(self, inputs: list[Any]) -> Any:
        return functools.reduce(ops.minimum, inputs)


class Average(Merge):
    """The mean of the tensors, of integers too a number of the layer's dtype."""

    def _merged(self, inputs: list[Any]) -> Any:
        # In the layer's dtype: the sum of bytes would not fit one.
        return functools.reduce(ops.add, [ops.cast(x, self.dtype) for x in inputs]) / float(len(inputs))


class Subtract(Merge):
    """The first of two tensors minus the second."""

    least = 2

    def _check_shapes(self, shapes: list[Shape]) -> None:
        if len(shapes) != 2:
            raise ShapeError(self._refusal("two tensors", shapes))
        super()._check_shapes(shapes)

    def _merged(self, inputs: list[Any]) -> Any:
        return ops.subtract(inputs[0], inputs[1])


class Concatenate(Merge):
    """The tensors one after the other along `axis`; their other sizes are equal."""

    def __init__(self, axis: int = -1, **options: Unpack[LayerOptions]) -> None:
        super().__init__(**options)
        if not is_integer(axis):
            raise ValueError(f"Layer {self.name!r}: Expected axis as an integer. Received: axis={axis!r}")
        self.axis = int(axis)

    def _check_shapes(self, shapes: list[Shape]) -> None:
        rank = len(shapes[0])
        if any(len(shape) != rank for shape in shapes) or not -rank <= self.axis < rank:
            raise ShapeError(self._refusal(f"tensors of one rank, which have axis {self.axis}", shapes))
        joined = self.axis % rank
        for axis in set(range(rank)) - {joined}:
            if len({shape[axis] for shape in shapes if shape[axis] is not None}) > 1:
                raise ShapeError(self._refusal(f"shapes that differ along axis {joined} alone", shapes))

    def _merged(self, inputs: list[Any]) -> Any:
        return ops.concatenate(inputs, axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}


def _with_rank(shape: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    """The shape with axes of size 1 added behind the batch."""
    return (*shape[:1], *(1,) * (rank - len(shape)), *shape[1:])


def add(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The sum of the tensors: `Add()(inputs)`."""
    return Add(**options)(inputs)


def subtract(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The first of two tensors minus the second: `Subtract()(inputs)`."""
    return Subtract(**options)(inputs)


def multiply(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The product of the tensors: `Multiply()(inputs)`."""
    return Multiply(**options)(inputs)


def maximum(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The largest of the tensors: `Maximum()(inputs)`."""
    return Maximum(**options)(inputs)


def minimum(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The smallest of the tensors: `Minimum()(inputs)`."""
    return Minimum(**options)(inputs)


def average(inputs: Sequence[Any], **options: Unpack[LayerOptions]) -> Any:
    """The mean of the tensors: `Average()(inputs)`."""
    return Average(**options)(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1, **options: Unpack[LayerOptions]) -> Any:
    """The tensors one after the other: `Concatenate(axis)(inputs)`."""
    return Concatenate(axis, **options)(inputs)
