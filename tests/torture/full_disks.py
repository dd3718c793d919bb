"""Trains where files can only grow to some length, at another point each time.

    PYTHONPATH=tests python tests/torture/full_disks.py FOLDER POINTS SEED tmpfs | limit

tmpfs: on a file system of its own, mounted here, which is full at that point; for that the process has to be alone
with its mounts (`unshare -m`). limit: the process is not allowed larger files. Prints how many trainings there were;
each has to end with an OSError.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import trainings

import gradloom as gl
from gradloom.saving.checkpoint import Checkpoint
from small_files import small_files

SIZE = 4 << 20
"""Bytes of the file system."""
PAGE = 4096


@contextmanager
def full_file_system(folder: Path, free: int) -> Iterator[None]:
    """Leave only so many bytes free, to the page."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        state = os.statvfs(folder)
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - free)))
    try:
        yield
    finally:
        filler.unlink()


def main(folder: Path, points: int, seed: int, way: str) -> None:
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    if way == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], check=True)
    full, error_number = (
        (full_file_system, errno.ENOSPC) if way == "tmpfs" else (lambda _, free: small_files(free), errno.EFBIG)
    )
    backup = folder / "backup"

    def saving() -> gl.callbacks.BackupAndRestore:
        return gl.callbacks.BackupAndRestore(backup, delete_checkpoint=False)

    one_epoch = trainings.new_model()
    trainings.fit(one_epoch, [saving()], epochs=1)
    size = saving().path.stat().st_size
    two_epochs = trainings.new_model()
    trainings.fit(two_epochs, epochs=2)
    expected = trainings.fit(trainings.new_model())
    for point in range(points):
        free = rng.randrange(0, size - PAGE)
        shutil.rmtree(backup)
        model = trainings.new_model()
        trainings.fit(model, [saving()], epochs=1)
        old = saving().path.read_bytes()
        model = trainings.new_model()
        with pytest.raises(OSError, match="checkpoint.safetensors") as error, full(folder, free):
            trainings.fit(model, [saving()])
        assert error.value.errno == error_number and error.value.filename == str(saving().path)
        assert saving().path.read_bytes() == old and os.listdir(backup) == [saving().path.name]
        Checkpoint.read(saving().path)
        assert trainings.digest(model) == trainings.digest(two_epochs), "the epoch is done, the backup is not"
        assert np.isfinite(model.predict(trainings.data()[0])).all()
        assert trainings.fit(trainings.new_model(), [saving()]) == expected, f"resumed otherwise: point {point}"
        trainings.fit(model, epochs=3)  # it can still be trained
    print(points)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
