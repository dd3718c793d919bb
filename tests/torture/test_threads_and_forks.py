"""Many Python threads on one model, and forked processes: the bits of a serial run, and nobody waits for ever."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import children
import numpy as np
import pytest
import workloads

import gradloom as gl

Times = Callable[[int, int], int]

THREADS = 8


@contextmanager
def concurrent(works: Sequence[Callable[[], Any]]) -> Iterator[None]:
    """Run each work on a thread of its own, beside what is done inside; raise the first error of one at the end."""
    errors: list[BaseException] = []

    def caught(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def impatient_threads() -> Iterator[None]:
    """Have threads take turns as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def ways(model: gl.Sequential) -> list[Callable[[], np.ndarray]]:
    """Predictions by several methods, of batches of several sizes."""
    x, _ = workloads.samples(model, 70)
    return [
        lambda: model.predict(x[:40], batch_size=32),
        lambda: model.predict(x, batch_size=16),
        lambda: model.predict_on_batch(x[:33]),
        lambda: model(x[5:6]),
        lambda: model.predict(x[::2], batch_size=1000),
    ]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def trained(epochs: int) -> str:
    """Train a network that runs on several threads; return a digest of its weights."""
    model = workloads.compiled_network("wide")
    model.fit(*workloads.samples(model, 150), epochs=epochs, verbose=0)
    return workloads.digest(model.get_weights())


def predict_in_threads(calls: int) -> None:
    """Predict on 8 threads with each network, while one trains another and one changes the number of threads in use."""
    gl.set_num_threads(2)
    epochs = 2 + calls // 10
    weights = trained(epochs)
    for network in workloads.NETWORKS:
        model = workloads.compiled_network(network)
        predictions = ways(model)
        expected = [predict() for predict in predictions]
        stop = threading.Event()

        def predict(ways: Sequence[Callable[[], np.ndarray]], expected: Sequence[np.ndarray], seed: int) -> None:
            for call in range(calls):
                way = (seed + call) % len(ways)
                assert same(ways[way](), expected[way]), (way, call)

        def train() -> None:
            assert trained(epochs) == weights

        def change_threads(stop: threading.Event) -> None:
            while not stop.is_set():
                for count in (1, 2, 3):
                    gl.set_num_threads(count)

        works = [partial(predict, predictions, expected, seed) for seed in range(THREADS)]
        with impatient_threads(), concurrent([partial(change_threads, stop)]):
            try:
                with concurrent([*works, train]):
                    pass
            finally:
                stop.set()


def test_threads_predict_what_a_serial_run_does(times: Times) -> None:
    children.call(predict_in_threads, calls=times(10, 500))


def set_weights_between(network: str, rounds: int) -> None:
    """Give a model other weights while threads predict with it: from then on predictions are those of the new ones."""
    gl.set_num_threads(2)
    model = workloads.compiled_network(network)
    serial = workloads.compiled_network(network)
    predictions, references = ways(model), ways(serial)
    weights = [[array * factor for array in model.get_weights()] for factor in (0.5, 1.0, 1.5)]
    expected = []
    for each in weights:
        serial.set_weights(each)
        expected.append([predict() for predict in references])
    phase = threading.Barrier(THREADS + 1)

    def predict(seed: int) -> None:
        try:
            for turn in range(rounds):
                for way in range(len(predictions)):  # in the midst of the change
                    predictions[(seed + way) % len(predictions)]()
                phase.wait()
                for way, wanted in enumerate(expected[turn % len(weights)]):
                    assert same(predictions[way](), wanted), (turn, way)
                phase.wait()
        except BaseException:
            phase.abort()
            raise

    with impatient_threads(), concurrent([partial(predict, seed) for seed in range(THREADS)]):
        for turn in range(rounds):
            model.set_weights(weights[turn % len(weights)])
            phase.wait()
            phase.wait()


