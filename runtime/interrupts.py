"""Ctrl-C at points where everything is whole: held back elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class HeldBack:
    """Holds interrupts (SIGINT) back inside `with HeldBack() as interrupts:`, for `deliver` and the end to let happen.

    Python raises KeyboardInterrupt between any two instructions, also between those that write a program's results back
    to where they belong. In other threads than the main one, and where nobody handles SIGINT, nothing is held back.
    `with interrupts.let_through():` is for a callback inside: there, they happen at once.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._arrived: tuple[int, FrameType | None] | None = None
        self.open = False
        """Whether interrupts happen at once."""

    def __enter__(self) -> HeldBack:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A handler that was set inside, by a callback, stays.
        if self._handler is not None and signal.getsignal(signal.SIGINT) == self._receive:
            signal.signal(signal.SIGINT, self._handler)
        self.deliver()

    def deliver(self) -> None:
        """Let an interrupt happen that was held back."""
        if self._arrived is not None:
            (number, frame), self._arrived = self._arrived, None
            self._handle(number, frame)

    def let_through(self) -> _LetThrough:
        """Let interrupts happen at once inside a block."""
        return _LetThrough(self)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.open:
            self._handle(number, frame)
        else:
            self._arrived = number, frame

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # While one takes its course, others wait: what it passes on its way out is to be left whole.
        before, self.open = self.open, False
        assert self._handler is not None
        self._handler(number, frame)
        self.open = before


class _LetThrough:
    """The block of `HeldBack.let_through`."""

    def __init__(self, interrupts: HeldBack) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.open = True
        self._interrupts.deliver()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.open = False
