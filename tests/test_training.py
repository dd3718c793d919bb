"""Training as a whole: accuracy on real images, equal bits for any thread count, a second process without compiling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom.runtime.threads import get_num_threads, set_num_threads


def classifier(optimizer: Any) -> gl.Sequential:
    model = gl.Sequential(
        [
            gl.layers.Flatten(input_shape=(28, 28)),
            gl.layers.Dense(128, activation="relu"),
            gl.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    try:
        (x, y), (x_test, y_test) = gl.datasets.fashion_mnist.load_data()
    except (OSError, gl.datasets.fashion_mnist.DataNotFoundError) as error:
        pytest.skip(f"needs the Fashion-MNIST images: {error}")
    return x[:8226] / 255.0, y[:8226], x_test[:3000] / 255.0, y_test[:3000]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adam_reaches_the_accuracy_of_other_frameworks(images: Any, seed: int) -> None:
    x, y, x_test, y_test = images
    gl.utils.set_random_seed(seed)
    model = classifier("adam")
    model.fit(x, y, epochs=5, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"] >= 0.82


def test_the_recipe_of_the_predecessor_reaches_its_accuracy(images: Any) -> None:
    x, y, x_test, y_test = images
    model = classifier(gl.optimizers.SGD(0.003))
    model.fit(x, y, epochs=5, batch_size=1, verbose=0)
    assert model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"] >= 0.82


def trained(threads: int, batch_size: int) -> list[np.ndarray]:
    """The weights after an epoch on synthetic images."""
    (x, y), _ = gl.datasets.synthetic_fashion.load_data(train=500, test=10)
    before = get_num_threads()
    set_num_threads(threads)
    try:
        gl.utils.clear_session()
        gl.utils.set_random_seed(3)
        model = classifier("adam")
        model.fit(x / 255.0, y, batch_size=batch_size, verbose=0)
    finally:
        set_num_threads(before)
    return model.get_weights()


@pytest.mark.parametrize("batch_size", [1, 32, 128])
def test_weights_after_an_epoch_do_not_depend_on_threads_or_repetition(batch_size: int) -> None:
    once, again, shared = trained(1, batch_size), trained(1, batch_size), trained(2, batch_size)
    assert [w.tobytes() for w in once] == [w.tobytes() for w in again]
    assert [w.tobytes() for w in once] == [w.tobytes() for w in shared]


SECOND_PROCESS = """
import numpy as np, sys
import gradloom as gl
assert "llvmlite" not in sys.modules
model = gl.Sequential([gl.layers.Dense(16, activation="relu", input_shape=(8,)), gl.layers.Dense(3)])
model.compile("adam", gl.losses.SparseCategoricalCrossentropy(from_logits=True))
model.train_on_batch(np.ones((4, 8)), np.array([0, 1, 2, 0]))
from gradloom.compiler.llvm import codegen
print(codegen.compilations, "llvmlite.ir" in sys.modules)
"""


def test_a_second_process_with_a_warm_cache_generates_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLOOM_CACHE_DIR", str(tmp_path))

    def run(program: str) -> list[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert run(SECOND_PROCESS)[0] == "1"
    # A comment above the model moves its lines; they are not part of the key.
    assert run("# a comment\n" + SECOND_PROCESS)[0] == "0"


@pytest.mark.parametrize("mode", ["train", "evaluate", "predict"])
def test_the_text_of_each_graph_stage_parses_back(mode: str) -> None:
    stages = classifier("adam").inspect(batch_size=32, mode=mode).stages
    graphs = [stage.graph for stage in stages.values() if hasattr(stage, "graph")]
    assert len(graphs) >= 3
    for graph in graphs:
        assert str(graph)
        assert gl.compiler.parse(str(graph)) == graph
