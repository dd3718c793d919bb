"""The on-disk cache of compiled programs and of measurements: checked when read, published atomically, bounded in size.

The folder is `$GRADLOOM_CACHE_DIR`, else `$XDG_CACHE_HOME/gradloom`, else `~/.cache/gradloom`; `$GRADLOOM_CACHE_LIMIT`
is its greatest size in bytes (1 GiB by default), and `GRADLOOM_CACHE=0` switches it off. An entry is a file:

    magic (8 bytes)  checksum of what follows (32)  SHA-256 of the key (32)  serialized program, or text

Nothing that is wrong with the folder or an entry is an error: the program is compiled, and a line is logged at debug
level. Processes may share a folder: an entry appears under its name only when it is whole, and the last writer's stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.program import Program, ProgramError
from gradloom.runtime.files import TEMPORARY, published
from gradloom.runtime.locks import new_lock

DEFAULT_LIMIT = 1 << 30

_MAGIC = b"GLCACHE1"
_PROGRAM, _TEXT = ".program", ".text"
_ABANDONED_NS = 3600 * 10**9
_HEADER_BYTES = len(_MAGIC) + 64

_log = logging.getLogger(__name__)

T = TypeVar("T")


class CacheLimitError(GradloomError, ValueError):
    """`GRADLOOM_CACHE_LIMIT` is no number of bytes."""


@dataclass(frozen=True)
class CacheInfo:
    """What the cache holds, and how often this process found something in it or not."""

    folder: Path | None
    entries: int
    nbytes: int
    limit: int
    hits: int
    misses: int

    def __str__(self) -> str:
        if self.folder is None:
            return "cache: off"
        size, limit = f"{self.nbytes / 2**20:.1f} MiB", f"{self.limit / 2**20:.1f} MiB"
        return (
            f"cache: {self.folder}\n{self.entries} entries, {size} of at most {limit}\n"
            f"{self.hits} hits and {self.misses} misses in this process"
        )


class _Counters:
    def __init__(self) -> None:
        self.lock = new_lock(self, "lock")
        self.hits = self.misses = 0

    def count(self, hit: bool) -> None:
        with self.lock:
            self.hits += hit
            self.misses += not hit


_counters = _Counters()


def load(key: str) -> Program | None:
    """The program that was stored under `key`, or None."""
    folder = cache_folder()
    path = None if folder is None else folder / _file_name(key, _PROGRAM)
    program = None if path is None else _read(path, _digest(key), Program.from_bytes)
    _counters.count(hit=program is not None)
    return program


def store(key: str, program: Program) -> None:
    """Keep a program under `key`, and remove the least recently used entries while the cache is above its limit."""
    _store(key, _PROGRAM, program.to_bytes())


def load_text(key: str) -> str | None:
    """The text that was stored under `key`, or None."""
    folder = cache_folder()
    return None if folder is None else _read(folder / _file_name(key, _TEXT), _digest(key), bytes.decode)


def store_text(key: str, text: str) -> None:
    """Keep a text under `key`, as `store` keeps programs; the two share no keys."""
    _store(key, _TEXT, text.encode())


def _store(key: str, suffix: str, content: bytes) -> None:
    folder, limit = cache_folder(), cache_limit()
    if folder is None:
        return
    body = _digest(key) + content
    entry = _MAGIC + _checksum(body) + body
    if len(entry) > limit:
        _log.debug("%d bytes are more than the cache may hold (%d)", len(entry), limit)
        return
    try:
        # Others must not write here: what lies in this folder is executed.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with published(folder / _file_name(key, suffix), mode=0o600) as file:
            file.write(entry)
        _shrink(folder, limit)
    except OSError as error:
        _log.debug("the cache folder %s cannot be written: %s", folder, error)


def info() -> CacheInfo:
    """What the cache holds now."""
    folder = cache_folder()
    sizes = [] if folder is None else [size for _, size, _ in _entries(folder)]
    return CacheInfo(folder, len(sizes), sum(sizes), cache_limit(), _counters.hits, _counters.misses)


def clear() -> int:
    """Remove every entry; returns how many there were."""
    folder = cache_folder()
    return 0 if folder is None else sum(_remove(path) for _, _, path in _entries(folder))


def cache_folder() -> Path | None:
    """The folder of the cache, or None where it is switched off or in a home that does not exist."""
    if os.environ.get("GRADLOOM_CACHE", "").strip().lower() in ("0", "off", "false", "no"):
        return None
    try:
        if folder := os.environ.get("GRADLOOM_CACHE_DIR"):
            return Path(folder).expanduser()
        if folder := os.environ.get("XDG_CACHE_HOME"):
            return Path(folder) / "gradloom"
        return Path.home() / ".cache" / "gradloom"
    except RuntimeError:  # There is no such user, or this one has no home.
        return None


def cache_limit() -> int:
    """Bytes that the cache may take; raises `CacheLimitError` where `GRADLOOM_CACHE_LIMIT` is no such number."""
    text = os.environ.get("GRADLOOM_CACHE_LIMIT", "").strip()
    if text and not text.isdecimal():
        raise CacheLimitError(f"Expected a number of bytes in GRADLOOM_CACHE_LIMIT. Received: {text!r}")
    return int(text) if text else DEFAULT_LIMIT


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _file_name(key: str, suffix: str) -> str:
    return _digest(key).hex() + suffix


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=32).digest()


def _read(path: Path, digest: bytes, parse: Callable[[bytes], T]) -> T | None:
    """The content of an entry that is whole and belongs to this key; any other entry is removed."""
    try:
        content = parse(_unpack(_read_bytes(path), digest))
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.debug("the cache entry %s cannot be read: %s", path, error)
        return None
    except (ProgramError, UnicodeDecodeError) as error:
        _log.debug("the cache entry %s is damaged and is made anew: %s", path, error)
        _remove(path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # The time of the last use: what is removed first is what has not been used for longest.
    return content


def _read_bytes(path: Path) -> bytes:
    """The bytes of a file; raises `ProgramError` for a pipe or a device, and for more than the whole cache may hold."""
    with open(path, "rb", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > cache_limit():
            raise ProgramError(f"Expected a file of at most {cache_limit()} bytes. Received: {status.st_size} bytes")
        return file.read(status.st_size)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; of a pipe, do not wait for who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _unpack(entry: bytes, digest: bytes) -> bytes:
    if len(entry) < _HEADER_BYTES or not entry.startswith(_MAGIC):
        raise ProgramError(f"Expected at least {_HEADER_BYTES} bytes starting {_MAGIC!r}. Received: {len(entry)} bytes")
    checksum, body = entry[len(_MAGIC) : len(_MAGIC) + 32], entry[len(_MAGIC) + 32 :]
    if _checksum(body) != checksum:
        raise ProgramError(f"Expected the checksum {checksum.hex()}. Received: {_checksum(body).hex()}")
    if body[:32] != digest:
        raise ProgramError(f"Expected the entry of {digest.hex()}. Received: that of {body[:32].hex()}")
    return body[32:]


def _shrink(folder: Path, limit: int) -> None:
    """Remove the least recently used entries above the limit, and files that a killed process left half written."""
    entries = sorted(_entries(folder), key=lambda entry: entry[0])
    excess = sum(size for _, size, _ in entries) - limit
    for _, size, path in entries:
        if excess <= 0:
            break
        excess -= size
        _remove(path)
    for written, _, path in _files(folder, TEMPORARY, ""):
        if written < time.time_ns() - _ABANDONED_NS:
            _remove(path)


def _entries(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Time of last use, size and path of each entry."""
    return _files(folder, "", (_PROGRAM, _TEXT))


def _files(folder: Path, prefix: str, suffix: str | tuple[str, ...]) -> Iterator[tuple[int, int, Path]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        if name.startswith(prefix) and name.endswith(suffix):
            # Another process may remove it at any time.
            with contextlib.suppress(OSError):
                status = (folder / name).stat()
                yield status.st_mtime_ns, status.st_size, folder / name


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
