"""The process of one framework in the MLP benchmark: `mlp_worker.py FRAMEWORK CASE FOLDER`, used over its pipes."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import private_channel, serve
from mlp_case import Case, Peer, initial_weights, load_data, train_exactly

FRAMEWORKS: dict[str, tuple[str, str]] = {
    "gradloom": ("mlp_gradloom", "build"),
    "numpy": ("mlp_numpy", "build"),
    "torch": ("mlp_torch", "build"),
    "keras": ("mlp_keras", "build"),
    "jax": ("mlp_jax", "build"),
    "jax-scan": ("mlp_jax", "build_scan"),
}
"""The module and the function that make each framework's `Peer`."""

CHECKED_SAMPLES = 1000
"""Trained on without shuffling, to compare with float64: there is a partial batch at 32 and at 128."""


def deviation(peer: Peer, case: Case, images: np.ndarray, labels: np.ndarray) -> float:
    """How far unshuffled training ends from float64: the largest error of a weight over the largest update."""
    start = initial_weights(case)
    loss, exact = train_exactly(case, images, labels)
    peer.reset(start)
    errors = [abs(peer.fit(shuffle=False) / loss - 1)]
    for got, wanted, old in zip(peer.weights(), exact, start, strict=True):
        errors.append(float(np.abs(got - wanted).max() / np.abs(wanted - old).max()))
    return max(errors)


def main() -> None:
    channel = private_channel()
    framework, case_text, folder = sys.argv[1:]
    case = Case(**json.loads(case_text))
    images, labels = load_data(case, Path(folder))
    module, function = FRAMEWORKS[framework]
    try:
        build: Callable[[Case, np.ndarray, np.ndarray], Peer] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        with os.fdopen(channel, "w") as out:
            print(json.dumps({"missing": str(error)}), file=out, flush=True)
        return

    small = replace(case, samples=min(CHECKED_SAMPLES, case.samples))
    few = images[: small.samples], labels[: small.samples]
    error = deviation(build(small, *few), small, *few)
    peer = build(case, images, labels)

    def fit(request: str) -> Mapping[str, Any]:
        peer.reset(initial_weights(case))
        start = time.perf_counter()
        loss = peer.fit(shuffle=True)
        return {"seconds": time.perf_counter() - start, "loss": loss}

    fit("warm up")  # compiles, and starts the thread pools
    serve({"versions": peer.versions, "deviation": error}, fit, channel)


if __name__ == "__main__":
    main()
