"""Inspection: the stages between a model's layers and its machine code, and what connects them.

layers → forward → gradient → simplified → fused → scheduled (loop IR) → memory → llvm → assembly

A prediction is two programs: what follows from the weights alone is computed once per set of weights. From `simplified`
on the stages are those of the program that runs for each batch; `Inspection.prepare` has the other one's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from html import escape
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from gradloom.compiler.cached import cached_property
from gradloom.compiler.choices import Choices
from gradloom.compiler.ir import FORWARD, FUSED, GRADIENT, GRAPH_STAGES, Graph, Value
from gradloom.compiler.types import DType, as_dtype
from gradloom.functions import traced_call
from gradloom.inspection.stages import GraphStage, Stage
from gradloom.inspection.supply import Supply, function_supply, model_supply
from gradloom.inspection.way import Way

if TYPE_CHECKING:
    import networkx

    from gradloom.compiler.passes.fuse import Decision
    from gradloom.compiler.pipeline import Lowering
    from gradloom.inspection.decisions import Why
    from gradloom.inspection.difference import Difference
    from gradloom.inspection.lifetimes import MemoryReport
    from gradloom.inspection.profiling import Profile
    from gradloom.model import Model

MODES = ("train", "evaluate", "predict")

MOST_SAMPLES = 2**31 - 1
"""Samples of a batch at most: their numbers are of type int32 in a step."""


class _Stages(dict[str, Stage]):
    """Stages by name, with an error that lists them."""

    def __missing__(self, name: str) -> Stage:
        raise KeyError(f"Expected one of the stages {', '.join(self)}. Received: {name!r}")


class Inspection:
    """The stages of a program: `inspection.stages["fused"].text()`; in a notebook it shows itself.

    `stages` maps names to stages in the order in which they arise. Each is computed when first asked for, so that a
    stage can be looked at even if a later one fails.
    """

    def __init__(self, title: str, way: Way, layers: Stage | None = None, supply: Supply | None = None) -> None:
        self.title = title
        self._way = way
        self._supply = supply or Supply()
        graphs = [GraphStage(name, lambda name=name: way.graph(name)) for name in way.stages]  # type: ignore[misc]
        stages = [*([] if layers is None else [layers]), *graphs, *_lowered(way)]
        self.stages: Mapping[str, Stage] = MappingProxyType(_Stages({stage.name: stage for stage in stages}))

    def stage(self, name: str) -> Stage:
        """Return a stage; raises `ValueError` with the names that there are."""
        if name in self.stages:
            return self.stages[name]
        raise ValueError(f"{self.title}: {_expected('one of the stages', self.stages, name)}")

    @cached_property
    def prepare(self) -> Inspection | None:
        """The stages of the program that runs once per set of weights, from `forward` on; None if there is none.

        Its results are the inputs of role "prepared" of the stages here.
        """
        graph = self._way.parts.prepare
        if graph is None:
            return None
        return Inspection(f"what is prepared for {self.title}", Way(FORWARD, lambda: graph))

    @property
    def lowering(self) -> Lowering:
        """The compiler's own stages as objects: schedule, memory plan, LLVM module."""
        return self._way.lowering

    @property
    def passes(self) -> Mapping[str, Graph]:
        """The graph after each pass of rewriting, by name; the last one is `simplified`.

        "folding" folds into weights; "prepare" is what follows from weights alone, and "split" the rest; then come
        "simplify", "layouts" and "algorithms". A graph that is simplified already has none.
        """
        return MappingProxyType(self._way.passes)

    @property
    def decisions(self) -> list[Decision]:
        """What fusion did and refused, each with its reason."""
        return self._way.lowering.decisions

    @property
    def choices(self) -> Choices:
        """Where measurements speak against the cost models; nowhere, unless the model is compiled with `autotune`."""
        return self._way.choices

    @property
    def memory(self) -> MemoryReport:
        """Every intermediate buffer with size, lifetime and owner, the peak and who holds it; with a chart."""
        return self._way.memory

    def diff(self, first: str, last: str) -> Difference:
        """Return what changed between two graph stages, the earlier one first, and by which rules.

        Raises `ValueError` for stages that are no graphs, or in the wrong order.
        """
        from gradloom.inspection.difference import difference

        for name in (first, last):
            if name not in self._way.stages:
                raise ValueError(f"{self.title}: {_expected('one of the graph stages', self._way.stages, name)}")
        if self._way.stages.index(first) > self._way.stages.index(last):
            raise ValueError(f"{self.title}: Expected the earlier stage first. Received: {first!r}, {last!r}")
        return difference(self._way, first, last)

    def why(self, target: str) -> Why:
        """Return the decisions that touch a layer, a weight or an op, made and refused, with their reasons.

        target: a path ("dense_1" is all of that layer, "dense_1/bias" what reads that weight), the name of an op
        ("matmul"), or a node of `fused` ("%12"). Raises `ValueError` naming near ones for what there is not.
        """
        from gradloom.inspection.decisions import why

        return why(self._way.lowering, self._way.rewritten.firings, target)

    def profile(self, *data: Any, seconds: float = 1.0, **named_data: Any) -> Profile:
        """Run the step for about so many seconds, and return where its time goes: by kernel and by layer.

        data: `x` and `y` as `fit` takes them, at least a batch; of a function its arguments. Without any they are
        drawn. The program is one of its own, which notes the time around each kernel, and works on copies: weights,
        states and random numbers of the model stay as they are. Raises `ValueError` for data of other types than those
        that were inspected, and `MemoryLimitError` where the program needs more memory than the model may use.
        """
        from gradloom.compiler import pipeline  # loads LLVM
        from gradloom.compiler.options import Options
        from gradloom.inspection.profiling import profile_step
        from gradloom.runtime.cpus import available_cpus
        from gradloom.runtime.memory import physical_memory

        if not isinstance(seconds, (int, float)) or not 0 < seconds < float("inf"):
            raise ValueError(f"Expected seconds as a positive number. Received: seconds={seconds!r}")
        self._check_data(data, named_data)
        arrays = {**self._supply.data(*data, **named_data), **self._supply.variables()}
        parts = self._way.parts
        limit = self._supply.memory_limit or physical_memory()
        options = Options(cores=available_cpus(), choices=self._way.choices, memory_limit=limit, timed=True)
        return profile_step(self.title, pipeline.lower(parts.main.graph, options), parts.prepare, arrays, seconds)

    def _check_data(self, data: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Raise `ValueError` for more data than the program takes, and for names that it does not know."""
        taken = signature(self._supply.data)
        try:
            taken.bind(*data, **named)
        except TypeError as error:
            expected = f"data as {' and '.join(taken.parameters)}" if taken.parameters else "no data, but seconds alone"
            raise ValueError(f"{self.title}: Expected {expected}. Received: {error}") from None

    def became(self, stage: str, node: Value | int | str) -> list[Any]:
        """Return the ids of the nodes of the next stage that a node of this one became; none if it has gone.

        node: the id that it has in the stage's `json()`, or a value of its graph. From `layers` on a layer becomes
        values; values become values, and in `scheduled` calls; a call becomes its place in `memory` (also
        where it has no intermediate results), and then the function that it calls.
        """
        key = node.number if isinstance(node, Value) else node
        shown = self.stage(stage)
        known = {value.number for value in shown.graph.live()} if isinstance(shown, GraphStage) else shown._network()
        if not isinstance(key, (int, str)) or key not in known:
            raise ValueError(f"{self.title}: Expected the id of a node of {stage}. Received: {node!r}")
        return list(self._successors(stage, key))

    def _successors(self, stage: str, node: int | str) -> Sequence[int | str]:
        names, way = list(self.stages), self._way
        if stage == "layers":
            path = str(node).partition("#")[0]
            graph = way.graph(names[1])
            return [
                value.number
                for value in graph.live()
                if any(f"{origin.layer}/".startswith(f"{path}/") for origin in graph.provenance[value])
            ]
        if stage == FUSED:
            return [
                call
                for call, launch in enumerate(way.lowering.scheduled.launches)
                if any(member.number == node for member in launch.group.members)
            ]
        if stage in way.stages:
            following = way.stages[way.stages.index(stage) + 1]
            values = {value.number: value for value in way.graph(stage).live()}
            image = way.image(stage, following).get(values[int(node)])
            return [] if image is None else [image.number]
        if stage == "scheduled":
            return [node] if node in self.stages["memory"]._network() else []
        if stage == "memory":
            return [way.lowering.kernel_names[node]] if isinstance(node, int) else []
        return [node] if stage == "llvm" else []

    def save(self, path: str | os.PathLike[str], profile: Profile | None = None) -> Path:
        """Write everything there is to see as one HTML file, `report.html` for example, and return its path.

        The file needs no network and no other file; without JavaScript it shows the stages as text. It is written as
        a whole or not at all. profile: what `profile` returned, to be shown beside the kernels and layers.
        Raises `ValueError` for a path with another ending than .html or .htm, and for the profile of something else;
        `OSError` where the file cannot be written.
        """
        from gradloom.inspection.report import save_report

        if profile is not None and (title := getattr(profile, "title", None)) != self.title:
            received = repr(profile) if title is None else f"that of {title}"
            raise ValueError(f"Expected the profile of {self.title}, as `profile` returns it. Received: {received}")
        return save_report(self, path, profile)

    def json(self) -> dict[str, Any]:
        """Return all stages, and what each node became in the next stage, as `json.dumps` takes it.

        The dict has `title`, `stages` (a list, see `gradloom.inspection.stages`), and `became`: for each stage the ids
        of the next one's nodes by the text of each id.
        """
        stages = [stage.json() for stage in self.stages.values()]
        return {"title": self.title, "stages": stages, "became": {name: self._all_became(name) for name in self.stages}}

    def _all_became(self, stage: str) -> dict[str, list[int | str]]:
        """`became` for all nodes of a stage, at the cost of one."""
        way = self._way
        if stage == FUSED:
            calls: dict[str, list[int | str]] = {}
            for call, launch in enumerate(way.lowering.scheduled.launches):
                for member in launch.group.members:
                    calls.setdefault(str(member.number), []).append(call)
            return calls
        if stage in way.stages:
            image = way.image(stage, way.stages[way.stages.index(stage) + 1])
            return {str(old.number): [new.number] for old, new in image.items()}
        if stage == "assembly":
            return {}
        nodes = self.stages[stage].networkx()
        return {str(node): list(self._successors(stage, node)) for node in nodes}

    def __repr__(self) -> str:
        return f"<inspection of {self.title}: {' → '.join(self.stages)}>"

    def _repr_html_(self) -> str:
        """All stages to be opened one by one; nothing that takes long is computed for it."""
        shown = [self.stages[name] for name in ("layers", *GRAPH_STAGES[:2]) if name in self.stages]
        folds = "".join(
            f"<details style='margin:.3em 0'><summary><b>{stage.name}</b></summary>{stage._repr_html_()}</details>"
            for stage in shown
        )
        rest = ", ".join(name for name in self.stages if name not in {stage.name for stage in shown})
        return (
            "<div style='color-scheme:light dark'>"
            f"<div style='font-weight:600;margin-bottom:.4em'>{escape(self.title)}</div>{folds}"
            f"<div style='opacity:.75'>and {rest}: <code>.stages[name]</code></div></div>"
        )


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
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"Expected batch_size as a positive integer. Received: batch_size={batch_size!r}")
    if batch_size > MOST_SAMPLES:
        raise ValueError(f"Expected batch_size of at most {MOST_SAMPLES:,}. Received: batch_size={batch_size:,}")
    batch_size = int(batch_size)
    as_dtype(dtype)  # Raises for what is none: better now than at the first stage.
    model.require_built("inspect")
    if mode != "predict":
        model.setup  # noqa: B018  (raises where the model is not compiled: better now than at the first stage)
    seconds = model._programs.autotune
    if mode == "train":
        before, make = (lambda: model.forward_graph(batch_size, dtype)), (lambda: model.train_graph(batch_size, dtype))
        way = Way(GRADIENT, make, before, seconds)
    elif mode == "evaluate":
        way = Way(FORWARD, lambda: model.test_graph(batch_size, dtype), seconds=seconds)
    else:
        way = Way(FORWARD, lambda: model.predict_graph(batch_size, dtype), seconds=seconds)
    supply = model_supply(model, batch_size, mode, lambda: way.source)
    return Inspection(f"{model.name!r} (mode {mode!r}, batch size {batch_size})", way, _layers(model), supply)


def inspect(function: Callable[..., Any], *specs: Any, **named_specs: Any) -> Inspection:
    """Return the stages of a Python function of arrays, for arguments of the types `specs` (see `gl.trace`)."""
    traced, names = traced_call(function, *specs, **named_specs)
    graph = traced.graph
    graph.stage = FORWARD
    supply = function_supply(traced.arguments, names, lambda: graph)
    return Inspection(f"graph {graph.name!r}", Way(FORWARD, lambda: graph), supply=supply)


def inspect_graph(graph: Graph) -> Inspection:
    """Return the stages of a graph from its own on, as its text may say: one that is simplified or fused stays so.

    Compiling goes on to the program that the graph's own stages lead to; one that says no stage is one program, from
    `forward` or, if it is divided into kernels, from `fused` on.
    """
    stage = FUSED if graph.groups else graph.stage or FORWARD
    return Inspection(f"graph {graph.name!r}", Way(stage, lambda: graph))


def _layers(model: Model) -> Stage:
    from gradloom.inspection.layer_calls import LayerStage

    return LayerStage(model)


def _lowered(way: Way) -> list[Stage]:
    """The stages below graphs."""
    from gradloom.inspection import kernels, machine_code

    def functions(stage: Stage) -> networkx.DiGraph:
        calls = [data for _, data in way.kernels.nodes(data=True) if "function" in data]
        read = machine_code.llvm_functions if stage.name == "llvm" else machine_code.assembly_functions
        first = {data["function"]: data for data in reversed(calls)}
        return machine_code.function_network(way.lowering.graph.name, read(stage.text()), first)

    llvm = Stage("llvm", lambda: way.machine_code["llvm"], lambda: functions(llvm))
    assembly = Stage("assembly", lambda: way.machine_code["assembly"], lambda: functions(assembly))
    scheduled = Stage(
        "scheduled", lambda: way.lowering.scheduled, lambda: way.kernels, lambda: kernels.kernel_codes(way.lowering)
    )
    return [scheduled, _MemoryStage(way), llvm, assembly]


class _MemoryStage(Stage):
    """The stage `memory`, which is drawn as a chart of lifetimes."""

    def __init__(self, way: Way) -> None:
        from gradloom.inspection.kernels import memory_network

        network = cache(lambda: memory_network(way.lowering, way.kernels))
        super().__init__("memory", lambda: way.lowering.memory, network, lambda: way.memory.figures())
        self._way = way

    def svg(self) -> str:
        """Return the chart of the buffers' lifetimes; it follows the viewer's light or dark colours."""
        return self._way.memory.svg()


def _expected(what: str, names: Any, received: str) -> str:
    near = get_close_matches(str(received), list(names), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"Expected {what} {', '.join(names)}. Received: {received!r}{hint}"