@pytest.mark.parametrize("network", ["dense", "convolutional"])
def test_no_thread_predicts_with_weights_of_before(network: str, times: Times) -> None:
    children.call(set_weights_between, network=network, rounds=times(3, 300))


def start_cold_in_threads(rounds: int) -> None:
    """Have threads be the first to use a model and a function, all at the same time, while one sets the weights."""
    gl.set_num_threads(2)
    serial = workloads.compiled_network("dense")
    weights = [array + 0.25 for array in serial.get_weights()]
    serial.set_weights(weights)
    expected = [predict() for predict in ways(serial)]
    x, _ = workloads.samples(serial, 40)
    double = x * 2

    for _ in range(rounds):
        model = workloads.compiled_network("dense")
        function = gl.function(lambda v: v * 2.0)
        ready = threading.Barrier(5)

        def predict(predictions: Sequence[Callable[[], Any]], ready: threading.Barrier) -> None:
            ready.wait()
            for way in predictions:
                way()

        def set_weights(model: gl.Sequential, ready: threading.Barrier) -> None:
            ready.wait()
            model.set_weights(weights)

        def call(function: Callable[..., Any], ready: threading.Barrier) -> None:
            ready.wait()
            assert same(function(x), double)

        works = [partial(predict, ways(model), ready), partial(predict, ways(model)[::-1], ready)]
        works += [partial(set_weights, model, ready), *[partial(call, function, ready)] * 2]
        with impatient_threads(), concurrent(works):
            pass
        assert all(same(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
        assert all(same(predict(), wanted) for predict, wanted in zip(ways(model), expected, strict=True))


def test_threads_that_are_the_first_to_use_a_model(times: Times) -> None:
    children.call(start_cold_in_threads, rounds=times(2, 100))


def in_child(work: Callable[[], None], orderly: bool) -> int:
    """Fork, do the work in the child, and return its process number; it ends with exit code 7 if all is well.

    orderly: whether the child ends as a program does, running what is registered for the end.
    """
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(children.PATIENCE // 2)
    code = 1
    try:
        work()
        code = 7
    except BaseException:
        traceback.print_exc()
    if orderly:
        sys.exit(code)
    os._exit(code)


def fork_often(forks: int) -> None:
    """Fork a warm process while its threads predict and train; the child predicts and trains, and so does the parent.

    The child leaves alone what other threads were in the midst of changing: only they know how far they came.
    """
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    gl.set_num_threads(2)
    weights = trained(1)
    models = [workloads.compiled_network(network) for network in ("dense", "wide", "convolutional")]
    for model in models:
        model.fit(*workloads.samples(model, 32), verbose=0)
    predictions = [way for model in models for way in ways(model)]
    expected = [predict() for predict in predictions]
    x, _ = workloads.samples(models[0], 10)
    stop = threading.Event()

    def predict_all() -> None:
        for predict, wanted in zip(predictions, expected, strict=True):
            assert same(predict(), wanted)

    def check() -> None:
        predict_all()
        assert trained(1) == weights

    def learn(turn: int) -> None:
        check()
        for model in models:
            model.fit(*workloads.samples(model, 32), verbose=0)
            assert all(np.isfinite(array).all() for array in model.get_weights())
        assert same(gl.function(lambda v: v + float(turn))(x), x + np.float32(turn))  # compiled here
        assert gc.isenabled()

    def in_background(work: Callable[[], Any]) -> None:
        while not stop.is_set():
            work()

    busy = workloads.compiled_network("wide")
    data = workloads.samples(busy, 150)
    # Shuffling would take from the numbers that `trained` is to see alone.
    train = partial(busy.fit, *data, epochs=3, shuffle=False, verbose=0)

    with concurrent([partial(in_background, predict_all), partial(in_background, train)]):
        try:
            for turn in range(forks):
                pid = in_child(partial(learn, turn), orderly=turn % 2 == 1)
                check()
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, turn
        finally:
            stop.set()
    check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_forked_children_and_their_parent_go_on(times: Times) -> None:
    children.call(fork_often, forks=times(2, 50))
