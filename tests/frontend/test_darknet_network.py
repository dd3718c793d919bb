"""Networks of Darknet's sections: what Gradloom computes against a NumPy rendering of Darknet, channel-first."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy_darknet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradloom as gl
from gradloom.compiler.interpreter import interpret
from gradloom.formats import darknet


def random_weights(text: str, seed: int) -> bytes:
    """A weights file of version 0.2 for a cfg: positive numbers, so that they serve as variances, too."""
    floats = np.random.default_rng(seed).uniform(0.05, 0.5, numpy_darknet.count_floats(text))
    return struct.pack("<iiiQ", 0, 2, 0, 7) + floats.astype("<f4").tobytes()


def check(tmp_path: Path, text: str, seed: int = 0) -> None:
    """Compare the network's result, interpreted, with the oracle's."""
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    cfg.write_text(text)
    weights.write_bytes(random_weights(text, seed))
    model = darknet.load(cfg, weights)
    height, width, channels = model.input_shape[1:]
    images = np.random.default_rng(seed).uniform(-1, 1, (2, height, width, channels)).astype(np.float32)
    received = predict(model, images)
    for image, result in zip(images, received, strict=True):
        floats = numpy_darknet.Floats(weights.read_bytes())
        results = numpy_darknet.forward(text, floats, image.transpose(2, 0, 1))
        assert floats.used * 4 + 20 == weights.stat().st_size
        expected = results[-1]
        expected = expected.reshape(-1) if expected.shape[1:] == (1, 1) else expected.transpose(1, 2, 0)
        scale = np.sqrt(np.mean(expected**2))
        np.testing.assert_allclose(result, expected, atol=1e-4 * scale + 1e-7)


def predict(model: gl.Model, images: np.ndarray) -> np.ndarray:
    graph = model.predict_graph(batch_size=len(images))
    values = {variable.path: variable.value for variable in model.weights}
    return interpret(graph, {"x": images} | {label: values[label] for label in labels(graph) if label != "x"})[
        "predictions"
    ]


def labels(graph: gl.compiler.ir.Graph) -> list[str]:
    return [value.op.label for value in graph.inputs]


NET = "[net]\nheight=8\nwidth=6\nchannels=4\n"
CONV = "[convolutional]\nfilters=6\nsize=3\npad=1\nactivation=linear\n"


@pytest.mark.parametrize("activation", sorted(numpy_darknet.SCALAR))
def test_activations_are_darknets(tmp_path: Path, activation: str) -> None:
    # Weights of 1×1 that spread the input over the bends of every function.
    text = f"[net]\nheight=9\nwidth=9\nchannels=1\n[convolutional]\nfilters=1\nsize=1\nactivation={activation}\n"
    cfg, weights = tmp_path / "net.cfg", tmp_path / "net.weights"
    cfg.write_text(text)
    weights.write_bytes(struct.pack("<iiiQff", 0, 2, 0, 0, 0.25, 1.0))
    model = darknet.load(cfg, weights)
    x = np.linspace(-8, 8, 81, dtype=np.float32).reshape(1, 9, 9, 1)
    expected = numpy_darknet.activated(x.astype(np.float64) + 0.25, activation)
    np.testing.assert_allclose(predict(model, x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "sections",
    [
        CONV,
        "[convolutional]\nfilters=6\nsize=3\nstride=2\npad=1\nbatch_normalize=1\nactivation=leaky\n",
        "[convolutional]\nfilters=6\nsize=2\nstride=2\npadding=1\ngroups=2\nactivation=relu\n",
        "[convolutional]\nfilters=8\nsize=5\nstride=3\npad=1\ngroups=4\nbatch_normalize=1\n",
        "[maxpool]\nsize=2\nstride=2\n",
        "[maxpool]\nsize=3\nstride=2\n",
        "[maxpool]\nsize=3\nstride=1\n",
        "[maxpool]\nsize=2\nstride=3\npadding=0\n",
        "[maxpool]\nsize=3\nstride=2\npadding=4\n",
        "[upsample]\nstride=3\nscale=.5\n",
        "[crop]\ncrop_height=4\ncrop_width=3\n",
        "[crop]\ncrop_height=8\ncrop_width=3\nnoadjust=1\n",
        "[dropout]\nprobability=.7\n",
        "[avgpool]\n",
        "[connected]\noutput=5\nactivation=linear\n",
        "[connected]\noutput=5\nbatch_normalize=1\nactivation=ramp\n[dropout]\n[connected]\noutput=3\n",
        "[avgpool]\n[connected]\noutput=10\nactivation=leaky\n[softmax]\ngroups=1\n[cost]\ntype=sse\n",
        "[lrn]\n",
        "[lrn]\nalpha=.1\nbeta=.5\nkappa=2\nsize=3\n",
        "[normalization]\nalpha=.3\nsize=1\n",
        "[normalization]\nalpha=.3\nsize=2\n",
        "[normalization]\nalpha=.2\nsize=9\n",
        CONV.replace("=6", "=12") + "[lrn]\nalpha=.02\nkappa=3\n",
        "[softmax]\ngroups=2\ntemperature=3\n",
        "[avgpool]\n[softmax]\ntemperature=.5\n",
        "[avgpool]\n[softmax]\ngroups=2\n",
        CONV + "[route]\nlayers=-1\n",
        CONV + CONV + "[route]\nlayers=-1,0\n",
        CONV + CONV + "[route]\nlayers=0,1\ngroups=3\ngroup_id=1\n",
        CONV + CONV + "[shortcut]\nfrom=0\nactivation=leaky\n",
        CONV + CONV + "[shortcut]\nfrom=-2\nalpha=.5\nbeta=2\n",
        CONV + "[shortcut]\nfrom=-1\n",
        CONV + "[maxpool]\nsize=2\nstride=2\n[shortcut]\nfrom=0\n",
        CONV + "[convolutional]\nfilters=9\nsize=3\nstride=2\npad=1\n[shortcut]\nfrom=0\nalpha=.5\nbeta=3\n",
        CONV + "[convolutional]\nfilters=2\nsize=3\nstride=2\npad=1\n[shortcut]\nfrom=0\n",
        "[maxpool]\nsize=2\nstride=2\n[upsample]\nstride=2\n[shortcut]\nfrom=0\nalpha=.25\nbeta=2\n",
        "[maxpool]\nsize=3\nstride=3\n[upsample]\nstride=3\n" + CONV + "[shortcut]\nfrom=0\nbeta=.5\n",
    ],
)
def test_sections_compute_what_darknets_do(tmp_path: Path, sections: str) -> None:
    check(tmp_path, NET + sections)


def test_layers_that_nothing_reads_have_their_part_of_the_file(tmp_path: Path) -> None:
    check(tmp_path, NET + CONV + "[convolutional]\nfilters=9\n" + "[route]\nlayers=0\n" + CONV)


@st.composite
def networks(draw: st.DrawFn) -> str:
    """Random networks whose maps always fit: all layers keep or halve the size."""
    size = draw(st.sampled_from([4, 5, 8]))
    text = f"[net]\nheight={size}\nwidth={size}\nchannels={draw(st.sampled_from([1, 2, 4]))}\n"
    sizes: list[int] = []
    for _ in range(draw(st.integers(1, 5))):
        kinds = ["convolutional", "maxpool", "upsample", *(["route", "shortcut"] if sizes else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "convolutional":
            stride = draw(st.sampled_from([1, 2]))
            window = draw(st.sampled_from([1, 3]))
            size = (size - 1) // stride + 1
            activation = draw(st.sampled_from(["leaky", "linear", "ramp"]))
            text += (
                f"[convolutional]\nfilters={draw(st.integers(1, 5))}\nsize={window}\nstride={stride}\npad=1\n"
                f"batch_normalize={draw(st.integers(0, 1))}\nactivation={activation}\n"
            )
        elif kind == "maxpool":
            size = (size - 1) // 2 + 1
            text += "[maxpool]\nsize=2\nstride=2\n"
        elif kind == "upsample":
            size *= 2
            text += "[upsample]\nstride=2\n"
        else:
            number = draw(st.integers(-len(sizes), len(sizes) - 1))
            if kind == "route":
                size = sizes[number]
                text += f"[route]\nlayers={number}\n"
            else:
                text += f"[shortcut]\nfrom={number}\nactivation=leaky\n"
        sizes.append(size)
    return text


@settings(max_examples=30)
@given(networks(), st.integers(0, 2**16))
def test_any_network_computes_what_darknet_does(tmp_path_factory: pytest.TempPathFactory, text: str, seed: int) -> None:
    gl.utils.clear_session()
    check(tmp_path_factory.mktemp("darknet"), text, seed)


def test_layers_are_found_by_darknets_numbers(tmp_path: Path) -> None:
    (tmp_path / "small.cfg").write_text(
        NET + CONV + "[convolutional]\nfilters=6\nbatch_normalize=1\nactivation=leaky\n[shortcut]\nfrom=0\n[avgpool]\n"
    )
    model = darknet.load(tmp_path / "small.cfg")
    assert model.name == "small"
    assert model.output_shape == (None, 6)
    assert [layer.name for layer in model.layers] == [
        "image",
        "convolutional_0",
        "convolutional_1",
        "convolutional_1_batch_normalize",
        "convolutional_1_leaky",
        "shortcut_2",
        "avgpool_3",
        "flatten",
    ]


def test_batch_normalization_trains_as_darknet(tmp_path: Path) -> None:
    """Mean and variance of the batch, n − 1 in the denominator; the rolling ones keep 99 %."""
    from interpreted import evaluate

    layer = darknet.BatchNormalization()
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 5, 4)).astype(np.float32)
    y = evaluate(lambda x: layer(x, training=True), x)
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2), ddof=1)
    np.testing.assert_allclose(y, (x - mean) / (np.sqrt(variance) + 1e-6), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.rolling_mean.value, 0.01 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.rolling_variance.value, 0.99 + 0.01 * variance, rtol=1e-4)
