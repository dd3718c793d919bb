"""A program that copies the arrays of an HDF5 file into a safetensors file: `hdf5_reader.py file.h5 out.safetensors`.

HDF5's C library is known to crash on crafted files, so it runs in a process of its own, which this is, with as much
memory and processor time as a sound file of that size needs. It imports nothing of Gradloom. What is wrong it says in
one line on its error output, and ends with `os.EX_DATAERR` where the file is at fault, with `os.EX_CANTCREAT` where the
copy cannot be written.
"""

import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

MOST_OBJECTS = 50_000
MOST_EXPANSION = 4
"""Bytes of arrays for each byte of a file, which may be compressed."""
SPARE_BYTES = 64 << 20
SECONDS = 3
"""Processor time for any file; a large one gets more."""
BYTES_PER_SECOND = 32 << 20
OBJECTS_PER_SECOND = 1_000
BYTES_PER_OBJECT = 256
"""What an array or a group takes at least: a file of a size has no more of them."""


class WrongFileError(Exception):
    """The file holds what no file of weights does."""


def arrays_of(file: h5py.File, most_bytes: int) -> dict[str, np.ndarray]:
    """Read every array of numbers by its path; refuse links and storage that lead elsewhere."""
    arrays: dict[str, np.ndarray] = {}
    for path, dataset in _datasets(file):
        size = dataset.size * dataset.dtype.itemsize
        most_bytes -= size
        if dataset.external or dataset.is_virtual:
            raise WrongFileError(f"Expected arrays within the file. Received: {path!r}, which lies elsewhere")
        if most_bytes < 0:
            raise WrongFileError(
                f"Expected arrays that a file of its size can hold. Received: {path!r} of {size} bytes"
            )
        if dataset.attrs.get("dtype") == "bfloat16" and dataset.dtype.itemsize == 2:
            arrays[path] = np.asarray(dataset[()]).view(ml_dtypes.bfloat16)
        elif dataset.dtype.kind in "fiub" and dataset.dtype.itemsize <= 8:
            arrays[path] = np.asarray(dataset[()])
        else:
            raise WrongFileError(
                f"Expected arrays of numbers of at most 8 bytes. Received: {path!r} of dtype {dataset.dtype}"
            )
    return arrays


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = 0
    groups = set()
    while waiting:
        path, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in groups:
            raise WrongFileError(f"Expected groups inside of one another. Received: {path!r}, which is there twice")
        groups.add(address)
        for name in group:
            seen += 1
            if seen > MOST_OBJECTS:
                raise WrongFileError(f"Expected at most {MOST_OBJECTS} arrays and groups. Received: more")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise WrongFileError(f"Expected arrays and groups. Received: {path + name!r}, a link to elsewhere")
            item: Any = group[name]
            if isinstance(item, h5py.Group):
                waiting.append((f"{path}{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield path + name, item


def limit(size: int) -> None:
    """Let the system end this process when it takes more than a sound file of `size` bytes needs."""
    objects = min(size // BYTES_PER_OBJECT, MOST_OBJECTS)
    seconds = SECONDS + size // BYTES_PER_SECOND + objects // OBJECTS_PER_SECOND
    limits = [(resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)]
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as status:
            taken = int(status.read().split()[0]) * resource.getpagesize()
        limits.append((resource.RLIMIT_AS, taken + 2 * SPARE_BYTES + (MOST_EXPANSION + 1) * size))
    for kind, amount in limits:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _tell(error: Exception) -> None:
    print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)


def main(source: str, destination: str) -> int:
    """Copy the arrays; return the exit code."""
    size = os.path.getsize(source)
    limit(size)
    try:
        with h5py.File(source, "r") as file:
            arrays = arrays_of(file, MOST_EXPANSION * size + SPARE_BYTES)
    except MemoryError:
        print("Expected arrays that a file of its size can hold. Received: more", file=sys.stderr)
        return os.EX_DATAERR
    # The library's own errors are of all these kinds.
    except (WrongFileError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        _tell(error)
        return os.EX_DATAERR
    try:
        # A path begins with a slash here, and so is none of the names that the format keeps for itself.
        save_file({f"/{path}": np.asarray(array, order="C") for path, array in arrays.items()}, destination)
    except (OSError, SafetensorError) as error:
        _tell(error)
        return os.EX_CANTCREAT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
