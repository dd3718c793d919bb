"""Numbers of epochs and batches: how often something is saved, how long something is waited for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Frequency = Literal["epoch"] | int


def count(number: Any, owner: str, argument: str) -> int:
    """Return a number of epochs, which is an integer from 0 on."""
    if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 0:
        raise ValueError(f"{owner}: Expected {argument} as an integer from 0 on. Received: {argument}={number!r}")
    return int(number)


class SaveFrequency:
    """Counts batches across epochs, and says when there were as many as `save_freq`."""

    def __init__(self, save_freq: Any) -> None:
        is_count = isinstance(save_freq, (int, np.integer)) and not isinstance(save_freq, bool) and save_freq >= 1
        if not (is_count or save_freq == "epoch"):
            raise ValueError(
                f"Expected save_freq as 'epoch' or a positive number of batches. Received: save_freq={save_freq!r}"
            )
        self.every = None if save_freq == "epoch" else int(save_freq)
        """The number of batches; None for "epoch"."""
        self.batches = 0
        """How many there were since it was due."""

    def is_due(self) -> bool:
        """Count one batch; whether it is time."""
        self.batches += 1
        if self.every is None or self.batches < self.every:
            return False
        self.batches = 0
        return True
