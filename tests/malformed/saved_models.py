"""Files of weights and of whole models: safetensors, with a checksum or of another writer, `.gradloom`, HDF5."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save

import gradloom as gl
from gradloom.compiler.types import BF16
from gradloom.saving import hdf5, hdf5_reader
from gradloom.saving.tensor_file import CHECKSUM, SavedFileError, read_tensors, write_tensors
from malformed.formats import Format
from malformed.mutators import BYTES, NUMBERS, TEXT, Mutator, damaged

MOST_HEADER = 100_000_000
"""Bytes of a header that the format allows."""
WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}


def small_model() -> gl.Model:
    model = gl.Sequential(
        [
            gl.layers.Dense(6, activation="relu", input_shape=(5,), name="first"),
            gl.layers.BatchNormalization(name="normalization"),
            gl.layers.Dropout(0.25, name="dropout"),
            gl.layers.Dense(3, activation="softmax", name="second"),
        ],
        name="model",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def with_another_header(rng: Random, content: bytes, other: bytes) -> bytes:
    """The header's JSON changed as text, its length corrected or not."""
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length], content[8 + length :]
    header = rng.choice((*TEXT, with_another_place, with_another_place, with_a_name_twice))(rng, header, other[8:400])
    length = len(header) if rng.random() < 0.9 else rng.choice((0, 1, len(content), 2**31, 2**63, MOST_HEADER + 1))
    return length.to_bytes(8, "little") + header + rest


def with_another_place(rng: Random, header: bytes, other: bytes) -> bytes:
    """A tensor's dtype, shape or offsets: overlapping, backwards, beyond the end, of sizes whose product overflows."""
    try:
        entries = json.loads(header)
        place = entries[rng.choice(sorted(set(entries) - {"__metadata__"}))]
        known = [entry for name, entry in entries.items() if name != "__metadata__"]
        key = rng.choice(("dtype", "shape", "data_offsets"))
        place[key] = rng.choice(
            {
                "dtype": ["F4", "F32", "I64", "U128", "f32", "", 5, "F8_E4M3", "BOOL", rng.choice(known)["dtype"]],
                "shape": [
                    *([], [-1], [2**63], [2**32, 2**32], [2**31, 2, 0], [1] * 3000, [1.5], "5", [True], [[5]]),
                    *([0, 2**63], [0, 2**62, 2**62], [*place["shape"], *[1] * 100], [*place["shape"], 1]),
                ],
                "data_offsets": [
                    [0, 0],
                    [8, 4],
                    [-4, 0],
                    [0, 2**63],
                    [0],
                    [0, 4, 8],
                    rng.choice(known)["data_offsets"],
                ],
            }[key]
        )
    except (ValueError, LookupError, TypeError):
        return header
    return json.dumps(entries).encode()


def with_a_name_twice(rng: Random, header: bytes, other: bytes) -> bytes:
    extra = rng.choice((b'"first/bias":{"dtype":"F32","shape":[],"data_offsets":[0,4]}', b'"__metadata__":{"a":"b"}'))
    return header[:1] + extra + b"," + header[1:]


class SafetensorsFormat(Format):
    """With a checksum, what is read is what was written; without one, what the header says of the bytes behind it."""

    mutators: tuple[Mutator, ...] = (*BYTES, *[with_another_header] * len(BYTES))
    suffix = ".safetensors"

    def __init__(self, folder: Path) -> None:
        self.model = small_model()
        rng = np.random.default_rng(0)
        arrays = {
            "f64": rng.normal(size=(3, 4)),
            "f16": rng.normal(size=(5,)).astype("f2"),
            "bf16": rng.normal(size=(2, 3)).astype(BF16.numpy),
            "bool": np.array([True, False, True]),
            "empty": np.zeros((0, 7), np.int64),
            "scalar": np.array(7, np.int8),
        }
        path = folder / "valid.safetensors"
        self.model.save_weights(path)
        weights = path.read_bytes()
        write_tensors(path, arrays, {"note": "übung"})
        self.written = [weights, path.read_bytes()]
        others = [save({name: array for name, array in arrays.items() if name != "bf16"}, {"format": "np"})]
        self.corpus = [*self.written, *others, save(read_tensors(path)[0])]
        self.known = []
        for content in self.written:
            path.write_bytes(content)
            self.known.append(read_tensors(path))

    def read(self, path: Path, content: bytes) -> str:
        before = [weight.numpy() for weight in self.model.weights]
        try:
            self.model.load_weights(path)
        except SavedFileError:
            for weight, value in zip(self.model.weights, before, strict=True):
                assert weight.value.tobytes() == value.tobytes(), f"{weight.path} changed by a file that was refused"
        arrays, metadata = read_tensors(path)
        length = int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
        checksum = header.pop("__metadata__", None) or {}
        if CHECKSUM in checksum:
            assert any(same(arrays, known) and metadata == noted for known, noted in self.known)
        assert arrays.keys() == header.keys()
        for name, array in arrays.items():
            start, end = header[name]["data_offsets"]
            assert array.tobytes() == data[start:end]
            assert list(array.shape) == header[name]["shape"]
            assert math.prod(array.shape) * WIDTHS[header[name]["dtype"]] == end - start
        return "read"


