"""A profile: where the time of a step goes, by kernel and by layer, beside what the machine could do at most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradloom.compiler.cached import cached_property
from gradloom.compiler.ir import Graph
from gradloom.compiler.pipeline import Lowering
from gradloom.compiler.program import Call
from gradloom.inspection.measuring import Measurement, measure
from gradloom.inspection.roof import Roof, roof
from gradloom.inspection.work import Credit, bytes_by_argument, compulsory_bytes, credits_of, shares_of, work_of
from gradloom.runtime.files import published

ABOVE_ROOF = 1.05
"""A kernel's part of the roof from which on the roof must be wrong."""

SLOW_BARRIER = 20e-6
"""Seconds of a barrier from which on threads must have waited for a processor: on an idle machine it takes far less."""


@dataclass(frozen=True)
class KernelTime:
    """A call of a kernel: its place among the calls of a step, the group's name, and the function that is called.

    `seconds` is what the step spent in it, `busy_seconds` the mean of its threads: less where work is divided badly,
    more where others worked on it while the thread that all waited for was in another kernel. Rates are by the longer
    of both. `flops` are executed, `defined_flops` those of the definition, `bytes` compulsory: each operand read once,
    each result written once. `bound_share` is the part of that time in which the machine could do that at best: at
    peak, with arguments from where all that a step touches fits, intermediate results from the nearest cache.
    """

    call: int
    name: str
    kernel: str
    kind: str
    what: str
    layers: tuple[str, ...]
    seconds: float
    busy_seconds: float
    flops: float
    defined_flops: float
    bytes: float
    bound_share: float
    credits: Mapping[Credit, float] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """A short name: the layer that most of its work is done for, ∂ for a gradient, and the size of the work."""
        owner = max(self.credits, key=lambda credit: self.credits[credit])
        sign = " ∂" if owner.gradient and not self.what.startswith("∂") else ""
        return f"{owner.path}{sign}: {self.what.rpartition(': ')[2]}"

    @property
    def gflops(self) -> float:
        return 1e-9 * _part(self.flops, self.seconds, self.busy_seconds)

    @property
    def gbs(self) -> float:
        return 1e-9 * _part(self.bytes, self.seconds, self.busy_seconds)


@dataclass(frozen=True)
class LayerTime:
    """What kernels did for a layer, or for what stands beside layers (optimizer, loss, metrics, the batch)."""

    path: str
    forward_seconds: float
    gradient_seconds: float
    forward_flops: float
    gradient_flops: float
    calls: tuple[int, ...]

    @property
    def seconds(self) -> float:
        return self.forward_seconds + self.gradient_seconds

    @property
    def flops(self) -> float:
        return self.forward_flops + self.gradient_flops

    @property
    def gflops(self) -> float:
        return 1e-9 * self.flops / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """The measured times of a step; in a notebook it shows itself.

    `kernels` are in the order of the step, `layers` the dearest first. Between two barriers a step waits for the thread
    that arrives last, and it is this thread's time in each kernel that counts: kernels and `barrier_seconds`, what
    goes by until the threads are on their way again, add up to the time of the step. All are medians over `steps`
    steps. A kernel's time is divided among layers by the FLOPs of their nodes in it.
    """

    title: str
    kernels: tuple[KernelTime, ...]
    wall_seconds: float
    barrier_seconds: float
    barriers: int
    roof: Roof
    measurement: Measurement = field(repr=False)

    @property
    def threads(self) -> int:
        return self.measurement.threads

    @property
    def steps(self) -> int:
        """How many steps were measured."""
        return self.measurement.steps

    @property
    def kernel_seconds(self) -> float:
        """The sum of the kernels' times."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def flops(self) -> float:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def doubt(self) -> str:
        """Why not to trust the figures, in a line: signs that others used the machine meanwhile; "" without any."""
        signs = []
        above = sum(kernel.bound_share > ABOVE_ROOF for kernel in self.kernels)
        if above:
            signs.append(f"{above} of {len(self.kernels)} kernels above the roof")
        barrier = self.barrier_seconds / self.barriers if self.barriers else 0.0
        if self.threads > 1 and barrier > SLOW_BARRIER:
            signs.append(f"barriers of {1e6 * barrier:.0f} µs")
        return f"doubtful: others seem to have used the machine ({', '.join(signs)})" if signs else ""

    @property
    def dearest(self) -> list[KernelTime]:
        """The kernels, the dearest first."""
        return sorted(self.kernels, key=lambda kernel: -kernel.seconds)

    @cached_property
    def layers(self) -> tuple[LayerTime, ...]:
        """What kernels did for each layer, the dearest first."""
        seconds: dict[Credit, float] = defaultdict(float)
        flops: dict[Credit, float] = defaultdict(float)
        calls: dict[str, dict[int, None]] = defaultdict(dict)
        for kernel in self.kernels:
            for credit, share in kernel.credits.items():
                seconds[credit] += share * kernel.seconds
                flops[credit] += share * kernel.flops
                calls[credit.path][kernel.call] = None
        rows = []
        for path, numbers in calls.items():
            forward, gradient = Credit(path), Credit(path, gradient=True)
            times = seconds[forward], seconds[gradient]
            rows.append(LayerTime(path, *times, flops[forward], flops[gradient], tuple(numbers)))
        return tuple(sorted(rows, key=lambda row: -row.seconds))

    def text(self, rows: int | None = 20) -> str:
        """Return the kernels and the layers as tables, the dearest first; of each at most so many rows."""
        from gradloom.inspection.profile_text import profile_text

        return profile_text(self, rows)

    def svg(self, rows: int | None = 40) -> str:
        """Return a bar for each layer, forward and gradient in two tones; it follows light or dark colours."""
        from gradloom.inspection.profile_chart import bar_chart

        return bar_chart(self, rows)

    def roofline_svg(self) -> str:
        """Return the kernels as dots under the roof of this machine, by their FLOPs for each byte and each second."""
        from gradloom.inspection.profile_chart import roofline_chart

        return roofline_chart(self)

    def json(self) -> dict[str, Any]:
        """Return everything as `json.dumps` takes it, without the time stamps."""
        kernels = [
            {
                **{name: value for name, value in vars(kernel).items() if name != "credits"},
                "label": kernel.label,
                "gflops": kernel.gflops,
                "gbs": kernel.gbs,
                "credits": [{**asdict(credit), "share": share} for credit, share in kernel.credits.items()],
            }
            for kernel in self.kernels
        ]
        layers = [
            {**vars(row), "seconds": row.seconds, "flops": row.flops, "gflops": row.gflops} for row in self.layers
        ]
        return {
            "title": self.title,
            "threads": self.threads,
            "steps": self.steps,
            "wall_seconds": self.wall_seconds,
            "kernel_seconds": self.kernel_seconds,
            "barrier_seconds": self.barrier_seconds,
            "barriers": self.barriers,
            "roof": asdict(self.roof),
            "doubt": self.doubt,
            "kernels": kernels,
            "layers": layers,
        }

    def trace(self) -> dict[str, Any]:
        """Return some steps in Chrome's trace event format, a track for each thread, as `json.dumps` takes it."""
        from gradloom.inspection.trace_events import trace_events

        return trace_events(self)

    def save_trace(self, path: str | Path) -> None:
        """Write `trace` to a file for https://ui.perfetto.dev or Chrome's about:tracing; nothing of it is sent.

        The file is replaced as a whole or not at all. Raises OSError that names `path`.
        """
        import json

        with published(path) as file:
            file.write(json.dumps(self.trace()).encode())

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        from gradloom.compiler.views.typography import MONO, escaped

        table = f'<pre style="font-family:{MONO};font-size:12px;line-height:1.35">{escaped(self.text())}</pre>'
        return f"<div>{self.svg(20)}<details><summary>{escaped(self.title)}: tables</summary>{table}</details></div>"


