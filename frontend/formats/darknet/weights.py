"""Reader and writer of Darknet's `.weights` files.

Layout, little-endian: i32 major, minor and revision of the version; the number of images seen in training, u64 from
version 0.2 on, u32 before; then for each layer with weights, in order, as f32:

    convolutional:  biases, [scales, means, variances], weights [filters][channels / groups][height][width]
    connected:      biases, weights [outputs][channels][height][width], [scales, means, variances]

The brackets are there with batch normalization only. Nothing else says what the numbers are: the network does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from weakref import WeakKeyDictionary

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.formats.darknet.layers import BatchNormalization, Connected, Convolution
from gradloom.layers import Conv2D, Dense, Layer
from gradloom.model import Model
from gradloom.network import Network
from gradloom.runtime.cpus import available_cpus
from gradloom.runtime.files import published
from gradloom.runtime.interrupts import HeldBack
from gradloom.variables import Variable

_VERSIONS = ((0, 1), (0, 2))
_F32 = np.dtype("<f4")
_VERSION_BYTES = 12
_HIGHEST_VERSION = 99
"""Above it, or below 0, the numbers at the begin of a file are no version: it is of another format."""
_FILE_ORDER = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
"""For vectors, kernels [inputs, outputs] and kernels [height, width, channels, filters]: their axes in a file."""


class WeightsError(GradloomError, ValueError):
    """A weights file is none, or not of this network; or a network has weights that such a file cannot hold."""


@dataclass(frozen=True)
class Header:
    """What stands before the weights: version, and images seen in training."""

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    def pack(self) -> bytes:
        """The header's bytes."""
        seen = "Q" if self.is_wide else "I"
        return struct.pack(f"<iii{seen}", self.major, self.minor, self.revision, self.seen)

    @property
    def is_wide(self) -> bool:
        """Whether the number of images seen has 8 bytes."""
        return self.major * 10 + self.minor >= 2


@dataclass(frozen=True)
class Record:
    """The part of a file that belongs to one layer, and the normalization behind it if there is one."""

    contraction: Layer
    normalization: BatchNormalization | None

    def variables(self) -> list[Variable]:
        """The variables in the file's order."""
        kernel, bias = self.contraction.kernel, self.contraction.bias  # type: ignore[attr-defined]
        if self.normalization is None:
            return [bias, kernel]
        scales, biases, means, variances = self.normalization.parts
        if isinstance(self.contraction, (Connected, Dense)):
            return [biases, kernel, scales, means, variances]
        return [biases, scales, means, variances, kernel]


_headers: WeakKeyDictionary[Model, Header] = WeakKeyDictionary()
_records: WeakKeyDictionary[Model, Sequence[Record]] = WeakKeyDictionary()


def remember_layers(model: Model, layers: Sequence[Layer]) -> None:
    """Note the layers of a cfg file in its order: a file also has weights of those that nothing reads."""
    _records[model] = list(_gather(layers))


def load_weights(model: Model, path: str | os.PathLike[str], unused: int = 0) -> None:
    """Give a built model the weights of a file, whose length must be exactly right.

    unused: how many floats the file may hold after the model's: layers that it was built without.
    Raises WeightsError, with expected and actual size in bytes, before anything is changed.
    """
    variables = [variable for record in records(model) for variable in record.variables()]
    path = Path(path)
    with path.open("rb") as file:
        header = _read_header(file, path, [variable.size for variable in variables], unused)
        arrays = _read_arrays(file, path, variables)
    # All or none: an interrupt waits for the last one. Most of the time goes into the other order of axes, with NumPy
    # at work outside of Python's lock.
    with HeldBack():
        with ThreadPoolExecutor(available_cpus()) as threads:
            for _ in threads.map(Variable.assign, variables, arrays):
                pass
        _headers[model] = header


