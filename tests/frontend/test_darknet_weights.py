"""Darknet's weights files: written as read, refused when they do not fit, in the order that Darknet has."""

from __future__ import annotations

import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradloom as gl
from gradloom.formats import darknet
from gradloom.variables import Variable

CFG = """[net]
height=4
width=4
channels=2
[convolutional]
batch_normalize=1
filters=3
size=3
pad=1
groups=1
activation=leaky
[convolutional]
filters=2
size=1
activation=linear
[connected]
output=5
batch_normalize=1
activation=relu
[softmax]
"""
FLOATS = (4 * 3 + 3 * 2 * 9) + (2 + 2 * 3) + (4 * 5 + 5 * 2 * 16)


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    file = tmp_path / "small.cfg"
    file.write_text(CFG)
    return file


def numbered(version: tuple[int, int] = (0, 2), seen: int = 2**40 + 3) -> bytes:
    """A file whose floats count up from 0."""
    wide = version[0] * 10 + version[1] >= 2
    header = struct.pack("<iii", *version, 9) + (seen % 2**64).to_bytes(8, "little")[: 8 if wide else 4]
    return header + np.arange(FLOATS, dtype="<f4").tobytes()


def test_all_weights_are_loaded_before_an_interrupt(tmp_path: Path, cfg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, assign, content = darknet.load(cfg), Variable.assign, numbered()
    (tmp_path / "in.weights").write_bytes(content)

    def interrupted(variable: Variable, value: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        assign(variable, value)

    # Shells start background processes that ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Variable, "assign", interrupted)
            with pytest.raises(KeyboardInterrupt):
                darknet.load_weights(model, tmp_path / "in.weights")
    finally:
        signal.signal(signal.SIGINT, before)
    darknet.save_weights(model, tmp_path / "out.weights")
    assert (tmp_path / "out.weights").read_bytes() == content


@pytest.mark.parametrize("version", [(0, 1), (0, 2)])
def test_a_file_is_written_as_it_was_read(tmp_path: Path, cfg: Path, version: tuple[int, int]) -> None:
    content = numbered(version)
    (tmp_path / "in.weights").write_bytes(content)
    model = darknet.load(cfg, tmp_path / "in.weights")
    darknet.save_weights(model, tmp_path / "out.weights")
    assert (tmp_path / "out.weights").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.weights", "out.weights", "small.cfg"]


def test_any_bits_survive(tmp_path: Path, cfg: Path) -> None:
    """NaNs with their payload, infinities, negative zeros: a file is bits, not numbers."""
    bits = np.random.default_rng(0).integers(0, 2**32, FLOATS, np.uint32)
    content = numbered()[:20] + bits.astype("<u4").tobytes()
    (tmp_path / "in.weights").write_bytes(content)
    darknet.save_weights(darknet.load(cfg, tmp_path / "in.weights"), tmp_path / "in.weights")
    assert (tmp_path / "in.weights").read_bytes() == content


def test_arrays_stand_in_darknets_order(tmp_path: Path, cfg: Path) -> None:
    (tmp_path / "in.weights").write_bytes(numbered())
    model = darknet.load(cfg, tmp_path / "in.weights")
    normalization = model.get_layer("convolutional_0_batch_normalize")
    for first, variable in enumerate(normalization.parts[1:2] + normalization.parts[0:1] + normalization.parts[2:]):
        np.testing.assert_array_equal(variable.value, np.arange(3) + 3 * first)
    kernel = model.get_layer("convolutional_0").kernel.value
    # [filters][channels][height][width] from number 12 on.
    assert kernel.shape == (3, 3, 2, 3)
    assert kernel[0, 0, 0, 0] == 12
    assert kernel[0, 1, 0, 0] == 13
    assert kernel[1, 0, 0, 0] == 15
    assert kernel[0, 0, 1, 0] == 21
    assert kernel[0, 0, 0, 1] == 30
    start = 12 + 54
    np.testing.assert_array_equal(model.get_layer("convolutional_1").bias.value, [start, start + 1])
    start += 8
    # connected: biases, weights by channel, then the statistics.
    normalization = model.get_layer("connected_2_batch_normalize")
    np.testing.assert_array_equal(normalization.biases.value, start + np.arange(5))
    kernel = model.get_layer("connected_2").kernel.value
    assert kernel.shape == (4, 4, 2, 5)
    assert kernel[0, 0, 0, 0] == start + 5
    assert kernel[0, 1, 0, 0] == start + 6
    assert kernel[0, 0, 1, 0] == start + 5 + 16
    assert kernel[0, 0, 0, 1] == start + 5 + 32
    np.testing.assert_array_equal(normalization.scales.value, start + 165 + np.arange(5))
    np.testing.assert_array_equal(normalization.rolling_variance.value, start + 175 + np.arange(5))


def changed(content: bytes, kind: str) -> bytes:
    return {
        "one byte short": content[:-1],
        "one byte long": content + b"\0",
        "a float short": content[:-4],
        "the header only": content[:20],
        "half a header": content[:7],
        "empty": b"",
        "the narrow header's size": content[:-4],
    }[kind]


@pytest.mark.parametrize(
    "kind", ["one byte short", "one byte long", "a float short", "the header only", "half a header", "empty"]
)
def test_a_file_of_another_size_changes_nothing(tmp_path: Path, cfg: Path, kind: str) -> None:
    content = changed(numbered(), kind)
    (tmp_path / "in.weights").write_bytes(content)
    model = darknet.load(cfg)
    before = model.get_weights()
    message = rf"in\.weights: .* Expected: {FLOATS * 4 + 20} bytes\. Received: {len(content)} bytes"
    with pytest.raises(darknet.WeightsError, match=message):
        darknet.load_weights(model, tmp_path / "in.weights")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("version", [(0, 0), (0, 3), (1, 0), (1, 2), (-1, 2), (0, 2000), (17481, 1196314761)])
def test_another_version_is_refused(tmp_path: Path, cfg: Path, version: tuple[int, int]) -> None:
    content = struct.pack("<iii", *version, 0) + numbered()[12:]
    (tmp_path / "in.weights").write_bytes(content)
    received = (
        rf"version {version[0]}\.{version[1]}" if (0, 0) <= version < (2, 0) and version[1] < 9 else "another format"
    )
    message = (
        rf"Expected a weights file of version 0\.1 or 0\.2, .* {len(content)} bytes\. "
        rf"Received: {received}, {len(content)} bytes"
    )
    with pytest.raises(darknet.WeightsError, match=message):
        darknet.load(cfg, tmp_path / "in.weights")


def test_a_fresh_network_is_saved_as_version_two(tmp_path: Path, cfg: Path) -> None:
    model = darknet.load(cfg)
    darknet.save_weights(model, tmp_path / "out.weights")
    content = (tmp_path / "out.weights").read_bytes()
    assert struct.unpack("<iiiQ", content[:20]) == (0, 2, 0, 0)
    assert len(content) == 20 + 4 * FLOATS


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, cfg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = darknet.load(cfg)
    (tmp_path / "out.weights").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        darknet.save_weights(model, tmp_path / "out.weights")
    assert (tmp_path / "out.weights").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.weights", "small.cfg"]


def test_weights_without_a_place_in_the_format_are_refused(tmp_path: Path) -> None:
    image = gl.Input((4, 4, 2))
    x = gl.layers.Conv2D(3, 3)(image)
    x = gl.layers.BatchNormalization(name="other")(x)
    with pytest.raises(darknet.WeightsError, match=r"Darknet's batch normalization, only\. Received: .*other/"):
        darknet.save_weights(gl.Model(image, x), tmp_path / "out.weights")


def test_a_convolution_needs_a_bias_or_normalization(tmp_path: Path) -> None:
    image = gl.Input((4, 4, 2))
    x = gl.layers.Conv2D(3, 3, use_bias=False, name="bare")(image)
    with pytest.raises(darknet.WeightsError, match="Layer 'bare': Expected a bias"):
        darknet.save_weights(gl.Model(image, x), tmp_path / "out.weights")
