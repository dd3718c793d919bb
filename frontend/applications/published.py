"""What the authors of Darknet53 publish: its weights and the names of its classes, downloaded once into the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradloom.compiler.errors import GradloomError
from gradloom.datasets.download import DownloadError, cache_folder, fetch


class FileNotAvailableError(GradloomError, FileNotFoundError):
    """A published file was neither downloaded before nor is within reach; the message says what to do."""


@dataclass(frozen=True)
class Published:
    """A file on a server: its address, and its size, by which a whole download is known."""

    url: str
    size: int

    @property
    def cached(self) -> Path:
        """Where it lies once it was downloaded."""
        return cache_folder("darknet53") / self.url.rsplit("/", 1)[-1]

    def get(self) -> Path:
        """Return the cached file, downloading it if it isn't there yet.

        Raises FileNotAvailableError when it cannot be downloaded, or when another file lies in its place.
        """
        received = self.cached.stat().st_size if self.cached.exists() else self.size
        if received != self.size:
            raise FileNotAvailableError(
                f"{self.cached}: Expected the file published at {self.url}, of {self.size} bytes. "
                f"Received: {received} bytes. Delete it, and it is downloaded anew"
            )
        try:
            fetch(self.url, self.cached, size=self.size)
        except DownloadError as error:
            raise FileNotAvailableError(
                f"{self.cached.name} is neither in the folder of downloads nor within reach: {error}\n"
                f"Download {self.url} ({self.size} bytes) where that is possible, and put it at {self.cached}"
            ) from error
        return self.cached


WEIGHTS = Published("https://pjreddie.com/media/files/darknet53.weights", 166_582_580)
"""Trained on ImageNet's 1000 classes by Joseph Redmon."""

LABELS = Published("https://raw.githubusercontent.com/pjreddie/darknet/master/data/imagenet.shortnames.list", 10_473)
"""The names of those classes, a line each."""


def weights_file() -> Path:
    """Return the published weights of Darknet53, from the cache, or else downloaded (167 MB, with a progress bar).

    Raises FileNotAvailableError, which says what to do, when they cannot be downloaded.
    """
    return WEIGHTS.get()


def labels_file() -> Path:
    """Return the file with the names of ImageNet's classes in the order of the published weights.

    Raises FileNotAvailableError when it cannot be downloaded.
    """
    return LABELS.get()
