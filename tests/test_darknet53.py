"""Darknet53 against what the original Darknet computes: every array of its reference, and its own files.

Needs `$GRADLOOM_DARKNET`: a folder with darknet53.cfg, labels.txt, dog.jpg and reference_seed0_dog.npz, and beside it
`tools/make_darknet_weights.py`, which makes the weights that the reference was computed with.
"""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gradloom as gl
from compiled import run_program
from gradloom.applications.published import WEIGHTS
from gradloom.compiler.autodiff import gradients
from gradloom.compiler.interpreter import interpret
from gradloom.compiler.ir import Graph
from gradloom.compiler.pipeline import Options, compile_graph
from gradloom.compiler.types import F64, TensorType
from gradloom.formats import darknet
from gradloom.variables import Trace

FOLDER = Path(os.environ.get("GRADLOOM_DARKNET", ""))
TOOL = FOLDER.resolve().parent / "tools" / "make_darknet_weights.py"
CLASSIFY = Path(__file__).resolve().parents[1] / "examples" / "darknet53" / "classify.py"
TOP_FIVE = [
    ("dingo", "14.84"),
    ("Loafer", "6.47"),
    ("reflex camera", "3.73"),
    ("king crab", "3.72"),
    ("comic book", "3.16"),
]
PUBLISHED_TOP_FIVE = [
    ("malamute", "15.53"),
    ("Tibetan mastiff", "8.43"),
    ("German shepherd", "7.38"),
    ("collie", "6.16"),
    ("Shetland sheepdog", "3.26"),
]
"""What the published weights say about dog.jpg."""

LAYERS = {
    "residual_36": "shortcut_36",
    "residual_61": "shortcut_61",
    "residual_74": "shortcut_74",
    "avgpool": "avgpool_75",
    "logits": "convolutional_76",
    "probabilities": "softmax_77",
}
"""The names of the reference's arrays, and those of the layers that make them."""

