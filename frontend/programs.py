"""The compiled steps of a model, kept by kind, batch size and types of data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from gradloom import step_graphs
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.types import TensorType
from gradloom.execution import CompiledGraph, PredictProgram
from gradloom.layers.layer import Layer
from gradloom.runtime.locks import new_lock
from gradloom.step_graphs import DataTypes
from gradloom.tracing import TracedGraph

if TYPE_CHECKING:
    from gradloom.model import Model

T = TypeVar("T")


class StepPrograms:
    """Compiles a model's steps when they are first needed. Several threads may ask at the same time."""

    def __init__(self, model: Model, memory_limit: int | None = None) -> None:
        self._model = model
        self.memory_limit = memory_limit
        self._kept: dict[Any, Any] = {}
        self._lock = new_lock(self, "_lock", threading.RLock)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepPrograms:
        """Return the programs of the copied model: none yet."""
        return StepPrograms(deepcopy(self._model, memo), self.memory_limit)

    def train(self, rows: int, types: DataTypes) -> CompiledGraph:
        """The train step for batches of `rows` samples. Freezing a layer makes it another program."""
        return self._step(step_graphs.train_step, rows, types, tuple(_trainable_flags(self._model)))

    def test(self, rows: int, types: DataTypes) -> CompiledGraph:
        """The test step for batches of `rows` samples, some of which may be padding."""
        return self._step(step_graphs.test_step, rows, types)

    def predict(self, types: Sequence[TensorType]) -> PredictProgram:
        """The predict step for batches of these types."""
        model = self._model

        def make() -> PredictProgram:
            traced = step_graphs.predict_step(model, types)
            compiled = self._compiled(replace(traced, graph=fold_into_weights(traced.graph)))
            outputs = step_graphs.output_labels(model, step_graphs.PREDICTIONS)
            return PredictProgram(compiled, step_graphs.input_labels(model), outputs)

        return self._once(("predict", *types), make)

    def _step(self, build: Callable[..., TracedGraph], rows: int, types: DataTypes, *more: Any) -> CompiledGraph:
        key = (build.__name__, rows, types, *more)
        return self._once(key, lambda: self._compiled(build(self._model, rows, types)))

    def _compiled(self, traced: TracedGraph) -> CompiledGraph:
        return CompiledGraph(traced, self.memory_limit)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        known: T | None = self._kept.get(key)
        if known is not None:
            return known
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            kept: T = self._kept[key]
            return kept


def _trainable_flags(layer: Layer) -> Iterator[bool]:
    """Whether each layer is trainable: frozen ones may compute something else, too."""
    yield layer.trainable
    for inner in layer._sublayers:
        yield from _trainable_flags(inner)
