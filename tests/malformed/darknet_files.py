"""Darknet's files: networks of every kind of section, and the weights of a small one."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import numpy as np

from gradloom.formats import darknet
from gradloom.formats.darknet.plan import Plan, read_plan
from malformed.formats import Format
from malformed.mutators import BYTES, TEXT, Mutator, damaged

NETWORKS = [
    """[net]
batch=1
height=16
width=16
channels=3
learning_rate=0.001

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky

[convolutional]
filters=8
size=1
groups=4
activation=linear

[shortcut]
from=-2
activation=elu

[maxpool]
size=2
stride=2

[upsample]
stride=2

[route]
layers=-1,0
groups=2
group_id=1

[avgpool]

[connected]
output=10
batch_normalize=1
activation=relu

[softmax]
groups=1
temperature=2.5

[cost]
type=sse
""",
    """[network]  # of old
height=20
width=24
channels=3
inputs=1440

[crop]
crop_height=16
crop_width=16
flip=0
angle=0
noadjust=1

[conv]
filters=6
size=5
stride=2
padding=2
activation=relu

[lrn]
size=5
alpha=0.0001
beta=0.75
kappa=1

[max]
size=3
stride=2
padding=1

[dropout]
probability=0.5

[route]
layers=-1,-2

[conn]
output=7
activation=linear

[soft]
spatial=1
""",
]


def with_a_long_file(rng: Random, content: bytes, other: bytes) -> bytes:
    """Many sections, or one line of many bytes."""
    if rng.random() < 0.5:
        return content + rng.choice((b"[avgpool]\n", b"[upsample]\nstride=1\n", b"[shortcut]\nfrom=-2\n")) * 2000
    return content + rng.choice((b"a", b"=", b"[", b"\0", b"1,", b"\xff", b" ")) * rng.choice((10_000, 3_000_000))


MANY_STEPS = 500
"""Of a network that is built once only: thousands of layers take seconds, and that is no hang."""


class CfgFormat(Format):
    """What is read is a network that can be built, with the result that its plan says; a huge one takes no memory."""

    mutators: tuple[Mutator, ...] = (*TEXT, *TEXT, *BYTES, with_a_long_file)
    corpus = tuple(text.encode() for text in NETWORKS)
    suffix = ".cfg"

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "short.weights"
        self.weights.write_bytes(darknet_header() + bytes(4))

    def read(self, path: Path, content: bytes) -> str:
        plan = read_plan(path)
        if len(plan.steps) < MANY_STEPS:
            try:
                darknet.load(path, self.weights)
                raise AssertionError("weights were taken out of a file that has none")
            except darknet.WeightsError:
                pass
        # Weights are drawn when they are first asked for: those of a huge network never are.
        model = darknet.load(path)
        result = plan.steps[plan.output].output
        sizes = (result.height, result.width, result.channels)
        assert model.output_shape[1:] in (sizes, sizes[2:]), (model.output_shape, sizes)
        assert sum(weight.size for weight in model.weights) <= count_weights(plan)
        return "read"


def count_weights(plan: Plan) -> int:
    return sum(step.count_weights() for step in plan.steps)


def darknet_header(minor: int = 2) -> bytes:
    return struct.pack("<iiiQ" if minor >= 2 else "<iiiI", 0, minor, 5, 32_013_312)


class WeightsFormat(Format):
    """A file of the right length is read, and written again as it was; after any other the model is as before."""

    mutators: tuple[Mutator, ...] = BYTES

    def __init__(self, folder: Path) -> None:
        cfg = folder / "network.cfg"
        cfg.write_text(NETWORKS[0])
        self.model = darknet.load(cfg)
        self.saved = folder / "saved.weights"
        count = count_weights(read_plan(cfg))
        floats = np.random.default_rng(0).normal(size=count).astype("<f4").tobytes()
        self.corpus = [darknet_header(minor) + floats for minor in (1, 2)]

    def mutant(self, rng: Random) -> bytes:
        content = damaged(rng, self.corpus, self.mutators)
        # Half of the damage would only show in the length.
        whole = len(rng.choice(self.corpus))
        return (content + bytes(whole))[:whole] if rng.random() < 0.5 else content

    def read(self, path: Path, content: bytes) -> str:
        before = [weight.numpy() for weight in self.model.weights]
        try:
            darknet.load_weights(self.model, path)
        except darknet.WeightsError:
            for weight, value in zip(self.model.weights, before, strict=True):
                assert weight.value.tobytes() == value.tobytes(), (
                    f"{weight.path} was changed by a file that was refused"
                )
            raise
        darknet.save_weights(self.model, self.saved)
        assert self.saved.read_bytes() == content
        return "read"