def profile_step(
    title: str, lowering: Lowering, prepare: Graph | None, arrays: Mapping[str, np.ndarray], seconds: float
) -> Profile:
    """Measure a timed program, and return its profile."""
    measurement = measure(lowering, prepare, arrays, seconds)
    profile = profile_of(title, lowering, measurement, roof(measurement.threads))
    fastest = max((1e9 * kernel.gflops for kernel in profile.kernels), default=0.0)
    return profile_of(title, lowering, measurement, roof(measurement.threads, fastest))


def profile_of(title: str, lowering: Lowering, measurement: Measurement, machine: Roof) -> Profile:
    """Return the profile of a step that was measured."""
    is_call = [isinstance(step, Call) for step in lowering.steps]
    seconds = _chosen(measurement.items, is_call)
    busy = _chosen(measurement.busy, is_call)
    arguments = [a.type.size for a in lowering.arguments if a.role == "indices"]
    rows = max(arguments, default=1)
    launches = lowering.scheduled.launches
    footprint = compulsory_bytes(launches, lowering, rows)
    kernels = []
    for call, (launch, name, share) in enumerate(
        zip(launches, lowering.kernel_names, shares_of(launches), strict=True)
    ):
        kind, what, executed, defined = work_of(launch.group)
        far, near = bytes_by_argument([launch], lowering, rows)
        credits = credits_of(launch.group, lowering.fused)
        least = machine.seconds(share * executed, far, near, footprint)
        layers = tuple(dict.fromkeys(credit.path for credit in credits if credit.path))
        kernels.append(
            KernelTime(
                call=call,
                name=launch.group.name,
                kernel=name,
                kind=kind,
                what=what,
                layers=layers,
                seconds=seconds[call],
                busy_seconds=busy[call],
                flops=share * executed,
                defined_flops=share * defined,
                bytes=far + near,
                bound_share=_part(least, seconds[call], busy[call]),
                credits=credits,
            )
        )
    waited = sum(measurement.items) - sum(seconds)
    return Profile(title, tuple(kernels), measurement.wall, waited, is_call.count(False), machine, measurement)


def _part(amount: float, seconds: float, busy_seconds: float) -> float:
    """An amount by the time that threads together had for it; 0 where there was none."""
    time = max(seconds, busy_seconds)
    return amount / time if time else 0.0


def _chosen(items: Sequence[float], chosen: Sequence[bool]) -> list[float]:
    return [item for item, wanted in zip(items, chosen, strict=True) if wanted]
