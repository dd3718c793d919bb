"""Some steps of a profile in Chrome's trace event format, which Perfetto opens: a track for each thread."""

from __future__ import annotations

from typing import Any

from gradloom.inspection.profiling import Profile

PROCESS = 1


def trace_events(profile: Profile) -> dict[str, Any]:
    """Return complete events ("X"): the steps of each thread, and in them its calls and its waits at barriers.

    Times are microseconds from the first event on. The arguments of a call are its kernel, layers, FLOPs and bytes
    (all threads' together), and the median of the time that steps spend in it.
    """
    times = profile.measurement.sample.times
    origin = int(times.min())
    events: list[dict[str, Any]] = [_named("process_name", 0, f"gradloom: {profile.title}")]
    for thread in range(profile.threads):
        events.append(_named("thread_name", thread, "caller" if thread == 0 else f"worker {thread}"))
        events.append({**_named("thread_sort_index", thread, ""), "args": {"sort_index": thread}})
        for step, points in enumerate(times[:, thread]):
            at = [1e-3 * (int(point) - origin) for point in points]
            events.append(_event(f"step {step}", "step", thread, at[0], at[-1], {"step": step}))
            calls = iter(profile.kernels)
            for item, is_barrier in enumerate(profile.measurement.sample.barriers):
                begin, end = at[item], at[item + 1]
                if is_barrier:
                    events.append(_event("barrier", "barrier", thread, begin, end, {}))
                    continue
                kernel = next(calls)
                arguments = {
                    "call": kernel.call,
                    "group": kernel.name,
                    "kernel": kernel.kernel,
                    "layers": ", ".join(kernel.layers),
                    "flops": kernel.flops,
                    "bytes": kernel.bytes,
                    "median_us": 1e6 * kernel.seconds,
                }
                events.append(_event(kernel.label, "kernel", thread, begin, end, arguments))
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"title": profile.title}}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": PROCESS, "tid": thread, "args": {"name": name}}


def _event(
    name: str, category: str, thread: int, begin: float, end: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "pid": PROCESS,
        "tid": thread,
        "ts": begin,
        "dur": end - begin,
        "args": arguments,
    }
