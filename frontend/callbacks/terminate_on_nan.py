"""Ending training when the loss is no number any more."""

from __future__ import annotations

import math

from gradloom.callbacks.callback import Callback, Logs


class TerminateOnNaN(Callback):
    """Ends training after the first batch with which the epoch's running loss is NaN or infinite.

    raise_error: raise RuntimeError instead of printing a line. Python comes back after every batch, which costs time.
    The weights are then NaN already: which op made the first one says `compile(check_numerics=True)`.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        message = f"Batch {batch + 1} of epoch {self._epoch + 1}: the loss is {loss}; training ends"
        if self.raise_error:
            raise RuntimeError(message)
        print(message)
        assert self.model is not None
        self.model.stop_training = True
