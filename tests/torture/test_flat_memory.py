"""Memory of a process that goes on and on: flat after the first calls, whatever is called."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import children
import pytest
import workloads

import gradloom as gl

Times = Callable[[int, int], int]

MEGABYTE = 1 << 20
WINDOWS = 5
"""Parts of a run whose least memory is compared."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def least_memory(work: Callable[[int], Any], steps: int, warm_up: int) -> list[int]:
    """The least memory that the process has within each part of so many calls, after `warm_up` of them."""
    for step in range(warm_up):
        work(step)
    gc.collect()
    gc.freeze()  # what is there now stays, and need not be looked at each time
    windows = []
    for _ in range(WINDOWS):
        seen = []
        for turn in range(2):
            for step in range(steps // WINDOWS // 2):
                work(turn + step)
            gc.collect()
            seen.append(resident())
        windows.append(min(seen))
    gc.unfreeze()
    return windows


SIZES = (1, 17, 64)
"""Batches' sizes: each has programs of its own, so that there is an end to their number."""


def measured(names: list[str], steps: int, warm_up: int) -> dict[str, list[int]]:
    """Memory of a process that does each of these things again and again."""
    model = workloads.compiled_network("dense")
    x, y = workloads.samples(model, 64)
    function = gl.function(lambda v: gl.ops.sum(v * v))

    def sizes(step: int) -> int:
        return SIZES[step % len(SIZES)]

    def model_of_its_own(step: int) -> None:
        other = workloads.dense_network(8)
        other.compile("sgd", "sparse_categorical_crossentropy")
        other.fit(x, y, verbose=0)
        other.predict(x)

    works: dict[str, Callable[[int], Any]] = {
        "predict": lambda step: model.predict(x),
        "predict some": lambda step: model.predict(x[: sizes(step)], batch_size=32),
        "predict_on_batch": lambda step: model.predict_on_batch(x[: sizes(step)]),
        "fit": lambda step: model.fit(x, y, verbose=0),
        "fit some": lambda step: model.fit(x[: sizes(step)], y[: sizes(step)], verbose=0, validation_data=(x, y)),
        "train_on_batch": lambda step: model.train_on_batch(x[: sizes(step)], y[: sizes(step)]),
        "evaluate": lambda step: model.evaluate(x, y, verbose=0),
        "set_weights": lambda step: (model.set_weights(model.get_weights()), model.predict_on_batch(x)),
        "call": lambda step: function(x[: sizes(step)]),
        "functions": lambda step: gl.function(lambda v: v * 2.0)(x),
        "models": model_of_its_own,
    }
    return {name: least_memory(works[name], steps, warm_up) for name in names}


def check_flat(measurements: dict[str, list[int]]) -> None:
    for name, windows in measurements.items():
        growth = ", ".join(f"{(size - windows[0]) / MEGABYTE:+.2f}" for size in windows)
        assert max(windows) - min(windows) <= MEGABYTE, f"{name}: MB beyond the first window: {growth}"


STEPS = ["predict", "predict some", "predict_on_batch", "fit", "fit some"]
STEPS += ["train_on_batch", "evaluate", "set_weights", "call"]


def test_memory_is_flat_over_steps(times: Times) -> None:
    for names in [[name] for name in STEPS] if times(0, 1) else [STEPS]:
        check_flat(children.call(measured, names=names, steps=times(80, 10_000), warm_up=times(20, 500)))


@pytest.mark.parametrize(("name", "short"), [("models", 20), ("functions", 200)])
def test_programs_that_nobody_has_any_more_are_freed(name: str, short: int, times: Times) -> None:
    steps = times(short, 2000)
    check_flat(children.call(measured, names=[name], steps=steps, warm_up=steps // 4))
