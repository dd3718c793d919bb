"""Fashion-MNIST: 28×28 grey pictures of ten kinds of clothing, found on disk or downloaded."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.datasets.download import DownloadError, cache_folder, fetch
from gradloom.datasets.idx import DataFileError, read_idx
from gradloom.datasets.synthetic_fashion import CLASS_NAMES, Split

__all__ = ["CLASS_NAMES", "DataNotFoundError", "load_data"]

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
"""Where the data set's authors publish it."""

MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""The four files, without `.gz`, and the checksums of the published, compressed ones."""


class DataNotFoundError(GradloomError, FileNotFoundError):
    """No place holds the data set, and it cannot be downloaded; the message lists every place that was tried."""


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Split, Split]:
    """Load the data set from the first place that has it.

    The places, in order: the folder `path`, the folder `$GRADLOOM_DATA`, the user's cache folder
    (`$XDG_CACHE_HOME/gradloom/fashion-mnist`, by default below `~/.cache`), the publisher's server, from which it is
    downloaded into the cache folder. A folder has the data set when all four IDX files lie there, under their published
    names, with or without `.gz`; any number of pictures is accepted, as their headers say. A folder that was asked for
    and lacks files is passed over with a warning.

    Returns `(x_train, y_train), (x_test, y_test)`: x u8[n, 28, 28], y u8[n] with labels 0…9, named in `CLASS_NAMES`.
    Raises DataNotFoundError when no place has it, and DataFileError when a file is corrupt or does not fit its pair.
    """
    tried: list[str] = []
    for origin, folder in _requested_folders(path):
        missing = _missing(folder)
        if not missing:
            return _read_instead_of(tried, folder)
        tried.append(f"{origin}: {_describe(folder, missing)}")

    cache = cache_folder("fashion-mnist")
    asked = list(tried)
    if not os.environ.get("GRADLOOM_DATA"):
        tried.append("$GRADLOOM_DATA: not set")
    missing = _missing(cache)
    if missing:
        tried.append(f"folder of downloads: {_describe(cache, missing)}")
        try:
            _download(cache, missing)
        except DownloadError as error:
            tried.append(f"download: {error}")
            places = "".join(f"\n  {place}" for place in tried)
            raise DataNotFoundError(
                f"Fashion-MNIST was not found. Expected the files {', '.join(f'{name}[.gz]' for name in MD5)} "
                f"in one folder. Tried:{places}\n"
                f"Give the folder as load_data(path) or in the environment variable GRADLOOM_DATA"
            ) from error
    return _read_instead_of(asked, cache)


def _requested_folders(path: str | os.PathLike[str] | None) -> list[tuple[str, Path]]:
    """The folders that the user named, each with how."""
    folders = []
    if path is not None:
        folders.append(("path", Path(path).expanduser()))
    if named := os.environ.get("GRADLOOM_DATA"):
        folders.append(("$GRADLOOM_DATA", Path(named).expanduser()))
    return folders


def _find(folder: Path, name: str) -> Path | None:
    """The file in the folder, compressed or plain."""
    return next((file for file in (folder / f"{name}.gz", folder / name) if file.is_file()), None)


def _missing(folder: Path) -> list[str]:
    return [name for name in MD5 if _find(folder, name) is None]


def _describe(folder: Path, missing: list[str]) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder"
    if len(missing) == len(MD5):
        return f"{folder} has none of the files"
    return f"{folder} lacks {', '.join(f'{name}[.gz]' for name in missing)}"


def _download(folder: Path, names: list[str]) -> None:
    for name in names:
        fetch(f"{URL}/{name}.gz", folder / f"{name}.gz", MD5[name])


def _read_instead_of(passed_over: list[str], folder: Path) -> tuple[Split, Split]:
    """Read the data set from the folder; whoever named other folders is told that they were not used."""
    if passed_over:
        warnings.warn(
            f"Fashion-MNIST is taken from {folder}, since not found in {'; '.join(passed_over)}", stacklevel=3
        )
    return _read_folder(folder)


def _read_folder(folder: Path) -> tuple[Split, Split]:
    train, test = _read_pair(folder, "train"), _read_pair(folder, "t10k")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataFileError(
            f"{folder}: training and test images differ in size. Expected: {train[0].shape[1:]} as in the training "
            f"images. Received: {test[0].shape[1:]}"
        )
    return train, test


def _read_pair(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    images_file, labels_file = (_find(folder, f"{prefix}-{part}-ubyte") for part in ("images-idx3", "labels-idx1"))
    assert images_file is not None
    assert labels_file is not None
    images, labels = read_idx(images_file, rank=3), read_idx(labels_file, rank=1)
    if len(images) != len(labels):
        raise DataFileError(
            f"Images and labels are no pair. Expected: as many labels as the {len(images)} images in {images_file}. "
            f"Received: {len(labels)} labels in {labels_file}"
        )
    return images, labels
