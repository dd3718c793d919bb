"""IDX files, plain and in gzip: lying headers, bombs, members behind one another, wrong checksums."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from random import Random

import numpy as np

from gradloom.datasets.idx import read_idx
from malformed.formats import Format
from malformed.mutators import BYTES, EXTREMES, Mutator, damaged

SHAPES = ((0,), (7,), (1000,), (3, 4, 5), (40, 28, 28))
BLOCK = 1 << 20


def idx_bytes(shape: tuple[int, ...], payload: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + payload


def valid_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [idx_bytes(shape, rng.integers(0, 256, shape, np.uint8).tobytes()) for shape in SHAPES]


def with_another_size(rng: Random, content: bytes, other: bytes) -> bytes:
    """One of the header's sizes, or the rank, overwritten."""
    if rng.random() < 0.2:
        return content[:3] + bytes([rng.choice((0, 1, 2, 3, 4, 32, 255))]) + content[4:]
    at = 4 * rng.randint(1, 3)
    return content[:at] + (rng.choice(EXTREMES) % 2**32).to_bytes(4, "big") + content[at + 4 :]


IDX_MUTATORS: tuple[Mutator, ...] = (*BYTES, *[with_another_size] * 3)


class IdxFormat(Format):
    """Plain files; what is read has the header's shape and exactly the bytes behind the header."""

    mutators = IDX_MUTATORS
    corpus = tuple(valid_files())

    def __init__(self, folder: Path) -> None:
        pass

    def read(self, path: Path, content: bytes) -> str:
        # A file is read for what its neighbours are: with the rank that it has, and with another one.
        for rank in (1, 3) if content[3:4] not in (b"\1", b"\3") else content[3:4]:
            array = read_idx(path, rank)
            check_array(array, rank, content)
        return "read"


def check_array(array: np.ndarray, rank: int, content: bytes) -> None:
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, 4 + 4 * rank, 4))
    assert content[:4] == bytes([0, 0, 8, rank])
    assert (array.dtype, array.shape) == (np.uint8, shape)
    assert array.tobytes() == content[4 + 4 * rank :]


def member(content: bytes, rng: Random) -> bytes:
    """A gzip member with any of the optional fields, some of them lying."""
    flags = rng.choice((0, 0, 4, 8, 16, 2, 30))
    extra = rng.randbytes(rng.randint(0, 40))
    header = b"\x1f\x8b\x08" + bytes([flags]) + rng.randbytes(4) + b"\0\xff"
    if flags & 4:
        header += (len(extra) + rng.choice((0, 0, 1, 60000))).to_bytes(2, "little") + extra
    header += (b"name\0" if flags & 8 else b"") + (b"comment\0" if flags & 16 else b"")
    if flags & 2:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    body = zlib.compressobj(rng.choice((0, 1, 9)), wbits=-15)
    checksum, size = zlib.crc32(content), len(content) % 2**32
    if rng.random() < 0.2:
        checksum ^= 1 << rng.randrange(32)
    if rng.random() < 0.1:
        size = rng.choice(EXTREMES) % 2**32
    return header + body.compress(content) + body.flush() + checksum.to_bytes(4, "little") + size.to_bytes(4, "little")


def bomb(rng: Random) -> bytes:
    """What expands to a thousand times as much; the header promises less than that, as much, or more."""
    blocks = rng.choice((1, 100, 300, 2500))
    promised = rng.choice((10, blocks * BLOCK - 8, blocks * BLOCK, 2**31, 2**32 - 1))
    compressor = zlib.compressobj(9, wbits=31)
    head = compressor.compress(idx_bytes((promised,), b"")) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = zlib.compressobj(9, wbits=-15)
    zeros = block.compress(bytes(BLOCK)) + block.flush(zlib.Z_FULL_FLUSH)
    return head + zeros * blocks + rng.choice((b"", compressor.flush(), rng.randbytes(20)))


class GzipFormat(Format):
    """Compressed files; what is read is what zlib finds in them, checksums included."""

    mutators = BYTES

    def __init__(self, folder: Path) -> None:
        self.plain = valid_files()
        self.corpus = [gzip.compress(content, mtime=0) for content in self.plain]

    def mutant(self, rng: Random) -> bytes:
        kind = rng.random()
        if kind < 0.05:
            return bomb(rng)
        if kind < 0.1:  # members without content, which a reader passes over
            return gzip.compress(b"") * rng.choice((1, 10, 20_000)) + rng.choice(self.corpus)
        if kind < 0.3:  # right compression of a wrong file
            return member(damaged(rng, self.plain, IDX_MUTATORS), rng)
        if kind < 0.4:  # a file in several members
            content = rng.choice(self.plain)
            cut = rng.randint(0, len(content))
            return member(content[:cut], rng) + bytes(rng.choice((0, 0, 5))) + member(content[cut:], rng)
        return super().mutant(rng)

    def read(self, path: Path, content: bytes) -> str:
        inside = decompressed_start(content)
        rank = inside[3] if inside[3:4] in (b"\1", b"\3") else 1
        array = read_idx(path, rank)
        check_array(array, rank, decompressed(content) if content[:2] == b"\x1f\x8b" else content)
        return "read"


def decompressed_start(content: bytes) -> bytes:
    """The first bytes, as far as there are any."""
    try:
        while content[:2] == b"\x1f\x8b":
            stream = zlib.decompressobj(wbits=31)
            if found := stream.decompress(content, 4):
                return found
            content = stream.unused_data.lstrip(b"\0")
    except zlib.error:
        pass
    return b""


def decompressed(content: bytes) -> bytes:
    """All members, of a file that is whole."""
    parts = []
    while content:
        stream = zlib.decompressobj(wbits=31)
        # What reserved bits mean, nobody knows: zlib refuses them, and they change no byte of what is inside.
        parts.append(stream.decompress(content[:3] + bytes([content[3] & 0x1F]) + content[4:]))
        assert stream.eof, "read beyond the end of a member that is not whole"
        content = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)