def save_weights(model: Model, path: str | os.PathLike[str]) -> None:
    """Write the model's weights as a file that Darknet reads, in one piece or not at all.

    Version and number of images seen are those of the file that the model was loaded from, otherwise 0.2 and 0.
    Raises WeightsError for a model with weights that the format has no place for.
    """
    model.require_built("save_weights")
    variables = [variable for record in records(model) for variable in record.variables()]
    missing = [variable.path for variable in model.weights if variable not in set(variables)]
    if missing:
        raise WeightsError(
            f"Model {model.name!r}: Expected weights of convolutions and connected layers, with Darknet's batch "
            f"normalization, only. Received: {', '.join(missing)}"
        )
    with published(path) as file:
        file.write(_headers.get(model, Header()).pack())
        for variable in variables:
            file.write(_to_file(variable.value))


def records(model: Model) -> Sequence[Record]:
    """The parts of a weights file for `model`, in order."""
    return _records[model] if model in _records else list(_gather(_flattened(model)))


def _flattened(network: Network) -> Iterator[Layer]:
    for layer in network.layers:
        if isinstance(layer, Network):
            yield from _flattened(layer)
        else:
            yield layer


def _gather(layers: Iterator[Layer] | Sequence[Layer]) -> Iterator[Record]:
    """Pair each layer with weights with the normalization that comes next."""
    open_: Layer | None = None
    for layer in layers:
        if isinstance(layer, BatchNormalization) and open_ is not None:
            yield Record(open_, layer)
            open_ = None
        elif isinstance(layer, (Convolution, Conv2D, Connected, Dense)):
            if open_ is not None:
                raise _without_bias(open_)
            if layer.use_bias:
                yield Record(layer, None)
            else:
                open_ = layer
    if open_ is not None:
        raise _without_bias(open_)


def _without_bias(layer: Layer) -> WeightsError:
    return WeightsError(
        f"Layer {layer.name!r}: Expected a bias, or Darknet's batch normalization next, as in a weights file. "
        "Received: use_bias=False without it"
    )


def _read_header(file: BinaryIO, path: Path, sizes: Sequence[int], unused: int) -> Header:
    """Read the header and check that the file has the size that fits it."""
    actual = os.fstat(file.fileno()).st_size
    floats = _F32.itemsize * sum(sizes)
    version = file.read(_VERSION_BYTES)
    if len(version) < _VERSION_BYTES:
        raise _wrong_size(path, [floats + len(Header().pack())], actual)
    major, minor, revision = struct.unpack("<iii", version)
    if (major, minor) not in _VERSIONS:
        known = min(major, minor) >= 0 and max(major, minor) <= _HIGHEST_VERSION
        received = f"version {major}.{minor}" if known else "another format"
        raise WeightsError(
            f"{path}: Expected a weights file of version 0.1 or 0.2, for this network of "
            f"{floats + len(Header().pack())} bytes. Received: {received}, {actual} bytes"
        )
    expected = floats + len(Header(major, minor).pack())
    accepted = [expected, *([expected + _F32.itemsize * unused] if unused else [])]
    if actual not in accepted:
        raise _wrong_size(path, accepted, actual)
    seen = int.from_bytes(file.read(8 if Header(major, minor).is_wide else 4), "little")
    return Header(major, minor, revision, seen)


def _wrong_size(path: Path, accepted: Sequence[int], actual: int) -> WeightsError:
    expected = " or ".join(map(str, accepted))
    return WeightsError(f"{path}: not weights of this network. Expected: {expected} bytes. Received: {actual} bytes")


def _read_arrays(file: BinaryIO, path: Path, variables: Sequence[Variable]) -> list[np.ndarray]:
    """Read the variables' values, seen in the variables' order of axes."""
    # All in one array: the system hands out a large one in large pages, and a copy of every value is spared.
    floats = np.empty(sum(variable.size for variable in variables), _F32)
    received = file.readinto(floats.data.cast("B"))  # type: ignore[attr-defined]
    if received != floats.nbytes:
        raise WeightsError(f"{path}: Expected {floats.nbytes} bytes of weights. Received: {received}")
    arrays, first = [], 0
    for variable in variables:
        file_order = _FILE_ORDER[len(variable.shape)]
        stored = floats[first : first + variable.size].reshape([variable.shape[axis] for axis in file_order])
        arrays.append(stored.transpose(np.argsort(file_order)))
        first += variable.size
    return arrays


def _to_file(value: np.ndarray) -> bytes:
    return value.transpose(_FILE_ORDER[value.ndim]).astype(_F32).tobytes()