needs_folder = pytest.mark.skipif(
    not os.environ.get("GRADLOOM_DARKNET"), reason="GRADLOOM_DARKNET names no folder with Darknet53's cfg and reference"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not TOOL.is_file():
        pytest.skip(f"{TOOL}, which makes weights from a seed, is not there")
    file = tmp_path_factory.mktemp("darknet53") / "seed0.weights"
    subprocess.run([sys.executable, str(TOOL), str(FOLDER / "darknet53.cfg"), str(file), "--seed", "0"], check=True)
    return file


@pytest.fixture(scope="module")
def model(weights: Path) -> gl.Model:
    return darknet.load(FOLDER / "darknet53.cfg", weights)


@pytest.fixture(scope="module")
def dog() -> np.ndarray:
    pytest.importorskip("PIL", reason="the extra `examples` is not installed")
    return darknet.letterbox(darknet.read_image(FOLDER / "dog.jpg"), 256, 256)[np.newaxis]


@needs_folder
class TestReference:
    def test_every_array_is_darknets(self, model: gl.Model, dog: np.ndarray) -> None:
        outputs = [model.get_layer(name).output for name in LAYERS.values()]
        results = gl.Model(model.inputs[0], outputs).predict(dog)
        with np.load(FOLDER / "reference_seed0_dog.npz") as reference:
            assert sorted(reference.files) == sorted(LAYERS)
            for name, result in zip(LAYERS, results, strict=True):
                expected = reference[name].astype(np.float64)
                # Channels come first in the reference.
                received = np.moveaxis(result[0], -1, 0).reshape(expected.shape)
                error = np.abs(received - expected).max() / np.sqrt(np.mean(expected**2))
                assert error <= 1e-4, f"{name}: {error:.2e} of its RMS"

    def test_with_products_in_bfloat16_logits_are_near_darknets(self, weights: Path, dog: np.ndarray) -> None:
        gl.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            rough = darknet.load(FOLDER / "darknet53.cfg", weights)
        finally:
            gl.mixed_precision.set_global_policy("float32")
        (logits,) = gl.Model(rough.inputs[0], rough.get_layer(LAYERS["logits"]).output).predict(dog)
        with np.load(FOLDER / "reference_seed0_dog.npz") as reference:
            expected = reference["logits"].astype(np.float64).reshape(-1)
        assert logits.dtype == np.float32
        received = logits.reshape(-1)
        assert np.abs(received - expected).max() <= 2e-2 * np.sqrt(np.mean(expected**2))
        assert set(np.argsort(received)[-5:]) == set(np.argsort(expected)[-5:])

    def test_the_network_of_applications_is_the_cfgs(self, model: gl.Model, weights: Path, dog: np.ndarray) -> None:
        other = gl.applications.Darknet53(weights)
        np.testing.assert_allclose(other.predict(dog), model.predict(dog), rtol=1e-3, atol=1e-7)
        body = gl.applications.Darknet53(weights, include_top=False)
        assert body.output_shape == (None, 8, 8, 1024)
        for mine, its in zip(body.get_weights(), other.get_weights(), strict=False):
            np.testing.assert_array_equal(mine, its)

    def test_a_file_is_written_as_it_was_read(self, model: gl.Model, weights: Path, tmp_path: Path) -> None:
        darknet.save_weights(model, tmp_path / "written.weights")
        assert filecmp.cmp(weights, tmp_path / "written.weights", shallow=False)
        darknet.save_weights(gl.applications.Darknet53(weights), tmp_path / "written.weights")
        assert filecmp.cmp(weights, tmp_path / "written.weights", shallow=False)

    def test_the_example_prints_the_five_best_classes(self, weights: Path, tmp_path: Path) -> None:
        done = classify(tmp_path, "--weights", str(weights), "--labels", str(FOLDER / "labels.txt"))
        assert best(done.stdout) == TOP_FIVE


@needs_folder
def test_the_published_weights_know_the_dog(tmp_path: Path) -> None:
    found = [file for file in (FOLDER / "darknet53.weights", WEIGHTS.cached) if file.is_file()]
    if not found:
        pytest.skip(f"the published weights are not there: {WEIGHTS.url} as {WEIGHTS.cached}")
    done = classify(tmp_path, "--weights", str(found[0]), "--labels", str(FOLDER / "labels.txt"))
    assert best(done.stdout) == PUBLISHED_TOP_FIVE


def classify(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(CLASSIFY), str(FOLDER / "dog.jpg"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=True)


def best(text: str) -> list[tuple[str, str]]:
    """Names and percentages of the lines that an image has."""
    return [(name, share) for share, name in re.findall(r"^ +(\d+\.\d\d)%  (.+)$", text, re.MULTILINE)]


def test_a_published_file_has_the_size_of_the_network() -> None:
    model = gl.applications.Darknet53()
    assert WEIGHTS.size == 20 + 4 * sum(variable.size for variable in model.weights)


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_sizes_and_classes_are_free(size: tuple[int, int]) -> None:
    model = gl.applications.Darknet(((8, 1), (16, 2)), 4, input_shape=(*size, 3), classes=7)
    assert model.output_shape == (None, 7)
    body = gl.applications.Darknet(((8, 1), (16, 2)), 4, include_top=False, input_shape=(*size, 3))
    assert body.output_shape == (None, -(-size[0] // 4), -(-size[1] // 4), 16)


def test_a_shape_of_another_rank_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Expected input_shape as \(height, width, channels\). Received: \(256, 256\)"
    ):
        gl.applications.Darknet53(input_shape=(256, 256))


@pytest.mark.parametrize("normalization", [darknet.BatchNormalization, gl.layers.BatchNormalization])
def test_the_gradient_of_a_residual_block(normalization: type[gl.Layer]) -> None:
    """In training and float64, along a random direction of the input and all weights: against central differences.

    The gradient that is compiled, along the differences of the compiled loss; and likewise by the interpreter.
    """
    rng = np.random.default_rng(0)
    layers = [
        gl.layers.Conv2D(4, 1, padding="same", use_bias=False, dtype="float64", name="squeeze"),
        normalization(dtype="float64", name="squeeze_normalization"),
        gl.layers.LeakyReLU(0.1, dtype="float64"),
        gl.layers.Conv2D(8, 3, padding="same", use_bias=False, dtype="float64", name="expand"),
        normalization(dtype="float64", name="expand_normalization"),
        gl.layers.LeakyReLU(0.1, dtype="float64"),
    ]
    graph = Graph("block")
    with Trace(graph) as trace:
        x = graph.input("x", TensorType(F64, (3, 5, 6, 8)))
        y = x
        for layer in layers:
            y = layer(y, training=True)
        weights = graph.input("weights", x.type)
        loss = gl.ops.sum((x + y) * weights)
        variables = [variable for layer in layers for variable in layer.trainable_weights]
        wrt = [x, *(variable.symbolic(graph) for variable in variables)]
        graph.output("loss", loss)
        for number, gradient in enumerate(gradients([loss], wrt)):
            graph.output(f"gradient_{number}", gradient)
    labels = ["x", *(trace.label(variable) for variable in variables)]
    point = {"weights": rng.normal(size=x.shape), "x": rng.normal(size=x.shape)}
    point |= {label: array.astype(np.float64) for label, array in trace.arguments().items()}
    direction = {label: rng.normal(size=point[label].shape) for label in labels}

    program = compile_graph(graph, Options(cores=2))
    step = 1e-5
    for evaluate in (partial(interpret, graph), partial(run_program, program, graph)):
        outputs = evaluate(point)
        slope = sum(np.sum(outputs[f"gradient_{n}"] * direction[label]) for n, label in enumerate(labels))
        ahead, behind = (
            evaluate(point | {label: point[label] + sign * step * direction[label] for label in labels})["loss"]
            for sign in (1, -1)
        )
        assert slope == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


@pytest.mark.skipif(not os.environ.get("GRADLOOM_DATA"), reason="GRADLOOM_DATA names no folder with Fashion-MNIST")
def test_a_small_network_of_the_family_learns_fashion_mnist() -> None:
    (x, y), (x_test, y_test) = gl.datasets.fashion_mnist.load_data()
    x, y, x_test, y_test = x[:8226], y[:8226], x_test[:3000], y_test[:3000]
    epochs, batch_size = 6, 64
    model = gl.applications.Darknet(((32, 1), (64, 1), (128, 1)), 16, input_shape=(28, 28, 1), classes=10)
    schedule = gl.optimizers.schedules.PolynomialDecay(0.1, epochs * -(-len(x) // batch_size), 0.0, power=1.0)
    model.compile(
        optimizer=gl.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-4),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(x[..., np.newaxis] / 255.0, y, batch_size=batch_size, epochs=epochs, verbose=0)
    _, accuracy = model.evaluate(x_test[..., np.newaxis] / 255.0, y_test, verbose=0)
    assert accuracy >= 0.86
