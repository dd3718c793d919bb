"""Epochs as lines of a file of comma-separated values."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from types import NoneType
from typing import Any

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.state import entry

MISSING = "NA"
"""What stands for a value that an epoch does not have."""


class CSVLogger(Callback):
    """Writes a line for each epoch to a file: its number, counted from 0, then losses and metrics by name.

    separator: between values. append: keep the lines that are there, for training that goes on; otherwise the first
    line of values replaces the file. Each line is handed to the system at the end of its epoch. Where
    `BackupAndRestore` goes on with an interrupted training, lines that are not of the training so far are cut off.
    Raises OSError naming the file when it cannot be written; it has whole lines only.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        if not isinstance(separator, str) or len(separator) != 1 or separator in '\r\n"':
            raise ValueError(f"CSVLogger: Expected a separator of one character. Received: separator={separator!r}")
        self.filename = filename
        self.separator = separator
        self.append = append
        self.keys: list[str] | None = None
        self._file: io.FileIO | None = None
        self._kept = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        # Opened now, so that a path that cannot be written is told before hours of training; emptied later.
        self._file = open(self.filename, "ab", buffering=0)  # noqa: SIM115 (`close` closes it)
        self._kept = self._size() if self.append else 0
        self.keys = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        assert self._file is not None
        logs = {} if logs is None else logs
        lines = []
        if self.keys is None:
            self.keys = self._all_keys(logs)
            lines += [["epoch", *self.keys]] if self._kept == 0 else []
        lines.append([str(epoch), *(repr(float(logs[key])) if key in logs else MISSING for key in self.keys)])
        try:
            self._cut()
            text = self._text(lines)
            while text:
                text = text[self._file.write(text) :]
        except OSError as error:
            error.filename = os.fspath(self.filename)
            with suppress(OSError):
                self._cut()  # off the half of a line that there was space for
            raise
        self._kept = self._size()

    def _cut(self) -> None:
        assert self._file is not None
        if self._size() > self._kept:
            self._file.truncate(self._kept)

    def _text(self, lines: list[list[str]]) -> bytes:
        import csv

        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self.separator).writerows(lines)
        return text.getvalue().encode()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def get_state(self) -> dict[str, Any]:
        return {"bytes": self._kept, "keys": self.keys}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._kept = min(max(entry(state, "bytes", int), 0), self._size())
        self.keys = entry(state, "keys", list, NoneType)
        if not all(isinstance(key, str) for key in self.keys or ()):
            raise TypeError(f"Expected keys as names. Received: {self.keys!r}")

    def _all_keys(self, logs: Logs) -> list[str]:
        """The first epoch's names in order, and those that a validation in later epochs brings."""
        names = set(logs)
        if self.params.get("do_validation"):
            assert self.model is not None
            names.update(f"val_{name}" for name in self.model.metrics_names)
        return sorted(names)

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file.fileno()).st_size
