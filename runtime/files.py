"""Publishing a file: under its name there is the old content or the new one, whole and on the disk, at every moment."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".writing-"
"""What the names of files begin with that are being written; a killed process may leave one behind."""

_NO_FSYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP)


@contextmanager
def published(path: str | os.PathLike[str], mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when the block ends: `with published(path) as file: file.write(…)`.

    What is written goes into a temporary file in the same folder; at the end it is synchronized with the disk, renamed
    onto `path`, and the folder synchronized, too. If the block raises, or anything fails before the folder is, the old
    file is untouched and the temporary one gone; if that fails, the new file is there, whole, and a power failure may
    bring the old one back. A symbolic link stays one: what it points to is replaced. A file that is replaced hands on
    its permissions; a new one has `mode`, less the umask.
    Raises OSError naming `path`: before the block for a folder that is missing or cannot be written, and for a
    directory or a device in the way.
    """
    target = Path(os.path.realpath(path))
    with _naming(path):
        kept = _permissions(target)
        temporary = target.with_name(TEMPORARY + secrets.token_hex(8))
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)
    try:
        with _naming(path), os.fdopen(descriptor, "w+b") as file:
            if kept is not None:
                os.fchmod(file.fileno(), kept)
            yield file
            put_in_place(file, temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def put_in_place(file: BinaryIO, temporary: Path, target: Path) -> None:
    """Rename the open file `temporary` to `target`, in the same folder, when all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(temporary, target)
    _synchronize(target.parent)


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder that is missing, and those that it is in: when this returns they are on the disk."""
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _synchronize(folder.parent)


def _synchronize(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems have no such thing; they say so by these numbers.
        if error.errno not in _NO_FSYNC_OF_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _permissions(target: Path) -> int | None:
    """The permissions of the file that is to be replaced, None if there is none; raises OSError for what is no file."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Expected a regular file, or none, to be replaced")
    return stat.S_IMODE(mode)


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors name the path that was asked for: nobody has heard of the temporary file."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None or TEMPORARY in str(error.filename)
        if error.errno is None or not unnamed:
            raise
        text, folder = error.strerror, os.path.dirname(os.path.realpath(path))
        if error.errno == errno.ENOENT and not os.path.isdir(folder):
            text = f"No such folder as {os.fsdecode(folder)}"
        raise OSError(error.errno, text, os.fspath(path)) from None
