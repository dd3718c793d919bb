"""Keras's `.weights.h5`: its layout, real files of it in both directions, and a reader that nothing brings down."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import gradloom as gl
from gradloom.saving import SavedFileError, hdf5, hdf5_reader
from gradloom.saving.hdf5 import read_hdf5, write_hdf5
from gradloom.saving.keras_names import keras_weight_names

BUILD = """
def sequential(k):
    return k.Sequential([k.Input((4,)), k.layers.Dense(3), k.layers.Dropout(0.5), k.layers.BatchNormalization(),
                         k.layers.Dense(2)])

def images(k):
    return k.Sequential([k.Input((6, 6, 2)), k.layers.Conv2D(3, 3, padding="same"), k.layers.LeakyReLU(0.1),
                         k.layers.DepthwiseConv2D(2), k.layers.MaxPooling2D(), k.layers.GlobalAveragePooling2D()])

def branches(k):
    first, second = k.Input((4,)), k.Input((4,))
    shared = k.layers.Dense(4, name="shared")
    short, a = k.layers.Dense(4, name="short")(first), k.layers.Dense(4, name="a")(first)
    b = k.layers.Dense(4, name="b")(k.layers.Activation("tanh")(shared(a)))
    inner = k.Sequential([k.Input((4,)), k.layers.Dense(4), k.layers.BatchNormalization()])
    x = hidden = k.Input((4,))
    part = k.Model(hidden, k.layers.Dense(4)(hidden * 2.0))
    joined = k.layers.Add()([short, inner(b), shared(second), part(second)])
    return k.Model([first, second], [k.layers.Dense(2)(joined * 0.5), k.layers.Dense(1)(part(short))])

def subclass(k):
    class Block(k.layers.Layer):
        def __init__(self):
            super().__init__()
            self.second, self.first = k.layers.Dense(3), k.layers.Dense(3)
        def build(self, shape):
            pass
        def call(self, x):
            return self.first(self.second(x))
    class Tower(k.Model):
        def __init__(self):
            super().__init__()
            self.zeta, self.alpha = k.layers.Dense(4), Block()
            self.rest = [k.layers.Dense(3), [k.layers.Dense(3)], {"k": k.layers.Dense(3)}]
            self._hidden = k.layers.Dense(2)
        def call(self, x):
            x = self.rest[1][0](self.rest[0](self.alpha(self.zeta(x))))
            return self._hidden(self.rest[2]["k"](x))
    model = Tower()
    model(k.Input((4,)))
    return model

def scalar(k):
    class Scale(k.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), name="scale")
        def call(self, x):
            return x * self.scale
    return k.Sequential([k.Input((4,)), k.layers.Dense(3), Scale()])
"""
KINDS = ["sequential", "images", "branches", "subclass", "scalar"]

KERAS = (
    BUILD
    + """
import sys, numpy as np, keras
folder = sys.argv[1]
for kind in sys.argv[2:]:
    model = globals()[kind](keras)
    count = np.load(f"{folder}/{kind}.npz")
    x = [count[f"x{n}"] for n in range(len(model.inputs) if kind != "subclass" else 1)]
    rng = np.random.default_rng(3)
    for w in model.weights:
        if "seed" not in w.path:
            w.assign(rng.random(w.shape) + 0.5)
    y = model(x if len(x) > 1 else x[0], training=False)
    model.save_weights(f"{folder}/{kind}-keras.weights.h5")
    model.load_weights(f"{folder}/{kind}-gradloom.weights.h5")
    z = model(x if len(x) > 1 else x[0], training=False)
    y, z = ([np.asarray(v) for v in (t if isinstance(t, (list, tuple)) else [t])] for t in (y, z))
    results = {f"y{n}": v for n, v in enumerate(y)} | {f"z{n}": v for n, v in enumerate(z)}
    np.savez(f"{folder}/{kind}-results.npz", **results)
