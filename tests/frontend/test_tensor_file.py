"""Files of tensors: what is written comes back bit by bit, other readers of the format agree, damage is told."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradloom.saving import tensor_file
from gradloom.saving.tensor_file import CHECKSUM, SavedFileError, read_tensors, write_tensors

DTYPES = ["?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", ">i4", "<u8", "<i8", "<f2", "<f4", ">f4", "<f8"]


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    array = np.frombuffer(draw(st.binary(min_size=8 * 64, max_size=8 * 64)), np.uint8)
    count = int(np.prod(shape))
    kind = draw(st.sampled_from([*DTYPES, "bf16"]))
    dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bf16" else np.dtype(kind)
    flat = array[: count * dtype.itemsize].view(np.bool_ if kind == "?" else dtype)
    made = (flat.view(np.uint8) % 2).astype(np.bool_).reshape(shape) if kind == "?" else flat.reshape(shape)
    return made.T if draw(st.booleans()) else made


def bits(array: np.ndarray) -> tuple[Any, ...]:
    little = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    return array.dtype.name, array.shape, little.tobytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.dictionaries(st.text(max_size=6).filter(lambda name: name != "__metadata__"), tensors(), max_size=4),
    metadata=st.dictionaries(st.text(max_size=6), st.text(max_size=9), max_size=3),
)
def test_what_is_written_comes_back(tmp_path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    path = tmp_path / "file.safetensors"
    write_tensors(path, arrays, metadata)
    read, told = read_tensors(path)
    assert told == metadata
    assert {name: bits(array) for name, array in read.items()} == {name: bits(array) for name, array in arrays.items()}
    # The package reads the same in its own way.
    foreign = safetensors.numpy.load_file(path)
    assert {name: bits(array) for name, array in foreign.items()} == {name: bits(read[name]) for name in read}


def test_files_of_other_writers_are_read(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5, 2], ml_dtypes.bfloat16)}
    safetensors.numpy.save_file(arrays, tmp_path / "file", {"format": "np"})
    read, metadata = read_tensors(tmp_path / "file")
    assert metadata == {"format": "np"}
    assert {name: bits(array) for name, array in read.items()} == {name: bits(array) for name, array in arrays.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file"
    write_tensors(path, {"a": np.arange(3.0), "b": np.arange(4, dtype=np.uint8)}, {"config": '{"units": 3}'})
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path.write_bytes(content)
    try:
        arrays, metadata = read_tensors(path)
    except SavedFileError as error:
        assert str(path) in str(error)  # noqa: PT017 (whether there is an error depends on the place)
    else:  # Space in the header and the key of the checksum say nothing about the content.
        assert arrays["a"].tolist() == [0, 1, 2] and arrays["b"].tolist() == [0, 1, 2, 3]
        assert metadata["config"] == '{"units": 3}'


@pytest.mark.parametrize(
    "header", ["[]", "{", '{"a": 1}', '{"a": {"dtype": "F8_E5M2", "shape": [1], "data_offsets": [0, 1]}}']
)
def test_other_headers_are_refused(header: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0")
    with pytest.raises(SavedFileError, match=r"file.*Expected"):
        read_tensors(tmp_path / "file")


@pytest.mark.parametrize("shape", [[0, 1 << 63], [1] * 100, [0, 1 << 62, 1 << 62]])
def test_shapes_that_arrays_cannot_have_are_refused(shape: list[int], tmp_path: Path) -> None:
    size = 1 - min(1, shape.count(0))
    header = json.dumps({"a": {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with pytest.raises(SavedFileError, match=r"file: Expected a file in the safetensors format\. Received: .*; "):
        read_tensors(tmp_path / "file")


def test_a_header_that_promises_much_takes_no_memory(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(header)) + header)
    tracemalloc.start()
    with pytest.raises(SavedFileError):
        read_tensors(tmp_path / "file")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_wrong_checksum_is_told(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "file", {CHECKSUM: "0" * 64})
    with pytest.raises(SavedFileError, match=r"file: damaged\. Expected the checksum 0{64}\. Received: [0-9a-f]{64}"):
        read_tensors(tmp_path / "file")


def test_a_missing_checksum_is_told_where_one_is_required(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(1)}, tmp_path / "file")
    assert read_tensors(tmp_path / "file")[0]["a"].tolist() == [0]
    with pytest.raises(SavedFileError, match="file: damaged. Expected a checksum, 'gradloom.sha256'.*Received: none"):
        read_tensors(tmp_path / "file", checksum=True)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "file", {"a": np.zeros(1)})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "file", {"a": np.ones(1)})
    assert read_tensors(tmp_path / "file")[0]["a"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"'a': Expected one of the dtypes bool, .* Received: complex64"):
        write_tensors(tmp_path / "file", {"a": np.zeros(1, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_a_missing_file_and_a_folder_are_python_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        read_tensors(tmp_path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OSError, match=f"Expected a regular file: '{path}'"):
            read_tensors(path)


def test_arrays_that_change_meanwhile_are_written_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may train the model that is saved."""
    array, checksum = np.arange(4.0), tensor_file._checksum

    def changing(*arguments: Any) -> str:
        result = checksum(*arguments)
        array[:] = -1
        return result

    monkeypatch.setattr(tensor_file, "_checksum", changing)
    write_tensors(tmp_path / "x.safetensors", {"x": array})
    monkeypatch.undo()
    arrays, _ = read_tensors(tmp_path / "x.safetensors", checksum=True)
    assert arrays["x"].tolist() == [0, 1, 2, 3]
