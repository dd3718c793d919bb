"""Interrupts `fit` with SIGINT at random moments, and looks at what it leaves.

    python interrupted_fits.py INTERRUPTS SEED

Goes on until a fourth of them came after different numbers of steps: most come before the first step, where a model
is compiled, and how many is chance. Prints one line of JSON: how many interrupts there were, and after how many
different numbers of steps.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

import gradloom as gl

SAMPLES, FEATURES, CLASSES = 700, 96, 16
BATCH_SIZE = 32
EPOCHS = 15
MOST_TRIALS = 10  # for every interrupt that is asked for


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((SAMPLES, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, SAMPLES)


X, Y = data()


def new_model() -> gl.Sequential:
    gl.utils.clear_session()
    gl.utils.set_random_seed(3)
    model = gl.Sequential(
        [
            gl.Input((FEATURES,)),
            gl.layers.Dense(256, activation="relu"),
            gl.layers.Dropout(0.2),
            gl.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(gl.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model: gl.Sequential, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    model.fit(X, Y, BATCH_SIZE, epochs, verbose=0, validation_split=0.1, callbacks=callbacks)


def steps(model: gl.Sequential) -> int:
    assert model.optimizer is not None
    return int(model.optimizer.iterations)


def bits(model: gl.Sequential) -> list[bytes]:
    return [variable.value.tobytes() for variable in variables(model)]


def variables(model: gl.Sequential) -> list[gl.Variable]:
    """Weights, and what the optimizer keeps of them; it keeps nothing before the first `fit`."""
    assert model.optimizer is not None
    return [*model.weights, *(one for one in model.optimizer.variables if one.ndim)]


class Steps(gl.callbacks.Callback):
    """Keeps a copy of the variables after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, list[np.ndarray]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.keep()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.keep()

    def keep(self) -> None:
        model: Any = self.model
        self.values[steps(model)] = [variable.numpy() for variable in variables(model)]


class Nothing(gl.callbacks.Callback):
    """Has Python come back after every batch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        pass


def interrupted(model: gl.Sequential, seconds: float, callbacks: Any) -> bool:
    """Train, and send an interrupt after so many seconds; whether it came before the end."""
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    try:
        timer.start()
        try:
            fit(model, callbacks=callbacks)
        except KeyboardInterrupt:
            return True
        finally:
            timer.cancel()
            timer.join()
    except KeyboardInterrupt:  # between the end of `fit` and that of the timer
        pass
    return False


def check(model: gl.Sequential, expected: dict[int, list[np.ndarray]]) -> None:
    """The model has the weights of a whole number of steps, and predicts and trains like one that stopped there."""
    done = steps(model)
    values = expected[done]
    found = [variable.value for variable in variables(model)]
    for value, wanted in zip(found, values if len(found) == len(values) else values[: len(found)], strict=True):
        assert value.tobytes() == wanted.tobytes(), f"not the weights of {done} steps"
    twin: Any = new_model()
    twin.optimizer.build(twin.trainable_variables)
    for variable, value in zip(variables(twin), values, strict=True):
        variable.assign(value)
    assert twin.predict(X[:64]).tobytes() == model.predict(X[:64]).tobytes()
    results = [one.evaluate(X[:64], Y[:64], verbose=0) for one in (twin, model)]
    assert results[0] == results[1]
    fit(model, epochs=1)
    assert steps(model) == done + -(-int(SAMPLES * 0.9) // BATCH_SIZE)
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert model.training_run is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def main(interrupts: int, seed: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Shells start background processes that ignore it.
    rng = random.Random(seed)
    keeper = Steps()
    fit(new_model(), callbacks=[keeper])
    started = time.perf_counter()
    fit(new_model())
    longest = 1.2 * (time.perf_counter() - started)
    seen: list[int] = []
    for _ in range(MOST_TRIALS * interrupts):
        if len(seen) >= interrupts and len(set(seen)) > interrupts // 4:
            break
        model = new_model()
        seconds = rng.uniform(0, longest)
        try:
            if interrupted(model, seconds, rng.choice([(), [Nothing()]])):
                seen.append(steps(model))
                check(model, keeper.values)
        except Exception:
            print(f"after {seconds:.4f} s, {len(seen)} interrupts, seed {seed}, {steps(model)} steps", file=sys.stderr)
            raise
    print(json.dumps({"interrupts": len(seen), "moments": len(set(seen))}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