def same(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> bool:
    return arrays.keys() == others.keys() and all(
        (array.dtype, array.shape, array.tobytes()) == (others[name].dtype, others[name].shape, others[name].tobytes())
        for name, array in arrays.items()
    )


class GradloomFormat(Format):
    """Whole models: damage below the checksum, and configs that say anything under one that fits."""

    mutators: tuple[Mutator, ...] = BYTES
    suffix = ".gradloom"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "valid.gradloom"
        self.model = small_model()
        self.model.save(self.path)
        x = gl.Input((8, 8, 3), name="image")
        h = gl.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        h = gl.layers.Add()([h, gl.layers.Conv2D(4, 1)(x)])
        images = gl.Model(x, gl.layers.GlobalAveragePooling2D()(h), name="images")
        contents = [self.path.read_bytes()]
        images.save(self.path)
        self.corpus = [*contents, self.path.read_bytes()]
        self.parts = []
        for content in self.corpus:
            self.path.write_bytes(content)
            self.parts.append(read_tensors(self.path))

    def mutant(self, rng: Random) -> bytes:
        if rng.random() < 0.3:
            return damaged(rng, self.corpus, self.mutators)
        arrays, metadata = rng.choice(self.parts)
        (key,) = metadata
        configs = [noted[key].encode() for _, noted in self.parts]
        text = damaged(rng, [metadata[key].encode()], (*TEXT, with_another_value, with_another_value))
        if rng.random() < 0.1:
            text = rng.choice(configs)
        write_tensors(self.path, arrays, {key: text.decode("utf-8", "replace")})
        return self.path.read_bytes()

    def read(self, path: Path, content: bytes) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = gl.models.load_model(path)
        model.summary(print_fn=lambda line: None)
        # Whatever its config said, it is a model: it is saved again, and read as what it is.
        model.save(self.path)
        again = gl.models.load_model(self.path)
        for weight, same_weight in zip(model.weights, again.weights, strict=True):
            assert weight.value.tobytes() == same_weight.value.tobytes()
        return "read"


def with_another_value(rng: Random, text: bytes, other: bytes) -> bytes:
    """A value somewhere within JSON replaced by one of another type or size, or by another part of it."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, item in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(item, (dict, list)):
                walk(item)

    if not isinstance(tree, (dict, list)):
        return text
    walk(tree)
    if places:
        node, key = rng.choice(places)
        source, other_key = rng.choice(places)
        words = ["Lambda", "Dense", "os.system", "builtins", "__class__", "eval", "gradloom.layers", "relu", ""]
        values = [None, True, -1, 0, 10**9, 2**31, 10**30, 1.5, float("nan"), [], {}, [[]], rng.choice(words)]
        if rng.random() < 0.2:
            if isinstance(node, dict):
                del node[key]
            else:
                node.append(node[key])
        else:
            node[key] = source[other_key] if rng.random() < 0.2 else rng.choice((*values, *NUMBERS[:3]))
    try:
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):  # It became a part of itself.
        return text


class H5Format(Format):
    """Read in a process that a signal or a limit may end: whatever it does, the file is refused or gives arrays."""

    mutators: tuple[Mutator, ...] = BYTES
    suffix = ".weights.h5"

    def __init__(self, folder: Path) -> None:
        path = folder / "valid.weights.h5"
        self.model = small_model()
        self.model.save_weights(path)
        rng = np.random.default_rng(0)
        stream = io.BytesIO()
        with h5py.File(stream, "w", libver="latest") as file:
            group = file.create_group("layers/dense")
            group.create_dataset("vars/0", data=rng.normal(size=(64, 16)).astype("f4"), chunks=(16, 16), compression=4)
            group.create_dataset("vars/1", data=rng.normal(size=16), fletcher32=True, chunks=(4,), shuffle=True)
            group.attrs["name"] = "dense"
            file.create_dataset("steps", data=np.arange(5))
        self.corpus = [path.read_bytes(), stream.getvalue()]
        self.replace_start()

    def replace_start(self) -> None:
        hdf5.subprocess = _Forking()  # type: ignore[attr-defined]

    def read(self, path: Path, content: bytes) -> str:
        arrays = hdf5.read_hdf5(path)
        assert sum(array.nbytes for array in arrays.values()) <= 4 * len(content) + (64 << 20)
        assert all(array.dtype.kind in "fiubV" for array in arrays.values())
        return "read"


class StartedFormat(H5Format):
    """The same, with the reader started as it is for users."""

    def replace_start(self) -> None:
        pass


class _Forking:
    """Runs the reader in a fork of this process instead of a new one: starting Python takes most of the time."""

    DEVNULL, TimeoutExpired = subprocess.DEVNULL, subprocess.TimeoutExpired

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        *_, program, source, destination = command
        assert Path(program).samefile(str(hdf5_reader.__file__))
        errors = Path(destination).with_name("stderr")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                sys.stderr = sys.stdout = open(descriptor, "w", closefd=False)  # noqa: SIM115
                code = hdf5_reader.main(source, destination)
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(status), b"", errors.read_bytes())
