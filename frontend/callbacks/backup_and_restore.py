"""Going on with a training that was interrupted, as if it had not been."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.frequency import Frequency, SaveFrequency
from gradloom.callbacks.state import entry

if TYPE_CHECKING:
    from gradloom.training_run import TrainingRun

FILE = "checkpoint.safetensors"


class BackupAndRestore(Callback):
    """Keeps the state of training in a file; a `fit` that finds one goes on from there.

        model.fit(x, y, epochs=100, callbacks=[gl.callbacks.BackupAndRestore("backup")])

    Run again after a crash, a power failure or Ctrl-C, the same program ends with the same bits as one that was never
    interrupted: the file has weights, the optimizer's state, the epoch and the batch within it, running metrics, random
    state, and what callbacks noted (`Callback.get_state`; in Keras they begin anew). Python's and NumPy's own
    generators are not in it.

    backup_dir: the folder, made if it is missing; each training needs its own. save_freq: "epoch", or after how many
        batches to save, and then Python comes back after every batch, which costs time.
    delete_checkpoint: whether to delete the file when training ends, unless it had got farther than this `fit` was to.
        Where the file stays, `fit` with the same `epochs` does nothing more, and with more of them goes on, unless
        `stop_training`, as `EarlyStopping` sets it, ended the training: then it has ended.
    The file is replaced in one piece, with a checksum: at any moment it is the old one or the new one. Raises
    `SavedFileError` before anything is changed if the file is damaged, or of another model, losses, optimizer,
    number of samples or batch size, or, within an epoch, of other metrics; OSError naming the file when it cannot be
    written, and then the old one is there.
    """

    runs_last = True

    def __init__(
        self, backup_dir: str | os.PathLike[str], save_freq: Frequency = "epoch", delete_checkpoint: bool = True
    ) -> None:
        super().__init__()
        self.backup_dir = Path(backup_dir)
        self.delete_checkpoint = delete_checkpoint
        self._frequency = SaveFrequency(save_freq)
        if self._frequency.every is not None:
            self.on_train_batch_end = self._after_batch  # type: ignore[method-assign]

    @property
    def path(self) -> Path:
        """The file."""
        return self.backup_dir / FILE

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from gradloom.runtime.files import TEMPORARY, make_folder
        from gradloom.saving.checkpoint import Checkpoint

        make_folder(self.backup_dir)
        for left in self.backup_dir.glob(f"{TEMPORARY}*"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        if self.path.exists():
            Checkpoint.read(self.path).resume(self._run)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self._frequency.every is None:
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        # Of a training that has gone farther than this `fit` was to go, it is all that there is.
        got = self._run.epoch, self._run.training.batches
        if self.delete_checkpoint and got <= (self._run.end, 0):
            self.path.unlink(missing_ok=True)

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        if self._frequency.is_due():
            self._save()

    def _save(self) -> None:
        from gradloom.saving.checkpoint import Checkpoint

        Checkpoint.of(self._run).write(self.path)

    @property
    def _run(self) -> TrainingRun:
        assert self.model is not None and self.model.training_run is not None
        return self.model.training_run

    def get_state(self) -> dict[str, Any]:
        return {"batches": self._frequency.batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._frequency.batches = entry(state, "batches", int)
