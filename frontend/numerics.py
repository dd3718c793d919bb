"""The check for NaN and infinities: which step of a compiled program made the first one, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gradloom.compiler.choices import Choices
from gradloom.compiler.errors import NumericsError
from gradloom.compiler.ir import Graph, Input
from gradloom.compiler.ops.arithmetic import Add, Divide, Multiply, Subtract
from gradloom.compiler.ops.elementwise import Convert, Negative
from gradloom.compiler.ops.movement import Reshape, Transpose
from gradloom.compiler.types import as_dtype
from gradloom.tracing import TracedGraph

if TYPE_CHECKING:
    from gradloom.compiler.nonfinite import Origin
    from gradloom.runtime.binding import Binding

NOUNS = {"parameter": "weight", "state": "state", "hyperparameter": "hyperparameter", "captured": "array"}
"""What inputs are called, by role; others are inputs."""


class NumericsCheck:
    """Runs the steps of a compiled program, the same code as without a check, and looks at what comes out.

    After each native call, of however many steps, new states and results are searched for non-finite numbers: once in
    a sum or a weight, they stay there. Only where there are some, the call is taken back and made step by step, the
    first bad step taken back as well, and its graph evaluated node by node to find where they came from.
    """

    def __init__(self, traced: TracedGraph, choices: Choices) -> None:
        self._traced = traced
        self._choices = choices
        self._forgets = forgets(traced.graph)

    def run(self, binding: Binding, first: int = 0, steps: int = 1, rows: int | None = None) -> None:
        """Execute the steps [first, first + steps).

        rows: how many rows of results count, None for all. Raises `NumericsError` where new states are worse than the
        old ones or results are not finite, unless by intention (see `find_origin`); states are then those before the
        step, on entry and exit from `with binding:` as well.
        """
        with binding:
            if steps > 1 and not self._forgets:
                before = _states(binding)
                binding.run(first, steps)
                if not _suspects(binding, before, rows):
                    return
                _restore(binding, before)
            for step in range(first, first + steps):
                before = _states(binding)
                binding.run(step)
                if suspects := _suspects(binding, before, rows):
                    after = _states(binding)
                    _restore(binding, before)
                    binding.sync()
                    self._explain(binding, step, suspects, rows)
                    _restore(binding, after)

    def _explain(self, binding: Binding, step: int, suspects: set[str], rows: int | None) -> None:
        """Raise `NumericsError` for a step that gave non-finite numbers, unless they are there by intention."""
        from gradloom.compiler import pipeline
        from gradloom.compiler.nonfinite import find_origin
        from gradloom.compiler.options import Options

        graph = pipeline.lower(self._traced.graph, Options(choices=self._choices)).simplified
        arrays = {**self._traced.arguments(), **binding.arrays}
        for value in graph.inputs:
            op = value.op
            if isinstance(op, Input) and op.role == "indices":
                arrays[op.label] = arrays[op.label].reshape(-1, *op.type.shape)[step]
        with np.errstate(all="ignore"):
            origin = find_origin(graph, arrays, suspects, rows)
        if origin is not None:
            raise _error(origin, self._traced.graph, step)


KEEPING = (Add, Subtract, Multiply, Negative, Convert, Reshape, Transpose)
"""Ops whose result is non-finite wherever one of their floats is."""


def forgets(graph: Graph) -> bool:
    """Whether a step may give a float state a finite value where the old one is not: a later step would hide it."""
    for output in graph.outputs:
        if output.donor is None or not output.value.dtype.is_float:
            continue
        kept = {output.donor}
        for value in graph.values:
            operands = value.inputs[:1] if isinstance(value.op, Divide) else value.inputs
            if isinstance(value.op, (*KEEPING, Divide)) and value.dtype.is_float and not kept.isdisjoint(operands):
                kept.add(value)
        if output.value not in kept:
            return True
    return False


def _states(binding: Binding) -> dict[str, np.ndarray]:
    """Copies of what the program writes and reads again."""
    results = _results(binding)
    return {name: array.copy() for name, array in binding.written.items() if name not in results}


def _restore(binding: Binding, states: Mapping[str, np.ndarray]) -> None:
    for name, array in states.items():
        np.copyto(binding.written[name], array)


def _results(binding: Binding) -> set[str]:
    return {argument.name for argument in binding.executable.program.arguments if argument.role == "result"}


def _suspects(binding: Binding, before: Mapping[str, np.ndarray], rows: int | None) -> set[str]:
    """The names of states that are worse than before, and of results with something non-finite."""
    from gradloom.compiler.nonfinite import worsened

    found = set()
    for name, array in binding.written.items():
        if not as_dtype(array.dtype).is_float:
            continue
        part = array if name in before or rows is None else array[:rows]
        if not np.isfinite(part).all() and (name not in before or worsened(array, before[name]).any()):
            found.add(name)
    return found


def _error(origin: Origin, traced: Graph, step: int) -> NumericsError:
    """The exception for what was found in a step; `traced` is the graph before it was simplified."""
    node, op = origin.node, origin.node.op
    origins = node.graph.provenance[node]
    layers = sorted({known.layer for known in origins if known.layer})
    sources = sorted({known.source for known in origins if known.source})
    # A node that forward nodes share with gradients is a forward node.
    forward = {None if known.forward is None else traced.values[known.forward].op.name for known in origins}
    gradient_of = "" if None in forward else min(map(str, forward), default="")
    kind = "NaN" if np.isnan(origin.number) else "Inf" if origin.number > 0 else "-Inf"
    at = origin.at or ()
    name, where = "", f" at {list(at)}" if at else ""
    if isinstance(op, Input):
        if op.permutation:
            at = tuple(at[op.permutation.index(axis)] for axis in range(len(at)))
            where = f" at {list(at)}"
        name = op.label
        received = f"{kind} in {NOUNS.get(op.role, 'input')} {name!r}{where}"
    else:
        operands = " and ".join(map(_number, origin.operands))
        received = f"{kind} from {op.name}" + (f" of {operands}" if operands else "") + where
        received += f", in the gradient of {gradient_of}" if gradient_of else ""
    if origin.at is None:
        received += ", whose numbers are finite when they are evaluated one by one, with other rounding"
    place = f", layer {' and '.join(map(repr, layers))}" if layers and not name else ""
    place += f"  [{', '.join(sources)}]" if sources and not name else ""
    states = any(output.donor is not None for output in traced.outputs)
    kept = ". Weights and states are those before it" if states else ""
    return NumericsError(
        f"Expected finite numbers in step {traced.name!r}. Received: {received}{place}{kept}",
        kind=kind,
        op=op.name,
        gradient_of=gradient_of,
        name=name,
        layer=min(layers, default=""),
        source=min(sources, default=""),
        index=at,
        step=step,
    )


def _number(operand: tuple[float, ...]) -> str:
    """A number, or the range that numbers are in."""
    text = " to ".join(f"{number:.4g}" for number in operand)
    return text if len(operand) == 1 else f"({text})"