"""
)


def build(kind: str) -> gl.Model:
    space: dict[str, Any] = {}
    exec(BUILD, space)
    model: gl.Model = space[kind](gl)
    if kind == "subclass":
        model.build((None, 4))
    return model


@pytest.mark.skipif(find_spec("keras") is None or find_spec("jax") is None, reason="keras and jax are not installed")
def test_real_keras_reads_and_writes_the_same_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    models = {kind: build(kind) for kind in KINDS}
    data = {}
    for kind, model in models.items():
        data[kind] = [rng.random((3, *tensor.shape[1:]), np.float32) for tensor in model.inputs]
        np.savez(tmp_path / f"{kind}.npz", **{f"x{n}": x for n, x in enumerate(data[kind])})
        for weight in model.weights:
            weight.assign(rng.random(weight.shape, np.float32) + 0.5)
        model.save_weights(tmp_path / f"{kind}-gradloom.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": "numpy", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", KERAS, str(tmp_path), *KINDS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, model in models.items():
        x = data[kind] if len(data[kind]) > 1 else data[kind][0]
        with np.load(tmp_path / f"{kind}-results.npz") as results:
            for n, found in enumerate(listed(model.predict(x))):
                np.testing.assert_allclose(
                    found, results[f"z{n}"], rtol=1e-4, err_msg=f"{kind}: Keras with our weights"
                )
            model.load_weights(tmp_path / f"{kind}-keras.weights.h5")
            for n, found in enumerate(listed(model.predict(x))):
                np.testing.assert_allclose(found, results[f"y{n}"], rtol=1e-4, err_msg=f"{kind}: Keras's weights here")


def listed(found: Any) -> list[np.ndarray]:
    return found if isinstance(found, list) else [found]


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    model = build("branches")
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        # The deepest layers come first: "a" is three calls before the sum, "short" one.
        assert file["layers/dense/vars"].attrs["name"] == "a"
        assert file["layers/dense/vars/0"][()].tobytes() == model.get_layer("a").get_weights()[0].tobytes()
    assert sorted(names) == sorted(keras_weight_names(model))
    assert "layers/functional/layers/dense/vars/0" in names
    assert "layers/sequential/layers/batch_normalization/vars/3" in names


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back(kind: str, tmp_path: Path) -> None:
    first, second = build(kind), build(kind)
    first.save_weights(tmp_path / "m.weights.h5")
    second.load_weights(tmp_path / "m.weights.h5")
    assert [w.tobytes() for w in first.get_weights()] == [w.tobytes() for w in second.get_weights()]


def test_files_of_an_older_keras_and_what_else_they_hold(tmp_path: Path) -> None:
    model = build("sequential")
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for name, variable in keras_weight_names(model).items():
            file[name.replace("layers/", "_layer_checkpoint_dependencies/")] = np.full(variable.shape, 2.0)
        file["optimizer/vars/0"] = 3
    model.load_weights(tmp_path / "m.weights.h5")
    assert all((weight == 2).all() for weight in model.get_weights())


def test_bfloat16_comes_back(tmp_path: Path) -> None:
    value = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    write_hdf5(tmp_path / "m.h5", {"layers/dense/vars/0": value})
    (found,) = read_hdf5(tmp_path / "m.h5").values()
    assert found.dtype == value.dtype and found.tobytes() == value.tobytes()


def test_paths_are_any_names(tmp_path: Path) -> None:
    """Also those that other formats keep for themselves."""
    arrays = {"__metadata__": np.zeros(2), "layers/__metadata__": np.ones(3)}
    write_hdf5(tmp_path / "m.h5", arrays)
    assert {name: array.tolist() for name, array in read_hdf5(tmp_path / "m.h5").items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


# Files that are no files of weights.


def external(file: h5py.File) -> None:
    file["layers/dense"] = h5py.ExternalLink("other.h5", "/secret")


def soft(file: h5py.File) -> None:
    file["layers/dense"] = h5py.SoftLink("/layers/dense")


def circle(file: h5py.File) -> None:
    file.create_group("layers/dense")
    file["layers/dense/again"] = file["layers"]


def elsewhere(file: h5py.File) -> None:
    file.create_dataset("weights", (4,), "f4", external=[("/etc/hostname", 0, 16)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "a", (4,))
    file.create_virtual_dataset("weights", layout)


def text(file: h5py.File) -> None:
    file["weights"] = ["a", "b"]


def wide(file: h5py.File) -> None:
    file["weights"] = np.zeros(2, np.longdouble)


def bomb(file: h5py.File) -> None:
    file.create_dataset("weights", (1 << 30,), "f4", chunks=(1 << 20,), compression="gzip")


@pytest.mark.parametrize("make", [external, soft, circle, elsewhere, virtual, text, wide, bomb])
def test_links_and_promises_are_refused(make: Callable[[h5py.File], None], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        make(file)
    with pytest.raises(
        SavedFileError, match=r"m\.h5: Expected a file of weights in the HDF5 format\. Received: Expected"
    ):
        read_hdf5(tmp_path / "m.h5")


def test_what_the_arrays_would_take_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        bomb(file)
    with pytest.raises(SavedFileError, match=r"a file of its size can hold\. Received: 'weights' of 4294967296 bytes"):
        read_hdf5(tmp_path / "m.h5")


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.weights.h5").write_bytes(content)
    model = build("sequential")
    before = model.get_weights()
    with pytest.raises(SavedFileError, match=r"m\.weights\.h5: Expected a file of weights in the HDF5 format"):
        model.load_weights(tmp_path / "m.weights.h5")
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


READERS = {
    "crashes (SIGSEGV)": "os.kill(os.getpid(), 11)",
    "does not come to an end": "any(iter(int, 1))",
    "exit code 1": "raise ValueError('unforeseen')",
    "can hold": "bytearray(1 << 34)",
}


@pytest.mark.parametrize("expected", READERS)
def test_a_reader_that_dies_or_hangs_is_an_error(
    expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader's own limits, around code that does what the library does to a crafted file."""
    source = hdf5._READER.read_text().replace(
        "arrays = arrays_of(", f"{READERS[expected]}\n            arrays = arrays_of("
    )
    source = source.replace("ValueError, TypeError", "TypeError").replace("SECONDS = 3", "SECONDS = 1")
    reader = tmp_path / "reader.py"
    reader.write_text(source)
    monkeypatch.setattr(hdf5, "_READER", reader)
    write_hdf5(tmp_path / "m.h5", {"a": np.zeros(3)})
    begun = time.process_time()
    with pytest.raises(SavedFileError) as caught:
        read_hdf5(tmp_path / "m.h5")
    assert expected in str(caught.value) and time.process_time() - begun < 5


