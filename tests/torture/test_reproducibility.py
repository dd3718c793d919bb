"""Equal seeds give equal bits: in every process, on one thread and on two, in one native call or in many."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import children
import workloads

import gradloom as gl

BATCH_SIZE = 32
BATCHES = 10

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: gl.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: gl.optimizers.Adam(1e-3),
    "decaying": lambda: gl.optimizers.Adam(
        gl.optimizers.schedules.CosineDecay(0.01, 500), amsgrad=True, weight_decay=0.01
    ),
}

CASES = [("dense", "sgd"), ("wide", "decaying"), ("convolutional", "adam")]


class BatchWatcher(gl.callbacks.Callback):
    """Wants to hear of each batch, so that each is a native call of its own."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


def trained(network: str, optimizer: str, steps: int, by_batches: bool) -> tuple[str, int]:
    """Train, and return a digest of weights, optimizer state, losses and predictions, and on how many threads."""
    model = workloads.compiled_network(network, OPTIMIZERS[optimizer]())
    x, y = workloads.samples(model, BATCH_SIZE * BATCHES - 5)
    callbacks = [BatchWatcher()] if by_batches else []
    history = model.fit(x, y, BATCH_SIZE, epochs=steps // BATCHES, verbose=0, callbacks=callbacks)
    state = [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables), model.predict(x)]
    losses = "".join(loss.hex() for loss in history.history["loss"])
    threads = max(kept.executable.threads for kept in model._programs._kept.values() if hasattr(kept, "executable"))
    return workloads.digest(state) + losses, threads


def train_all(steps: int, threads: int, by_batches: bool) -> tuple[list[str], int]:
    """Train each network with its optimizers on so many threads; also return the most that one of them ran on."""
    gl.set_num_threads(threads)
    results = [trained(*case, steps, by_batches) for case in CASES]
    return [digest for digest, _ in results], max(used for _, used in results)


def test_training_is_the_same_bit_by_bit_in_every_process(times: Callable[[int, int], int]) -> None:
    settings = [(threads, by_batches) for by_batches in (False, True) for threads in (1, 2)]
    processes = times(2, 10)
    chosen = [settings[(3 * number) % 4] for number in range(processes)]
    begin = [
        partial(
            children.start,
            train_all,
            # Some take what others compiled, others compile anew.
            {"GRADLOOM_CACHE": "off" if number % 3 == 1 else "on"},
            steps=times(50, 1000),
            threads=threads,
            by_batches=by_batches,
        )
        for number, (threads, by_batches) in enumerate(chosen)
    ]
    results = children.call_each(begin, together=times(1, 2))
    assert [used for _, used in results] == [threads for threads, _ in chosen]
    (expected, _), *others = results
    assert len(set(expected)) == len(CASES)
    for digests, _ in others:
        assert [case for case, a, b in zip(CASES, expected, digests, strict=True) if a != b] == []
