"""Folding into weights, for inference: what scales a contraction's columns becomes part of its weights.

    (conv2d(x, k) − mean) · factor + beta  →  conv2d(x, k · factor) + (beta − mean · factor)

Where k, mean, factor and beta follow from parameters alone, so do the weights and the one bias on the right, and the
prepare split has them computed once per set of weights. Batch normalization is the case in point; a temperature or the
slope of a hard sigmoid go the same way.

This is no rule of simplification. A step that changes its weights would scale them anew each time; and sums are rounded
otherwise: each product has a factor that was rounded once more, which adds u·Σ|ab| to the bound of a dot product, and
an overflow, an infinite or a zero factor may show elsewhere than before. So only a model's predictions ask for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from gradloom.compiler.ir import Graph, Op, Value
from gradloom.compiler.ops.arithmetic import Add, Divide, Multiply, Subtract
from gradloom.compiler.ops.contractions import Matmul
from gradloom.compiler.ops.convolution import Conv2D
from gradloom.compiler.ops.elementwise import Negative, before_rounding, stored_as
from gradloom.compiler.ops.movement import Reshape
from gradloom.compiler.passes.fixed import changes_inputs, fixed_values
from gradloom.compiler.passes.rewrite import Firing, Rewritten, unchanged
from gradloom.compiler.provenance import origin_scope


def fold_into_weights(graph: Graph) -> Graph:
    """Return the graph with affine maps of a contraction's columns folded into its weights and one bias.

    A contraction is folded where its weights are fixed from one prediction to the next, and as far as nobody else reads
    it. A graph that writes onto its parameters is returned as it is.
    """
    return with_folded_weights(graph).graph


def with_folded_weights(graph: Graph) -> Rewritten:
    """Return what `fold_into_weights` does, with a firing for each node that became part of weights or a bias."""
    return unchanged(graph) if changes_inputs(graph) else _Folding(graph).run()


@dataclass(frozen=True)
class _Columns:
    """reshape(contraction · scale + shift), not built yet.

    `contraction` is a node of the old graph, the others are of the new one: its operands, and for scale and shift a
    number, or one for each column.
    """

    contraction: Value
    x: Value
    weights: Value
    scale: Value | None = None
    shift: Value | None = None


class _Folding:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fixed = fixed_values(graph)
        self.readers = Counter(operand for value in graph.live() for operand in value.inputs)
        self.readers.update(output.value for output in graph.outputs)
        self.result = Graph(graph.name)
        self.result.captured = dict(graph.captured)
        self.new: dict[Value, Value] = {}
        self.pending: dict[Value, _Columns] = {}
        self.contractions: dict[Value, Value] = {}

    def run(self) -> Rewritten:
        for value in self.graph.live():
            with origin_scope(self.graph.provenance[value]):
                columns = None if value in self.fixed else self._columns(value)
                if columns is None:
                    self.new[value] = self.result.apply(value.op, *map(self._built, value.inputs))
                else:
                    self.pending[value] = columns
        for output in self.graph.outputs:
            self.result.output(output.name, self._built(output.value))
        firings = [
            Firing("fold_into_weights", value, self.new[value])
            for value, columns in self.pending.items()
            if value in self.new and value is not columns.contraction
        ]
        return Rewritten(self.result, firings, self.contractions | self.new)

    def _columns(self, value: Value) -> _Columns | None:
        """The value as an affine map of a contraction's columns, or None if it is none, or none of its own."""
        match value.op:
            case Conv2D() | Matmul() if value.inputs[1] in self.fixed:
                return _Columns(value, *map(self._built, value.inputs))
            case Add() | Multiply():
                return self._mapped(value, *value.inputs) or self._mapped(value, *value.inputs[::-1])
            case Subtract() | Divide():
                return self._mapped(value, *value.inputs)
            case Reshape() if value.shape[-1:] == value.inputs[0].shape[-1:]:
                return self._of_its_own(value.inputs[0])
        return None

    def _of_its_own(self, value: Value) -> _Columns | None:
        return self.pending.get(value) if self.readers[value] == 1 else None

    def _mapped(self, value: Value, operand: Value, term: Value) -> _Columns | None:
        """What `operand` becomes by adding, subtracting, multiplying or dividing by `term`."""
        columns = self._of_its_own(operand)
        if columns is None or value.shape != operand.shape:
            return None
        vector = self._vector(term, operand.shape[-1])
        if vector is None:
            return None
        scale, shift = columns.scale, columns.shift
        if isinstance(value.op, Add | Subtract):
            return replace(columns, shift=self._combined(value.op, shift, vector))
        shift = None if shift is None else self.result.apply(value.op, shift, vector)
        return replace(columns, scale=self._combined(value.op, scale, vector), shift=shift)

    def _combined(self, op: Op, so_far: Value | None, vector: Value) -> Value:
        """`op` on the scale or shift so far, which is the neutral element where there is none."""
        if so_far is not None:
            return self.result.apply(op, so_far, vector)
        if isinstance(op, Divide):
            return self.result.apply(op, self.result.constant(1, vector.dtype), vector)
        return self.result.apply(Negative(), vector) if isinstance(op, Subtract) else vector

    def _vector(self, term: Value, columns: int) -> Value | None:
        """A fixed term as one number, or one number per column; None if it is neither."""
        if term not in self.fixed or (term.type.size != 1 and (term.type.size, term.shape[-1]) != (columns, columns)):
            return None
        shape = () if term.type.size == 1 else (columns,)
        new = self.new[term]
        return new if new.shape == shape else self.result.apply(Reshape(shape), new)

    def _built(self, value: Value) -> Value:
        """The node of the new graph that stands for `value`."""
        if value not in self.new:
            with origin_scope(self.graph.provenance[value]):
                self.new[value] = self._build(value, self.pending[value])
        return self.new[value]

    def _build(self, value: Value, columns: _Columns) -> Value:
        apply, op, weights = self.result.apply, columns.contraction.op, columns.weights
        if columns.scale is not None:
            scale = columns.scale
            if scale.ndim and isinstance(op, Matmul) and op.transpose_b:
                scale = apply(Reshape((*scale.shape, 1)), scale)
            # Stored in bf16, weights are scaled before they are rounded.
            weights = stored_as(weights.dtype, apply(Multiply(), before_rounding(weights), scale))
        result = apply(op, columns.x, weights, provenance=self.graph.provenance[columns.contraction])
        self.contractions[columns.contraction] = result
        if columns.shift is not None:
            result = apply(Add(), result, columns.shift)
        return result if result.shape == value.shape else apply(Reshape(value.shape), result)