def test_the_reader_finds_the_same_modules_and_loads_no_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module beside it, or in the folder it is started in, is not taken for one that it imports."""
    told = "os.environ['HDF5_PLUGIN_PRELOAD'], sys.flags.safe_path, sys.path[0]"
    reader = tmp_path / "reader" / "reader.py"
    reader.parent.mkdir()
    reader.write_text(hdf5._READER.read_text().replace("    limit(size)", f"    return _tell(repr(({told}))) or 65"))
    (reader.parent / "h5py.py").write_text("raise ImportError")
    monkeypatch.setattr(hdf5, "_READER", reader)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    write_hdf5(tmp_path / "m.h5", {"a": np.zeros(3)})
    with pytest.raises(SavedFileError) as caught:
        read_hdf5(tmp_path / "m.h5")
    assert str(caught.value).endswith(f"Received: {('::', True, str(tmp_path / 'modules'))}")


@pytest.mark.parametrize("attribute", ["executable", "frozen"])
def test_without_an_interpreter_nothing_is_started(
    attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(tmp_path / "m.h5", {"a": np.zeros(3)})
    monkeypatch.setattr(sys, attribute, {"executable": "", "frozen": True}[attribute], raising=False)
    with pytest.raises(OSError, match=r"m\.h5: Expected a Python interpreter.* Received: none"):
        read_hdf5(tmp_path / "m.h5")


@pytest.mark.parametrize("error", ["OSError(28, 'No space left on device')", "SafetensorError('No space left')"])
def test_a_full_temporary_folder_is_not_the_fault_of_the_file(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(
        hdf5._READER.read_text().replace("        save_file(", f"        raise {error}\n        save_file(")
    )
    monkeypatch.setattr(hdf5, "_READER", reader)
    write_hdf5(tmp_path / "m.h5", {"a": np.zeros(3)})
    with pytest.raises(OSError, match=r"Expected space for the arrays of .*m\.h5\. Received: .*No space left"):
        read_hdf5(tmp_path / "m.h5")


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(FileNotFoundError):
        read_hdf5(tmp_path / "missing.h5")
    with pytest.raises(OSError, match=r"Expected a regular file: '.*pipe\.h5'"):
        read_hdf5(tmp_path / "pipe.h5")


@pytest.mark.parametrize("least", [{}, {"libver": "latest"}])
def test_as_many_arrays_as_are_allowed_have_time_to_be_read(least: dict[str, Any]) -> None:
    """A file has no more of them than its limit counts on."""
    content = io.BytesIO()
    with h5py.File(content, "w", **least) as file:
        for number in range(1000):
            file[str(number)] = np.int8(0)
    assert len(content.getvalue()) >= 1000 * hdf5_reader.BYTES_PER_OBJECT


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hdf5(tmp_path / "m.h5", {"a": np.zeros(3)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_hdf5(tmp_path / "m.h5", {"a": np.ones(3)})
    assert read_hdf5(tmp_path / "m.h5")["a"].tolist() == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["m.h5"]


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'gradloom\[keras\]'"):
        build("sequential").save_weights(tmp_path / "m.weights.h5")
