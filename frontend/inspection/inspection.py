"""Inspection: the stages between a model's layers and its machine code, each printed or drawn when asked for.

layers → forward → gradient → simplified → fused → scheduled (loop IR) → memory → llvm → assembly

A prediction is two programs: what follows from the weights alone is computed once per set of weights. From `simplified`
on the stages are those of the program that runs for each batch; `Inspection.prepare` has the other one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gradloom.autotuning import chosen
from gradloom.compiler.choices import NO_CHOICES, Choices
from gradloom.compiler.ir import Graph
from gradloom.compiler.passes.prepare import split_prepare
from gradloom.compiler.passes.weight_folding import fold_into_weights
from gradloom.compiler.types import DType, as_dtype
from gradloom.functions import trace
from gradloom.inspection.stages import GraphStage, Stage

if TYPE_CHECKING:
    from gradloom.compiler.passes.fuse import Decision
    from gradloom.compiler.pipeline import Lowering
    from gradloom.model import Model

MODES = ("train", "evaluate", "predict")

Parts = tuple[Graph | None, Graph]
"""The graph that is run once per set of weights, None if there is nothing to prepare, and the graph of each step."""


class _Stages(dict[str, Stage]):
    """Stages by name, with an error that lists them."""

    def __missing__(self, name: str) -> Stage:
        raise KeyError(f"Expected one of the stages {', '.join(self)}. Received: {name!r}")


class Inspection:
    """The stages of a program: `inspection.stages["fused"].text()`.

    `stages` maps names to stages in the order in which they arise. Each is computed when first asked for, so that a
    stage can be looked at even if a later one fails.
    """

    def __init__(
        self,
        title: str,
        stages: Mapping[str, Stage],
        lowering: Callable[[], Lowering],
        prepared: Callable[[], Graph | None] = lambda: None,
        choices: Callable[[], Choices] = lambda: NO_CHOICES,
    ) -> None:
        self.title = title
        self.stages: Mapping[str, Stage] = MappingProxyType(_Stages(stages))
        self._lowering = lowering
        self._prepared = prepared
        self._choices = choices

    def stage(self, name: str) -> Stage:
        """Return a stage; raises `ValueError` with the names that there are."""
        if name in self.stages:
            return self.stages[name]
        near = get_close_matches(name, self.stages, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{self.title}: Expected one of the stages {', '.join(self.stages)}. Received: {name!r}{hint}")

    @cached_property
    def prepare(self) -> Inspection | None:
        """The stages of the program that runs once per set of weights, from `forward` on; None if there is none.

        Its results are the inputs of role "prepared" of the stages here.
        """
        graph = self._prepared()
        if graph is None:
            return None
        return _compiled(f"what is prepared for {self.title}", _whole, GraphStage("forward", lambda: graph))

    @property
    def decisions(self) -> list[Decision]:
        """What fusion did and refused, each with its reason."""
        return self._lowering().decisions

    @property
    def choices(self) -> Choices:
        """Where measurements speak against the cost models; nowhere, unless the model is compiled with `autotune`."""
        return self._choices()

    def __repr__(self) -> str:
        return f"<inspection of {self.title}: {' → '.join(self.stages)}>"


def inspect_model(
    model: Model, batch_size: int = 32, mode: str = "train", dtype: str | DType = "float32"
) -> Inspection:
    """Return the stages of a model's step: what `model.inspect` does.

    mode: "train" and "evaluate" need `compile`, "predict" does not. dtype: of the data set's features.
    Raises `ValueError` for an unknown mode, and when the model does not know the shape of its input.
    """
    if mode not in MODES:
        near = get_close_matches(str(mode), MODES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"Expected mode as one of {', '.join(MODES)}. Received: mode={mode!r}{hint}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"Expected batch_size as a positive integer. Received: batch_size={batch_size!r}")
    as_dtype(dtype)  # Raises for what is none: better now than at the first stage.
    model.require_built("inspect")
    if mode != "predict":
        model.setup  # noqa: B018  (raises where the model is not compiled: better now than at the first stage)
    title = f"{model.name!r} (mode {mode!r}, batch size {batch_size})"
    layers, seconds = Stage("layers", lambda: _summary(model)), model._programs.autotune
    if mode == "train":
        forward = GraphStage("forward", lambda: model.forward_graph(batch_size, dtype))
        step = GraphStage("gradient", lambda: model.train_graph(batch_size, dtype))
        return _compiled(title, split_prepare, layers, forward, step, seconds=seconds)
    if mode == "evaluate":
        forward = GraphStage("forward", lambda: model.test_graph(batch_size, dtype))
        return _compiled(title, split_prepare, layers, forward, seconds=seconds)
    forward = GraphStage("forward", lambda: model.predict_graph(batch_size, dtype))
    return _compiled(title, split_prepare, layers, forward, fold=fold_into_weights, seconds=seconds)


def inspect(function: Callable[..., Any], *specs: Any, **named_specs: Any) -> Inspection:
    """Return the stages of a Python function of arrays, for arguments of the types `specs` (see `gl.trace`)."""
    graph = trace(function, *specs, **named_specs)
    return _compiled(f"graph {graph.name!r}", split_prepare, GraphStage("forward", lambda: graph))


def inspect_graph(graph: Graph) -> Inspection:
    """Return the stages of a graph as one program; one that is divided into kernels already is shown as it is."""
    if graph.groups:
        from gradloom.compiler import pipeline

        return Inspection(
            f"graph {graph.name!r}", {"fused": GraphStage("fused", lambda: graph)}, lambda: pipeline.lower(graph)
        )
    return _compiled(f"graph {graph.name!r}", _whole, GraphStage("forward", lambda: graph))


def _whole(graph: Graph, choices: Choices) -> Parts:
    """The graph as one program."""
    return None, graph


def _compiled(
    title: str,
    split: Callable[[Graph, Choices], Parts],
    *first: Stage,
    fold: Callable[[Graph], Graph] = lambda graph: graph,
    seconds: float | None = None,
) -> Inspection:
    """The stages before the compiler's own, of which the last is what it compiles after `fold` and `split`, and those.

    seconds: the time in which to measure what has not been measured yet, None for none.
    """
    source = first[-1]
    assert isinstance(source, GraphStage)
    folded = cache(lambda: fold(source.graph))
    choices = cache(lambda: chosen(folded(), seconds))
    parts = cache(lambda: split(folded(), choices()))

    @cache
    def lowering() -> Lowering:
        from gradloom.compiler import pipeline  # loads LLVM
        from gradloom.compiler.options import Options

        return pipeline.lower(parts()[1], Options(choices=choices()))

    compiled = (
        GraphStage("simplified", lambda: lowering().simplified),
        GraphStage("fused", lambda: lowering().fused),
        Stage("scheduled", lambda: lowering().scheduled),
        Stage("memory", lambda: lowering().memory),
        Stage("llvm", lambda: lowering().llvm()),
        Stage("assembly", lambda: lowering().assembly()),
    )
    stages = {stage.name: stage for stage in (*first, *compiled)}
    return Inspection(title, stages, lowering, lambda: parts()[0], choices)


def _summary(model: Model) -> str:
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    return "\n".join(lines) + "\n"
