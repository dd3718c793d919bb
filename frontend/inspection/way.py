"""A graph's way through the compiler, with what each node became at every stage, and by which rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gradloom.autotuning import chosen
from gradloom.compiler.cached import cached_property
from gradloom.compiler.choices import Choices
from gradloom.compiler.ir import FORWARD, FUSED, GRADIENT, GRAPH_STAGES, SIMPLIFIED, Graph, Value
from gradloom.compiler.passes.prepare import Split, split
from gradloom.compiler.passes.rewrite import Rewritten, unchanged
from gradloom.compiler.passes.weight_folding import with_folded_weights
from gradloom.compiler.provenance import Provenance

if TYPE_CHECKING:
    import networkx

    from gradloom.compiler.pipeline import Lowering
    from gradloom.inspection.lifetimes import MemoryReport

Image = dict[Value, Value]
"""What each node of one stage is in another one; a node that has gone has no image."""


class Way:
    """The stages of a graph, each computed when first asked for: folded, split, simplified, fused and so on.

    stage, make: the graph that is compiled, and which stage it is. Every node derived from it knows by its provenance
    the numbers of the nodes that it came from. before: what makes the stage `forward`, where the graph is the stage
    `gradient`. seconds: the time in which to measure what has not been measured yet, None for none.
    """

    def __init__(
        self,
        stage: str,
        make: Callable[[], Graph],
        before: Callable[[], Graph] | None = None,
        seconds: float | None = None,
    ) -> None:
        self._make = make
        self._before = before
        self._seconds = seconds
        self.stages = (*([] if before is None else [FORWARD]), *GRAPH_STAGES[GRAPH_STAGES.index(stage) :])
        """The names of the stages that are graphs."""
        if stage == FORWARD:
            self.stages = (FORWARD, SIMPLIFIED, FUSED)
        self._steps: dict[str, Image] = {}

    @cached_property
    def source(self) -> Graph:
        """The graph that is compiled."""
        graph, _ = self._make().rebuild()
        for value, origins in graph.provenance.items():
            known = origins or {Provenance()}
            graph.provenance[value] = frozenset(replace(origin, node=value.number) for origin in known)
        return graph

    @cached_property
    def before(self) -> Graph:
        """The stage `forward` where the source is the stage `gradient`."""
        assert self._before is not None
        return self._before().rebuild()[0]

    @cached_property
    def folded(self) -> Rewritten:
        """The source with more folded into its weights, where they stay as they are."""
        return with_folded_weights(self.source) if self.source.inference else unchanged(self.source)

    @cached_property
    def choices(self) -> Choices:
        """What measurements said."""
        return chosen(self.folded.graph, self._seconds)

    @cached_property
    def parts(self) -> Split:
        """What is computed once per set of weights, and the rest. A text without a stage is one program."""
        graph = self.folded.graph
        if self.source.stage not in (FORWARD, GRADIENT):
            return Split(None, unchanged(graph))
        return split(graph, self.choices)

    @cached_property
    def lowering(self) -> Lowering:
        """The compiler's own stages."""
        from gradloom.compiler import pipeline  # loads LLVM
        from gradloom.compiler.options import Options
        from gradloom.runtime.cpus import available_cpus

        return pipeline.lower(self.parts.main.graph, Options(cores=available_cpus(), choices=self.choices))

    @cached_property
    def machine_code(self) -> dict[str, str]:
        """The texts of the stages `llvm` and `assembly`."""
        from gradloom.inspection.machine_code import machine_texts

        return machine_texts(self.lowering)

    @cached_property
    def rewritten(self) -> Rewritten:
        """From the source to the stage `simplified`: the rules that applied, and what each node became."""
        return self.folded.then(self.parts.main).then(self.lowering.rewritten)

    @cached_property
    def kernels(self) -> networkx.DiGraph:
        """The network of the stage `scheduled`."""
        from gradloom.inspection.kernels import kernel_network

        return kernel_network(self.lowering)

    @cached_property
    def memory(self) -> MemoryReport:
        """The buffers of the stage `memory`."""
        from gradloom.inspection.lifetimes import memory_report

        return memory_report(self.lowering.graph.name, self.lowering, self.kernels)

    @cached_property
    def passes(self) -> dict[str, Graph]:
        """The graph after each pass between the source and the stage `simplified`, by the pass's name, in order."""
        parts = {} if self.parts.prepare is None else {"prepare": self.parts.prepare, "split": self.parts.main.graph}
        rewritten = {name: made.graph for name, made in self.lowering.passes.items()}
        return {"folding": self.folded.graph, **parts, **rewritten} if rewritten else {}

    def graph(self, stage: str) -> Graph:
        """The graph of a stage."""
        if stage == SIMPLIFIED:
            return self.lowering.simplified
        if stage == FUSED:
            return self.lowering.fused
        return self.before if stage == FORWARD and self._before is not None else self.source

    def origins(self, stage: str, value: Value) -> set[int]:
        """The numbers in the source of the nodes that a node of a stage came from."""
        if stage == FORWARD and self._before is not None:
            same = self._step(FORWARD).get(value)
            return set() if same is None else {same.number}
        return origins(value)

    def image(self, first: str, last: str) -> Image:
        """What the nodes of one stage are in a later one."""
        result: Image = {value: value for value in self.graph(first).live()}
        for stage in self.stages[self.stages.index(first) : self.stages.index(last)]:
            step = self._step(stage)
            result = {old: step[new] for old, new in result.items() if new in step}
        return result

    def _step(self, stage: str) -> Image:
        """What the nodes of a stage are in the next one."""
        if stage not in self._steps:
            self._steps[stage] = self._next(stage)
        return self._steps[stage]

    def _next(self, stage: str) -> Image:
        if stage == FORWARD and self._before is not None:
            return same_nodes(self.before, self.source)
        if stage in (FORWARD, GRADIENT):
            return self.rewritten.image
        fused = {value.number: value for value in self.lowering.fused.live()}
        # Fusion divides the nodes and leaves each as it is.
        return {value: fused[value.number] for value in self.lowering.simplified.live()}


def same_nodes(first: Graph, second: Graph) -> Image:
    """The nodes of two graphs that compute the same from the same inputs."""
    known = {(value.op, value.inputs): value for value in second.live()}
    image: Image = {}
    for value in first.live():
        if all(operand in image for operand in value.inputs):
            twin = known.get((value.op, tuple(image[operand] for operand in value.inputs)))
            if twin is not None:
                image[value] = twin
    return image


def origins(value: Value) -> set[int]:
    """The numbers in the source of the nodes that a node came from."""
    return {origin.node for origin in value.graph.provenance[value] if origin.node is not None}
