"""The graph of recorded calls between a model's symbolic inputs and outputs, in an order in which they can be made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gradloom import ops
from gradloom.compiler.ir import Value
from gradloom.compiler.provenance import owner_scope
from gradloom.layers.input_layer import InputLayer
from gradloom.layers.layer import Layer
from gradloom.naming import distinct
from gradloom.symbolic import Call, SymbolicTensor
from gradloom.trees import LEAF, Structure, flatten, unflatten
from gradloom.variables import Variable

INPUT = "input"
"""What the nodes belong to that read a batch, before any layer."""


class CallGraph:
    """What computes `outputs` from `inputs`, each one symbolic tensor or a list, tuple or dict of some.

    `input_names` are the names of the input layers, or the keys of a dict; `output_names` those of the layers that made
    the outputs, or keys, numbered where they would be equal.
    Raises `ValueError` naming the tensor for an output that needs an input which is not among `inputs`.
    """

    def __init__(self, inputs: Any, outputs: Any, model: str) -> None:
        self.inputs, self.input_structure = _tensors(inputs, "inputs", model)
        self.outputs, self.output_structure = _tensors(outputs, "outputs", model)
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"Model {model!r}: Expected inputs that differ. Received: {self.inputs}")
        self.input_names = _names(self.inputs, inputs)
        self.output_names = _names(self.outputs, outputs)
        self.calls = self._reachable(model)
        self._check_layer_names(model)

    def _reachable(self, model: str) -> list[Call]:
        """The calls that the outputs need, in order. Iterative: deep networks would exceed Python's recursion limit."""
        given = set(self.inputs)
        found: set[Call] = set()
        waiting = [(tensor, tensor) for tensor in self.outputs if tensor not in given]
        while waiting:
            tensor, wanted = waiting.pop()
            if tensor.call is None or isinstance(tensor.call.operation, InputLayer):
                names = ", ".join(repr(known.name) for known in self.inputs)
                raise ValueError(
                    f"Model {model!r}: Expected outputs that are computed from its inputs {names} alone. "
                    f"Received: output {wanted.name!r} of shape {wanted.shape}, which depends on {tensor.name!r} of "
                    f"shape {tensor.shape}"
                )
            if tensor.call in found:
                continue
            found.add(tensor.call)
            waiting += [(operand, wanted) for operand in tensor.call.inputs if operand not in given]
        return sorted(found, key=lambda call: call.serial)

    def _check_layer_names(self, model: str) -> None:
        counts = Counter(layer.name for layer in self.layers)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(
                f"Model {model!r}: Expected layers of different names. Received: several called "
                f"{', '.join(map(repr, twice))}"
            )

    @property
    def layers(self) -> list[Layer]:
        """The layers, each once, in the order of their first calls; input layers first."""
        entries = [tensor.call for tensor in self.inputs if tensor.call is not None]
        first = [call.operation for call in entries if isinstance(call.operation, InputLayer)]
        called = [call.operation for call in self.calls if isinstance(call.operation, Layer)]
        return list(dict.fromkeys([*first, *called]))

    @property
    def variables(self) -> list[Variable]:
        """The variables that calls have as arguments themselves: `x * variable`."""
        return [leaf for call in self.calls for leaf in call.leaves if isinstance(leaf, Variable)]

    @property
    def is_chain(self) -> bool:
        """Whether each call takes the result of the one before, and nothing else."""
        previous = self.inputs
        for call in self.calls:
            if len(previous) != 1 or call.inputs != previous:
                return False
            previous = call.outputs
        return previous == self.outputs

    def entered(self, values: Sequence[Value]) -> list[Value]:
        """Convert data to the dtypes that input layers declare."""
        with owner_scope(INPUT):
            return [
                ops.cast(value, tensor.dtype) if _is_declared(tensor) else value
                for tensor, value in zip(self.inputs, values, strict=True)
            ]

    def replay(self, values: Sequence[Value]) -> list[Value]:
        """Return the outputs for these inputs: every call is made anew, in the graph that the values belong to."""
        known = dict(zip(self.inputs, values, strict=True))
        for call in self.calls:
            call.replay(known)
        return [known[tensor] for tensor in self.outputs]

    def result(self, leaves: Iterable[Any]) -> Any:
        """Give results the outputs' structure."""
        return unflatten(self.output_structure, list(leaves))


def _is_declared(tensor: SymbolicTensor) -> bool:
    return tensor.call is not None and isinstance(tensor.call.operation, InputLayer)


def _tensors(tree: Any, what: str, model: str) -> tuple[list[SymbolicTensor], Structure]:
    leaves, structure = flatten(tree)
    wrong = [leaf for leaf in leaves if not isinstance(leaf, SymbolicTensor)]
    if wrong or not leaves:
        received = repr(wrong[0]) if wrong else repr(tree)
        raise TypeError(
            f"Model {model!r}: Expected {what} as symbolic tensors, made by gl.Input and layers. Received: {received}"
        )
    return leaves, structure


def _names(tensors: Sequence[SymbolicTensor], tree: Any) -> list[str]:
    """Names that tell the tensors apart: a dict's keys, else the names of what made them."""
    if isinstance(tree, dict) and len(tree) == len(tensors):
        return distinct(str(key) for key in sorted(tree, key=str))
    return distinct(tensor.name if tensor.call is None else tensor.call.name for tensor in tensors)


def is_single(structure: Structure) -> bool:
    """Whether a structure is that of one tensor alone."""
    return bool(structure == LEAF)
