"""Files of arrays in HDF5, the format of Keras's `.weights.h5`: written here, and read in a process of its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gradloom.compiler.types import BF16
from gradloom.runtime.files import published
from gradloom.saving.tensor_file import SavedFileError, read_tensors, require_file

_READER = Path(__file__).with_name("hdf5_reader.py")
_SECONDS = 120.0
"""Time after which the reader is given up where its processor time does not pass, as on a disk that does not answer."""


def read_hdf5(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return a file's arrays by their paths, such as "layers/dense/vars/0".

    Raises SavedFileError for a file that is damaged, leads to other files, or on which the library crashes, hangs or
    takes too much memory; OSError when it cannot be opened, there is no interpreter for the reader, or no space for
    what it read; ImportError without h5py.
    """
    _require_h5py()
    if getattr(sys, "frozen", False) or not sys.executable:
        raise OSError(
            f"{os.fspath(path)}: Expected a Python interpreter to read HDF5 in a process of its own. Received: none"
        )
    path = Path(path)
    require_file(path)
    with tempfile.TemporaryDirectory(prefix="gradloom-") as folder:
        copy = Path(folder, "arrays.safetensors")
        # -P: the modules beside the reader are not for others to import by their bare names.
        command = [sys.executable, "-P", str(_READER), str(path.resolve()), str(copy)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _damaged(path, f"no answer of its reader for {_SECONDS:g} seconds") from None
        text = done.stderr.decode(errors="replace").strip()
        if done.returncode < 0:
            raise _damaged(path, _death(-done.returncode))
        if done.returncode == os.EX_DATAERR:
            raise _damaged(path, text.splitlines()[-1])
        if done.returncode == os.EX_CANTCREAT:
            raise OSError(f"{copy}: Expected space for the arrays of {path}. Received: {text.splitlines()[-1]}")
        if done.returncode or not copy.exists():
            raise _damaged(path, f"exit code {done.returncode} of its reader: {text[-500:]}")
        return {name.removeprefix("/"): array for name, array in read_tensors(copy)[0].items()}


def write_hdf5(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], names: Mapping[str, str] | None = None
) -> None:
    """Write arrays by their paths, in one piece or not at all; `names` are noted as attributes `name` of groups."""
    _require_h5py()
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for group, name in (names or {}).items():
            file.require_group(group).attrs["name"] = name
        for name, array in arrays.items():
            dataset: Any = file.create_dataset(name, data=array)
            if array.dtype.name == BF16.numpy_name:
                dataset.attrs["dtype"] = array.dtype.name
    # Written at once: the library would be told of a full disk in the middle of its work.
    with published(path) as published_file:
        published_file.write(content.getbuffer())


def _environment() -> dict[str, str]:
    """The reader's: modules are found where they are found here."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # One thread: others would only take address space, which the reader limits.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # HDF5's word for no plugins: a file may name filters, which are code from the disk.
        "HDF5_PLUGIN_PRELOAD": "::",
    }


def _damaged(path: Path, received: str) -> SavedFileError:
    return SavedFileError(f"{path}: Expected a file of weights in the HDF5 format. Received: {received}")


def _death(number: int) -> str:
    if number == signal.SIGXCPU:
        return "a file on which the HDF5 library does not come to an end in the processor time for one of its size"
    return f"a file on which the HDF5 library crashes ({signal.Signals(number).name})"


def _require_h5py() -> None:
    if find_spec("h5py") is None:
        raise ImportError("Expected the package h5py, for files in the HDF5 format: pip install 'gradloom[keras]'")
