"""Small networks built like the classifiers of Darknet's cfg folder: compiled, against NumPy, and written as read."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy_darknet
import pytest

from gradloom.formats import darknet


class Drawn(numpy_darknet.Floats):
    """Floats drawn as they are taken: weights of either sign, and positive numbers for what may be variances."""

    def __init__(self, seed: int) -> None:
        super().__init__(b"")
        self.rng = np.random.default_rng(seed)
        self.parts: list[np.ndarray] = []

    def take(self, *shape: int) -> np.ndarray:
        if len(shape) == 1:
            drawn = self.rng.uniform(0.2, 1.2, shape)
        else:
            drawn = self.rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        self.parts.append(drawn.astype("<f4").ravel())
        self.used += drawn.size
        return drawn.astype(np.float32).astype(np.float64)


def net(size: int, channels: int = 3) -> str:
    return f"""\
[net]
# Training
# batch=128
# subdivisions=4

# Testing
batch=1
 subdivisions=1

height={size}
width={size}
channels={channels}
max_crop=448

learning_rate=0.1
policy=poly
max_batches = 800000
hue = .1

"""


def conv(
    filters: int,
    size: int = 1,
    stride: int = 1,
    activation: str = "leaky",
    normal: int = 1,
    groups: int = 0,
    pad: int = 1,
) -> str:
    lines = [f"groups = {groups}"] * (groups > 0) + ["batch_normalize=1"] * normal
    lines += [f"filters={filters}", f"size={size}", f"stride={stride}", f"pad={pad}", f"activation={activation}"]
    return "\n".join(["[convolutional]", *lines, "", ""])


def connected(outputs: int, activation: str) -> str:
    return f"[connected]\noutput= {outputs}\nactivation={activation}\n\n"


def crop(size: int, rest: str = "") -> str:
    return f"[crop]\ncrop_height={size}\ncrop_width={size}\nflip=1\nangle=0\nsaturation = 1\nexposure=1\n{rest}\n"


def shortcut(number: int, activation: str = "") -> str:
    # Blanks in an empty line, as generated cfgs have them.
    return f"[shortcut]\nfrom = {number}\n" + (f"activation={activation}\n" if activation else "") + "\n    \n"


def bottleneck(filters: int, stride: int, groups: int = 0) -> str:
    return (
        conv(filters)
        + conv(filters, 3, stride, groups=groups)
        + conv(4 * filters, activation="linear")
        + shortcut(-4, "leaky")
    )


HALVE = "[maxpool]\nsize=2\nstride=2\n\n"
OVERLAP = "[maxpool]\nsize=3\nstride=2\n\n"
DROPOUT = "[dropout]\nprobability=.5\n\n"
DENSE = conv(8) + conv(4, 3) + "[route]\nlayers=-1,-3\n\n"
SOFTMAX = "[softmax]\ngroups=1\n\n"
COST = "[cost]\ntype=sse\n\n"
SCORES = conv(10, activation="linear", normal=0)

CLASSIFIERS = {
    "plain": net(17)
    + conv(8, 3)
    + HALVE
    + conv(16, 3)
    + conv(8)
    + conv(16, 3)
    + HALVE
    + SCORES
    + "[avgpool]\n"
    + SOFTMAX,
    "padded-pool": net(9) + conv(8, 3) + "[maxpool]\nsize=2\nstride=2\npadding=1\n\n" + SCORES + "[avgpool]\n" + COST,
    "alexnet": net(67)
    + conv(12, 11, 4, "relu", 0, pad=0)
    + "[maxpool]\nsize=3\nstride=2\npadding=0\n\n[lrn]\n\n"
    + conv(16, 5, 1, "relu", 0, pad=2)
    + OVERLAP
    + connected(20, "relu")
    + DROPOUT
    + connected(10, "linear")
    + SOFTMAX,
    "ramp": net(30)
    + crop(28, "shift=.2\n")
    + conv(8, 7, 2, "ramp", 0)
    + conv(12, 3, 2, "ramp", 0)
    + OVERLAP
    + connected(16, "ramp")
    + DROPOUT
    + connected(10, "ramp")
    + "[softmax]\n\n"
    + COST,
    "temperature": net(12)
    + crop(10, "noadjust=1\n")
    + conv(8, 3)
    + HALVE
    + DROPOUT
    + conv(10, normal=0)
    + "[avgpool]\n[softmax]\ngroups=1\ntemperature=3\n",
    "extraction": net(16) + conv(8, 7, 2) + HALVE + conv(16, 3) + "[avgpool]\n" + connected(10, "leaky") + SOFTMAX,
    "convolutions-only": net(10) + (conv(4, 3, normal=0) * 2 + "[maxpool]\nstride=2\nsize=2\n\n") * 5,
    "a-map": net(8) + conv(4, 3, normal=0) + conv(1, 3, 1, "logistic", 0) + "[cost]\n",
    "basic-residual": net(16)
    + conv(8, 7, 2)
    + (conv(8, 3) + conv(8, 3, activation="linear") + shortcut(-3, "leaky"))
    + (conv(16, 3, 2) + conv(16, 3) + shortcut(-3))
    + "[avgpool]\n"
    + SCORES
    + SOFTMAX,
    "bottleneck": net(16)
    + conv(8, 7, 2)
    + HALVE
    + bottleneck(4, 1) * 2
    + bottleneck(8, 2)
    + SCORES
    + "[avgpool]\n"
    + SOFTMAX,
    "grouped": net(16)
    + conv(8, 7, 2)
    + bottleneck(8, 1, 4)
    + bottleneck(16, 2, 4) * 2
    + "[avgpool]\n"
    + SCORES
    + SOFTMAX,
    "dense": net(16)
    + conv(8, 7, 2)
    + HALVE
    + DENSE * 3
    + conv(8)
    + HALVE
    + DENSE * 2
    + SCORES
    + "[avgpool]\n"
    + SOFTMAX
    + COST,
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_compute_what_darknet_does_and_are_written_as_read(tmp_path: Path, name: str) -> None:
    text = CLASSIFIERS[name]
    (tmp_path / "net.cfg").write_text(text)
    drawn = Drawn(seed=1)
    numpy_darknet.forward(text, drawn, None)
    content = struct.pack("<iiiQ", 0, 2, 0, 10**10) + b"".join(part.tobytes() for part in drawn.parts)
    (tmp_path / "net.weights").write_bytes(content)

    model = darknet.load(tmp_path / "net.cfg", tmp_path / "net.weights")
    images = np.random.default_rng(2).random((2, *model.input_shape[1:]), np.float32)
    received = model.predict(images, verbose=0)

    for image, result in zip(images, received, strict=True):
        expected = numpy_darknet.forward(text, numpy_darknet.Floats(content), image.transpose(2, 0, 1))[-1]
        expected = expected.reshape(-1) if expected.shape[1:] == (1, 1) else expected.transpose(1, 2, 0)
        assert np.std(expected) > 0
        np.testing.assert_allclose(result, expected, atol=1e-4 * np.sqrt(np.mean(expected**2)))
    darknet.save_weights(model, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == content
