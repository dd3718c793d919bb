"""The way of a graph to machine code, stage by stage: simplified → fused → scheduled → memory → llvm → assembly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from gradloom.compiler.barriers import place_barriers
from gradloom.compiler.cached import cached_property
from gradloom.compiler.collection import no_garbage_collection
from gradloom.compiler.growing import Growing
from gradloom.compiler.ir import FUSED, SIMPLIFIED, Graph
from gradloom.compiler.kernels.lowering import Machine
from gradloom.compiler.loops.grammar import Kernel
from gradloom.compiler.loops.structure import structure
from gradloom.compiler.memory import MemoryPlan, plan_memory
from gradloom.compiler.options import Options
from gradloom.compiler.passes.algorithms import with_algorithms
from gradloom.compiler.passes.fuse import Decision, fuse
from gradloom.compiler.passes.groups import check_groups
from gradloom.compiler.passes.layout import with_layouts
from gradloom.compiler.passes.rewrite import Rewritten, rewrite
from gradloom.compiler.passes.simplify import RULES
from gradloom.compiler.program import Argument, Barrier, Call, Program, Step, time_stamps
from gradloom.compiler.schedule import Schedule, schedule

MODULE_INSTRUCTIONS = 6000
"""Of LLVM, after which a program's next kernel goes into another module; half a second's work for LLVM."""


class Lowering:
    """A graph on its way: each stage is computed when it is first asked for.

    A graph that is simplified or divided into kernels already, as its text may say, goes on from there.
    """

    def __init__(self, graph: Graph, options: Options) -> None:
        self.graph = graph
        self.options = options
        self.emitted = threading.Event()
        """Set when all modules have been handed to LLVM, for whoever would compete with that for Python's lock."""

    @cached_property
    def simplified(self) -> Graph:
        """The graph after rewriting, with its parameters' layouts and its convolutions' algorithms chosen."""
        return self.rewritten.graph

    @cached_property
    def passes(self) -> dict[str, Rewritten]:
        """What each pass of rewriting made, by name, in order; nothing for a graph that stays as it is."""
        if not self.options.simplify or self.graph.stage == SIMPLIFIED or self.graph.groups:
            return {}
        simple = rewrite(self.graph, RULES)
        turned = with_layouts(simple.graph, self.options.target.lanes)
        chosen = with_algorithms(turned.graph, self.options.choices)
        chosen.graph.stage = SIMPLIFIED
        chosen.graph.verify()
        return {"simplify": simple, "layouts": turned, "algorithms": chosen}

    @cached_property
    def rewritten(self) -> Rewritten:
        """The stage `simplified` with the rules that applied on the way, and what each node of the graph became."""
        if self.passes:
            return reduce(Rewritten.then, self.passes.values())
        copy, image = self.graph.rebuild()
        return Rewritten(copy, [], image)

    @cached_property
    def _fused(self) -> tuple[Graph, list[Decision]]:
        if self.graph.groups:
            check_groups(self.graph)
            return self.graph, []
        graph, decisions = fuse(self.simplified, self.options.fuse)
        graph.stage = FUSED
        return graph, decisions

    @property
    def fused(self) -> Graph:
        """The graph divided into the groups that become kernels."""
        return self._fused[0]

    @property
    def decisions(self) -> list[Decision]:
        """What fusion did and refused, with reasons."""
        return self._fused[1]

    @cached_property
    def scheduled(self) -> Schedule:
        """The kernels in order, as loop IR."""
        return schedule(self.fused, machine_for(self.options), self.options.choices, self._forget_kernels)

    def _forget_kernels(self) -> None:
        """After an error or an interrupt: whoever asks again gets stages that are made anew, and fit each other."""
        for stage in ("scheduled", "memory", "steps", "kernels", "kernel_names", "arguments"):
            self.__dict__.pop(stage, None)

    @cached_property
    def memory(self) -> MemoryPlan:
        """Where intermediate results lie."""
        return plan_memory(self.scheduled, self.options.memory_limit)

    @cached_property
    def steps(self) -> list[Step]:
        """The calls and barriers of a step; kernels of one structure have one name."""
        return place_barriers(self.scheduled, self.memory, self.kernel_names)

    @cached_property
    def kernels(self) -> Sequence[Kernel]:
        """One kernel of each structure, under the name by which the steps call it."""
        return Growing(self._distinct_kernels(), self._forget_kernels)

    def _distinct_kernels(self) -> Iterator[Kernel]:
        seen: set[str] = set()
        for launch, name in zip(self.scheduled.launches, self.kernel_names, strict=True):
            if name not in seen:
                seen.add(name)
                yield replace(launch.kernel, name=name)

    @cached_property
    def kernel_names(self) -> Sequence[str]:
        """For each launch the name of the function that it calls; launches of one structure share a function."""
        return Growing(self._named_launches(), self._forget_kernels)

    def _named_launches(self) -> Iterator[str]:
        names: dict[str, str] = {}
        structures: dict[Kernel, str] = {}
        for launch in self.scheduled.launches:
            if launch.kernel not in structures:
                structures[launch.kernel] = structure(launch.kernel)
            yield names.setdefault(structures[launch.kernel], f"k{len(names)}_{_symbol(launch.group.name)}")

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """The program's arguments, with those marked that it writes."""
        written = {
            self.scheduled.places[buffer].at
            for launch in self.scheduled.launches
            for buffer, footprint in launch.footprints.items()
            if footprint.writes and buffer in self.scheduled.places
        }
        arguments = [replace(a, written=number in written) for number, a in enumerate(self.scheduled.arguments)]
        if self.options.timed:
            arguments.append(time_stamps(len(self.steps)))
        return tuple(arguments)

    def modules(self) -> Iterator[str]:
        """The texts of the LLVM modules, as they are emitted: the kernels in their order, and in the last the driver.

        A large program is cut into modules, always the same ones, on which several processes can work while later
        kernels are still being lowered.
        """
        from gradloom.compiler.llvm.driver import emit_driver
        from gradloom.compiler.llvm.emit import emit_kernel, new_module

        target = self.options.target
        first = module = new_module(self.graph.name, target)
        instructions = 0
        for kernel in self.kernels:
            if instructions > MODULE_INSTRUCTIONS:
                yield str(module)
                module, instructions = new_module(self.graph.name, target), 0
            instructions += _instructions(emit_kernel(module, kernel, target))
        if module is not first:
            # Where there are several, the driver's is one of its own: LLVM takes long for that of many calls.
            yield str(module)
            module = new_module(self.graph.name, target)
        emit_driver(module, self.steps, self.arguments, self.memory.arena_bytes, self.memory.scratch_bytes)
        yield str(module)
        self.emitted.set()

    def llvm(self) -> str:
        """The optimized LLVM IR of all modules."""
        return self._texts[0]

    def assembly(self) -> str:
        """The machine code of all modules as assembly text."""
        return self._texts[1]

    @cached_property
    def _texts(self) -> tuple[str, str]:
        """Both texts at once: what takes long is the optimization before."""
        from gradloom.compiler.llvm import beside

        parts = beside.each(beside.texts, self.modules(), self.options.target, self.options.cores)
        optimized, assembly = (b"\n".join(part).decode() for part in zip(*parts, strict=True))
        return optimized, assembly

    def program(self) -> Program:
        """The compiled program."""
        from gradloom.compiler.llvm import beside

        parts = beside.each(beside.object_code, self.modules(), self.options.target, self.options.cores)
        code = tuple(part for (part,) in parts)
        return Program(
            name=self.graph.name,
            code=code,
            arguments=self.arguments,
            arena_bytes=self.memory.arena_bytes,
            scratch_bytes=self.memory.scratch_bytes,
            max_threads=self._most_threads(),
            schedule=tuple(map(str, self.steps)),
            buffers=tuple(self.memory.slots.values()),
            notes=(*self.scheduled.notes, *self.options.choices.notes),
        )

    def _most_threads(self) -> int:
        """How many threads can share the work of a step: 1 for a program so small that waiting would cost more."""
        blocks = max((step.blocks for step in self.steps if isinstance(step, Call)), default=1)
        moved = sum(
            buffer.type.nbytes
            for launch in self.scheduled.launches
            for buffer in launch.buffers
            if buffer.type.nbytes > 0
        )
        barriers = sum(isinstance(step, Barrier) for step in self.steps)
        return max(1, blocks) if moved >= self.options.parallel_bytes * max(1, barriers) else 1


def machine_for(options: Options) -> Machine:
    """What kernel builders need to know of the target."""
    target = options.target
    bf16 = target.multiplies_bf16
    return Machine(target.lanes * 4, target.registers, options.cores, target.l1, target.l2, options.block_cost, bf16)


def lower(graph: Graph, options: Options | None = None) -> Lowering:
    """The stages of a graph, each computed when asked for."""
    return Lowering(graph, options or Options())


def compile_graph(graph: Graph, options: Options | None = None) -> Program:
    """Compile a graph; raises `MemoryLimitError` where it needs more than the options allow."""
    with no_garbage_collection():
        return lower(graph, options).program()


def _instructions(*functions: Any) -> int:
    return sum(len(block.instructions) for function in functions for block in function.blocks)


def _symbol(name: str) -> str:
    """A name that an object file can hold."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60]
