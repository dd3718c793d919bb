"""The random seed, and independent streams of random numbers drawn from it by counting.

Streams come from the counter-based generator Philox (Salmon et al. 2011), keyed by (seed, stream number): what a
stream yields depends on these two numbers alone, not on who drew before or on how many threads run.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Stream(ISeedSequence):
    """The key of a sequence of random numbers; stream 0 of a seed is the one a user's own `seed=` stands for.

    It is a seed sequence in NumPy's sense: told a bare key, Philox would first ask the system for entropy, in vain.
    """

    seed: int
    number: int

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The key, in the two 64-bit words that Philox asks for."""
        key: np.ndarray = np.array([self.seed & _MASK, self.number], np.uint64).view(dtype)
        return key[:n_words]

    def generator(self) -> np.random.Generator:
        """A NumPy generator at the stream's beginning: equal streams yield equal numbers."""
        return np.random.Generator(np.random.Philox(self))  # type: ignore[arg-type]


class _Streams:
    """The current seed, and how many streams were taken from it."""

    def __init__(self) -> None:
        self.restart(secrets.randbits(63))

    def restart(self, seed: int) -> None:
        self.seed = seed
        self.taken = 0

    def take(self) -> Stream:
        self.taken += 1
        return Stream(self.seed, self.taken)


_streams = _Streams()


def set_random_seed(seed: int) -> None:
    """Make everything random that follows repeatable: weights, shuffling, and Python's and NumPy's own `random`.

    Two runs that set the same seed and build the same layers in the same order get the same weights bit by bit.
    Raises `ValueError` for a seed that is no integer in [0, 2³²), NumPy's range.
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 1 << 32:
        raise ValueError(f"Expected the seed as an integer in [0, 2**32). Received: {seed!r}")
    random.seed(int(seed))
    np.random.seed(int(seed))
    _streams.restart(int(seed))


def streams_taken() -> tuple[int, int]:
    """The session's seed, and how many streams were taken from it: where `go_on` goes on."""
    return _streams.seed, _streams.taken


def go_on(seed: int, taken: int) -> None:
    """Let the next stream be the one that follows on `taken` streams of a seed."""
    _streams.seed, _streams.taken = seed, taken


def new_stream(seed: int | None = None) -> Stream:
    """Return the next stream of the session's seed, or the one that belongs to an explicit `seed`."""
    return _streams.take() if seed is None else Stream(int(seed), 0)
