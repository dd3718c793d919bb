"""Downloading one published file over HTTP: checked by MD5 or size, resumed where it broke off, atomically in place."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gradloom.compiler.errors import GradloomError
from gradloom.runtime.files import put_in_place

if TYPE_CHECKING:
    from http.client import HTTPResponse

_ATTEMPTS = 5
_CHUNK = 1 << 16
_TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as broken."""
MAX_BYTES = 256 << 20
"""No data set here is larger; a server that keeps on sending does not fill the disk."""


def cache_folder(name: str) -> Path:
    """The user's cache folder for what `name` downloads: `$XDG_CACHE_HOME/gradloom/name`, by default in `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME")
    # The XDG convention: a relative path counts as unset.
    base = Path(root) if root and os.path.isabs(root) else Path("~/.cache").expanduser()
    return base / "gradloom" / name


class DownloadError(GradloomError, OSError):
    """A file could not be downloaded, or what came is not what was published."""


@dataclass(frozen=True)
class _Published:
    """What is known of a published file: its checksum, its size in bytes, or both."""

    md5: str | None
    size: int | None

    def mismatch(self, file: BinaryIO) -> str | None:
        """Say what was expected of the file if it is another one, else None."""
        received = file.seek(0, os.SEEK_END)
        if self.size is not None and received != self.size:
            return f"Expected: {self.size} bytes. Received: {received} bytes"
        if self.md5 is not None and (digest := _md5(file)) != self.md5:
            return f"Expected MD5: {self.md5}. Received: {digest}"
        return None


def fetch(url: str, destination: Path, md5: str | None = None, size: int | None = None) -> None:
    """Download `url` to `destination`, whose folder is made; nothing is done when the file is there already.

    md5: the published file's checksum in hex. size: its bytes. At least one of them is needed. What has come is kept
    beside the destination as `….part`, so that a later call asks the server for the rest only; the file appears under
    its own name when it is whole and right. A progress bar is shown on a terminal.
    Raises DownloadError when the server cannot be reached, breaks off again and again, or sends something else.
    """
    if md5 is None and size is None:
        raise ValueError(f"{url}: Expected md5 or size, to know the file by. Received: neither")
    if destination.exists():
        return
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # Bytes are written at their own offset and never appended: two processes that download the same file at once
        # write the same bytes to the same places.
        with open(os.open(part, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            _complete(url, file, _Published(md5, size))
            put_in_place(file, part, destination)
    except _WrongContent:
        part.unlink(missing_ok=True)
        raise
    except DownloadError:
        if part.stat().st_size == 0:
            part.unlink()
        raise
    except OSError as error:
        # Another process may have put the same file in place first.
        if not destination.exists():
            raise DownloadError(f"{destination}: cannot be written: {error}") from error


class _WrongContent(DownloadError):
    """What came is another file: worth nothing, not even to be resumed."""


def _complete(url: str, file: BinaryIO, published: _Published) -> None:
    """Fill `file` until it is the published one, resuming after its present bytes."""
    from http.client import HTTPException

    start = resumed_from = file.seek(0, os.SEEK_END)
    for _ in range(_ATTEMPTS):
        reason = "broke off"
        try:
            whole = _transfer(url, file, start)
        except _Unsatisfiable:
            whole = True
        except DownloadError:
            raise
        except (OSError, HTTPException) as error:
            whole, reason = False, str(error) or type(error).__name__
        if not whole:
            before, start = start, file.seek(0, os.SEEK_END)
            if start > before:
                continue
            break
        mismatch = published.mismatch(file)
        if mismatch is None:
            return
        if not resumed_from:
            raise _WrongContent(f"{url}: other content than published. {mismatch}")
        # The bytes of the earlier call may have been bad: once more, from the start.
        file.truncate(0)
        start = resumed_from = 0
    kept = f", after {start} bytes, which are kept to be resumed" if start else ""
    raise DownloadError(f"{url}: {reason}{kept}")


class _Unsatisfiable(Exception):
    """The server has no bytes after the offset: the file may be whole."""


def _transfer(url: str, file: BinaryIO, start: int) -> bool:
    """Receive the bytes from `start` on (or all, if the server resumes nothing); return whether all have come."""
    import urllib.error  # what speaks HTTP loads when there is something to download
    import urllib.request

    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                raise _Unsatisfiable from error
            raise
    with response:
        offset = _offset_of(response, start)
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length and length.isdecimal() else None
        if total is not None and total > MAX_BYTES:
            raise _too_long(url, total)
        return _receive(response, file, offset, total, url)


def _offset_of(response: HTTPResponse, start: int) -> int:
    """Return where in the file this response begins: a server may ignore the range and send everything."""
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    answer = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d+)-", answer)
    if not match or int(match[1]) != start:
        raise DownloadError(f"{response.url}: Expected bytes from {start} on. Received: Content-Range: {answer!r}")
    return start


def _receive(response: HTTPResponse, file: BinaryIO, offset: int, total: int | None, url: str) -> bool:
    from tqdm import tqdm

    name = url.rsplit("/", 1)[-1]
    file.seek(offset)
    with tqdm(
        total=total, initial=offset, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None
    ) as progress:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            progress.update(len(chunk))
            if file.tell() > MAX_BYTES:
                raise _too_long(url, file.tell())
    received = file.tell()
    if total is not None and received < total:
        return False
    # A longer rest of an earlier call would be no part of this file.
    file.truncate()
    return True


def _too_long(url: str, size: int) -> DownloadError:
    return _WrongContent(f"{url}: Expected at most {MAX_BYTES} bytes. Received: {size} or more")


def _md5(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
