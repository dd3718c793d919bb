"""The compiled steps of a model, kept by kind, batch size and types of data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gradloom import step_graphs
from gradloom.compiler.collection import no_garbage_collection
from gradloom.compiler.passes.batch_rows import rows_are_independent
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.types import DType, TensorType
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

    def __init__(
        self,
        model: Model,
        memory_limit: int | None = None,
        autotune: float | None = None,
        check_numerics: bool = False,
    ) -> None:
        self._model = model
        self.memory_limit = memory_limit
        self.autotune = autotune
        self.check_numerics = check_numerics
        self._unreported: list[str] = []
        self._kept: dict[Any, Any] = {}
        self.whole: dict[tuple[tuple[int, ...], np.dtype], PredictProgram] = {}
        """The predict programs that take an array of this shape and dtype as it is: calls need check nothing else."""
        self._lock = new_lock(self, "_lock", threading.RLock)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepPrograms:
        """Return the programs of the copied model: none yet."""
        return self.renewed(deepcopy(self._model, memo))

    def renewed(self, model: Model) -> StepPrograms:
        """No programs yet, to be compiled for a model as these were."""
        return StepPrograms(model, self.memory_limit, self.autotune, self.check_numerics)

    def train(self, rows: int, types: DataTypes) -> CompiledGraph:
        """The train step for batches of `rows` samples. Freezing a layer makes it another program."""
        return self._step(step_graphs.train_step, rows, types, tuple(_trainable_flags(self._model)))

    def test(self, rows: int, types: DataTypes) -> CompiledGraph:
        """The test step for batches of `rows` samples."""
        return self._step(step_graphs.test_step, rows, types)

    def predict(self, types: Sequence[TensorType], most: int) -> PredictProgram:
        """The predict step for batches of these types.

        Where samples do not depend on each other it is one for more of them, by powers of two up to `most` and less
        than twice as many, so that calls with some samples more or less share programs.
        """
        rows = types[0].shape[0]
        padded = most if most < 2 * rows else 1 << (rows - 1).bit_length()

        def make() -> PredictProgram:
            traced = step_graphs.predict_step(self._model, types)
            if padded > rows:
                larger = [TensorType(type.dtype, (padded, *type.shape[1:])) for type in types]
                other = step_graphs.predict_step(self._model, larger)
                if rows_are_independent(other.graph, traced.graph):
                    return self._once(("predict", padded, *larger), lambda: self._predict_program(other))
            return self._predict_program(traced)

        return self._once(("predict", padded, *types), make)

    def keep_whole(self, shape: tuple[int, ...], dtype: DType) -> None:
        """Note the predict step that takes a batch of this shape, if it takes it whole."""
        program = self.predict([TensorType(dtype, shape)], most=shape[0])
        if program.batch_shape == shape:
            self.whole[shape, dtype.numpy] = program

    def _predict_program(self, traced: TracedGraph) -> PredictProgram:
        compiled = self._compiled(replace(traced, graph=fold_into_weights(traced.graph)))
        outputs = step_graphs.output_labels(self._model, step_graphs.PREDICTIONS)
        return PredictProgram(compiled, step_graphs.input_labels(self._model), outputs)

    def _step(self, build: Callable[..., TracedGraph], rows: int, types: DataTypes, *more: Any) -> CompiledGraph:
        key = (build.__name__, rows, types, *more)
        return self._once(key, lambda: self._compiled(build(self._model, rows, types)))

    def _compiled(self, traced: TracedGraph) -> CompiledGraph:
        compiled = CompiledGraph(traced, self.memory_limit, self.autotune, self.check_numerics)
        if compiled.tuning:
            self._unreported.append(compiled.tuning)
        return compiled

    def report(self, verbose: int | str) -> None:
        """Print what was measured for programs compiled since the last report, unless `verbose` is 0."""
        while verbose and self._unreported:
            print(self._unreported.pop(0), flush=True)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        known: T | None = self._kept.get(key)
        if known is not None:
            return known
        with self._lock:
            if key not in self._kept:
                with no_garbage_collection():
                    self._kept[key] = make()
            kept: T = self._kept[key]
            return kept


def _trainable_flags(layer: Layer) -> Iterator[bool]:
    """Whether each layer is trainable: frozen ones may compute something else, too."""
    yield layer.trainable
    for inner in layer._sublayers:
        yield from _trainable_flags(inner)
