"""Formats that are damaged: valid files, ways to damage them, and what must hold of one that is read all the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random

from malformed.mutators import Mutator, damaged

MODULES = {
    "idx": "data_sets",
    "gzip": "data_sets",
    "cfg": "darknet_files",
    "weights": "darknet_files",
    "safetensors": "saved_models",
    "gradloom": "saved_models",
    "h5": "saved_models",
    "started": "saved_models",
    "ir": "graphs",
    "cache": "cache_entries",
    "faulty": "faulty",
}
"""Where each format is, by name: a process imports no other."""


class Format(ABC):
    """Made once in each process, in a folder of its own."""

    corpus: Sequence[bytes]
    mutators: Sequence[Mutator]
    suffix: str = ""

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Make the valid files."""

    def mutant(self, rng: Random) -> bytes:
        """A damaged file."""
        return damaged(rng, self.corpus, self.mutators)

    @abstractmethod
    def read(self, path: Path, content: bytes) -> str:
        """Read the file, which holds `content`, and return "read", or another word for what came of it.

        Raises what the reader raises, and `AssertionError` for what is wrong.

        What was read must be well formed; where the format says enough, by an oracle that shares no code with it.
        """


def load(name: str, folder: Path) -> Format:
    """The format of this name."""
    made: Format = getattr(import_module(f"malformed.{MODULES[name]}"), f"{name.capitalize()}Format")(folder)
    return made
