"""IDX files: what is read back, and what is refused, of whole, cut, mutated and lying files."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradloom.datasets.idx import DataFileError, read_idx

shapes = st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)
in_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def idx_bytes(shape: tuple[int, ...], payload: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(struct.pack(">I", size) for size in shape) + payload


def write(folder: Path, content: bytes, compressed: bool) -> Path:
    path = folder / "some-idx"
    path.write_bytes(gzip.compress(content) if compressed else content)
    return path


@in_folder
@given(shape=shapes, compressed=st.booleans(), data=st.data())
def test_elements_are_read_back(tmp_path: Path, shape: tuple[int, ...], compressed: bool, data: st.DataObject) -> None:
    count = int(np.prod(shape))
    payload = data.draw(st.binary(min_size=count, max_size=count))
    array = read_idx(write(tmp_path, idx_bytes(shape, payload), compressed), rank=len(shape))
    assert array.dtype == np.uint8
    assert array.shape == shape
    assert array.tobytes() == payload
    assert array.flags.writeable


@in_folder
@given(shape=shapes, compressed=st.booleans(), data=st.data())
def test_every_truncation_is_refused(
    tmp_path: Path, shape: tuple[int, ...], compressed: bool, data: st.DataObject
) -> None:
    path = write(tmp_path, idx_bytes(shape, bytes(int(np.prod(shape)))), compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataFileError, match="some-idx.*Expected.*Received"):
        read_idx(path, rank=len(shape))


@in_folder
@given(shape=shapes, compressed=st.booleans(), extra=st.binary(min_size=1, max_size=9))
def test_bytes_after_the_elements_are_refused(
    tmp_path: Path, shape: tuple[int, ...], compressed: bool, extra: bytes
) -> None:
    path = write(tmp_path, idx_bytes(shape, bytes(int(np.prod(shape)))) + extra, compressed)
    with pytest.raises(DataFileError, match="some-idx.*Expected.*Received"):
        read_idx(path, rank=len(shape))


@in_folder
@given(compressed=st.booleans(), data=st.data())
def test_a_mutant_is_read_rightly_or_refused(tmp_path: Path, compressed: bool, data: st.DataObject) -> None:
    """Any bytes may be overwritten: the only outcomes are an array that fits the header, and DataFileError."""
    path = write(tmp_path, idx_bytes((3, 4, 5), bytes(range(60))), compressed)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        size = read_idx(path, rank=3).size
    except DataFileError:
        size = 60
    assert size == 60


def test_a_flipped_bit_in_compressed_elements_is_found_by_the_checksum(tmp_path: Path) -> None:
    payload = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    path = write(tmp_path, idx_bytes((5000,), payload), compressed=True)
    content = bytearray(path.read_bytes())
    content[2500] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="corrupt gzip"):
        read_idx(path, rank=1)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_promises_gigabytes_takes_no_memory(tmp_path: Path, compressed: bool) -> None:
    path = write(tmp_path, idx_bytes((2**31, 28, 28), bytes(100)), compressed)
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match=f"Expected: {16 + 2**31 * 784} bytes"):
            read_idx(path, rank=3)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_decompression_stops_at_the_size_in_the_header(tmp_path: Path) -> None:
    path = write(tmp_path, idx_bytes((10,), bytes(200 << 20)), compressed=True)
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match=r"Expected: 18 bytes\. Received: more"):
            read_idx(path, rank=1)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_whose_header_tells_the_truth_takes_no_memory(tmp_path: Path) -> None:
    """A thousandth of what it expands to, and broken only at its end: all would be in memory by then."""
    compressor = zlib.compressobj(9, wbits=31)
    head = compressor.compress(idx_bytes((2**29,), b"")) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / "some-idx"
    path.write_bytes(head + block * 512)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match=f"Expected: {8 + 2**29} bytes.*too short for as much"):
            read_idx(path, rank=1)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"\x00\x00\x0d\x01" + bytes(8), "00 00 0d 01"),  # f32 elements
        (b"\x00\x00\x08\x03" + bytes(12), "00 00 08 03"),  # three dimensions instead of one
        (b"\x89PNG\r\n\x1a\n", "89 50 4e 47"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: bytes, received: str) -> None:
    with pytest.raises(DataFileError, match=f"Expected its first bytes: 00 00 08 01. Received: {received}"):
        read_idx(write(tmp_path, content, compressed=False), rank=1)
