"""Reader of IDX files, the format of MNIST and its relatives: u8 tensors, plain or gzip compressed.

Layout: two zero bytes, a type code (8 for u8), the rank, one big-endian u32 a dimension, then the elements, row-major.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from gradloom.compiler.errors import GradloomError

_GZIP_MAGIC = b"\x1f\x8b"
_U8 = 0x08
_MAX_DEFLATE_RATIO = 1032
"""Deflate's best case is 258 bytes for 2 bits: nothing smaller can hold as many elements as a header promises."""
_USUAL_RATIO = 64
"""Beyond what pictures and labels ever shrink by."""
_MODEST_BYTES = 1 << 27
"""What a compressed file may expand to at any ratio: more at an unusual one is a bomb, and not worth the memory."""
_CHUNK = 1 << 20


class _Readable(Protocol):
    """What a plain file and a gzip stream have in common."""

    def read(self, size: int, /) -> bytes: ...


class DataFileError(GradloomError, ValueError):
    """A data file is truncated, corrupt or of another format."""


def read_idx(path: str | os.PathLike[str], rank: int) -> np.ndarray:
    """Read a tensor of `rank` dimensions from an IDX file; whether it is compressed is seen from its first bytes.

    Returns a fresh u8 array of the header's shape. Memory is taken only after the file's size has been found to fit the
    header, and decompression never goes past the bytes that the header promises.
    Raises DataFileError, naming the file with its expected and actual bytes, when it is truncated, corrupt, longer than
    its header says, no u8 tensor of this rank, or expands to over 128 MiB and 64 times its size; OSError when it cannot
    be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        compressed = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return _read_plain(file, path, rank, size)
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            try:
                return _read_compressed(stream, path, rank, size)
            except EOFError as error:
                raise DataFileError(
                    f"{path}: truncated gzip file. Expected: compressed data up to its end mark and checksum. "
                    f"Received: {size} bytes, which stop before it"
                ) from error
            except (zlib.error, gzip.BadGzipFile) as error:
                raise DataFileError(
                    f"{path}: corrupt gzip file. Expected: valid compressed data. "
                    f"Received: {error}, in a file of {size} bytes, at byte {file.tell()} or before"
                ) from error


def _read_plain(file: _Readable, path: Path, rank: int, size: int) -> np.ndarray:
    shape = _read_header(file, path, rank)
    expected = _header_size(rank) + math.prod(shape)
    if size != expected:
        raise _wrong_size(path, shape, expected, f"{size} bytes")
    return _read_elements(file, path, shape)


def _read_compressed(stream: _Readable, path: Path, rank: int, size: int) -> np.ndarray:
    shape = _read_header(stream, path, rank)
    expected = _header_size(rank) + math.prod(shape)
    if expected > min(size * _MAX_DEFLATE_RATIO, max(size * _USUAL_RATIO, _MODEST_BYTES)):
        raise _wrong_size(path, shape, expected, f"a gzip file of {size} bytes, which is too short for as much")
    elements = _read_elements(stream, path, shape)
    # Reading on also makes gzip compare its checksum.
    if stream.read(1):
        raise _wrong_size(path, shape, expected, "more, after decompression")
    return elements


def _header_size(rank: int) -> int:
    return 4 + 4 * rank


def _read_header(file: _Readable, path: Path, rank: int) -> tuple[int, ...]:
    header = file.read(_header_size(rank))
    magic = bytes([0, 0, _U8, rank])
    if len(header) >= 4 and header[:4] != magic:
        raise DataFileError(
            f"{path}: no IDX file of u8 elements with {rank} dimensions. "
            f"Expected its first bytes: {magic.hex(' ')}. Received: {header[:4].hex(' ')}"
        )
    if len(header) < _header_size(rank):
        raise DataFileError(
            f"{path}: truncated IDX header. Expected: {_header_size(rank)} bytes. Received: {len(header)} bytes"
        )
    return struct.unpack(f">{rank}I", header[4:])


def _read_elements(file: _Readable, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    flat = np.empty(count, np.uint8)
    done = 0
    while done < count:
        chunk = file.read(min(_CHUNK, count - done))
        if not chunk:
            start = _header_size(len(shape))
            raise _wrong_size(path, shape, start + count, f"{start + done} bytes")
        flat[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    return flat.reshape(shape)


def _wrong_size(path: Path, shape: tuple[int, ...], expected: int, received: str) -> DataFileError:
    return DataFileError(
        f"{path}: size does not fit the IDX header, which says u8{list(shape)}. "
        f"Expected: {expected} bytes. Received: {received}"
    )
