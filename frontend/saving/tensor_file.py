"""Files of named tensors and metadata: the safetensors format, with a checksum in its header.

Layout: the length of the header, a little-endian u64; the header, JSON, which maps each tensor's name to its dtype,
shape and place, and `__metadata__` to a mapping of strings; then the tensors' bytes. The checksum is one of these
strings, which other readers of the format pass over; files of weights of other writers have none and are read as well.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.types import BF16
from gradloom.runtime.files import published

CHECKSUM = "gradloom.sha256"
"""The metadata's key of the checksum: of the other metadata, and of the tensors' names, dtypes, shapes and bytes."""

_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}
"""The format's names of dtypes, by NumPy's."""
_ALIGNMENT = 8


class SavedFileError(GradloomError, ValueError):
    """A file of weights or of a model is damaged, of another format, or holds what cannot be loaded."""


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays and a mapping of strings, in one piece or not at all.

    A copy is written, which is made first: another thread may change the arrays after their checksum is made. Raises
    OSError when the file cannot be written, and then leaves the old one; TypeError for a dtype that the format does not
    know.
    """
    for name, array in arrays.items():
        if array.dtype.name not in _CODES:
            raise TypeError(f"{name!r}: Expected one of the dtypes {', '.join(_CODES)}. Received: {array.dtype}")
    arrays = {name: array.copy() for name, array in arrays.items()}
    # The largest elements first, so that each array begins at a multiple of its elements' size.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {**(metadata or {}), CHECKSUM: _checksum(arrays, metadata or {})}}
    end = 0
    for name in names:
        start, end = end, end + arrays[name].nbytes
        header[name] = {
            "dtype": _CODES[arrays[name].dtype.name],
            "shape": arrays[name].shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    # Written here rather than by the package, of which an error of the disk would be an error of another kind.
    with published(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_bytes(arrays[name]))


def read_tensors(path: str | os.PathLike[str], checksum: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return a file's arrays, and its metadata without the checksum, which is compared if there is one.

    checksum: whether there has to be one, as in every file that Gradloom writes.
    Raises SavedFileError naming the file and what is wrong with it; OSError when it cannot be opened. Memory is taken
    for as many bytes as the file has, whatever its header says.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    require_file(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        # Not mapped into memory: a file that another process cuts short meanwhile would end this one.
        with safe_open(path, framework="numpy", backend="pread") as file:
            metadata = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                code = file.get_slice(name).get_dtype()
                if code not in _CODES.values():
                    raise SavedFileError(
                        f"{path}, tensor {name!r}: Expected one of the dtypes {', '.join(_CODES.values())}. "
                        f"Received: {code}"
                    )
                if code == "BF16":
                    BF16.numpy  # noqa: B018 (makes the dtype known to NumPy)
                arrays[name] = file.get_tensor(name)
    except SavedFileError:
        raise
    # NumPy has no shapes of very many axes, or of very long ones beside an empty one; its errors are of these kinds.
    except (SafetensorError, ValueError, OverflowError) as error:
        raise SavedFileError(
            f"{path}: Expected a file in the safetensors format. Received: {path.stat().st_size} bytes; {error}"
        ) from None
    expected = metadata.pop(CHECKSUM, None)
    if checksum and expected is None:
        raise SavedFileError(f"{path}: damaged. Expected a checksum, {CHECKSUM!r} in the metadata. Received: none")
    if expected is not None and (received := _checksum(arrays, metadata)) != expected:
        raise SavedFileError(f"{path}: damaged. Expected the checksum {expected}. Received: {received}")
    return arrays, metadata


def require_file(path: Path) -> None:
    """Raise OSError, naming the path, unless it is that of a file that can be opened for reading."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # To open a pipe may take for ever.
        raise OSError(errno.EINVAL, "Expected a regular file", os.fspath(path))
    with path.open("rb"):  # The error of a missing file, or of a folder, is Python's own.
        pass


def _checksum(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    names = sorted(arrays)
    entries = [(name, _CODES[arrays[name].dtype.name], arrays[name].shape) for name in names]
    digest = hashlib.sha256(json.dumps([dict(metadata), entries], sort_keys=True).encode())
    for name in names:
        digest.update(_bytes(arrays[name]))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The array's bytes as they stand in a file: row-major, little-endian."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    # A dtype that is not NumPy's own has no buffer; its bytes have.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
