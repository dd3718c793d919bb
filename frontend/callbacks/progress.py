"""Loss, metrics and time per step on the screen: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

from gradloom.callbacks.callback import Callback, Logs
from gradloom.callbacks.lambda_callback import LambdaCallback

BAR_LAYOUT = "{desc}: {n_fmt}/{total_fmt} |{bar}|"
"""The fields of a progress bar, as tqdm names them."""

SHORTEST_BAR = 8
"""Columns of a bar that still shows something: beside it stands what leaves it as many."""


class ProgbarLogger(Callback):
    """Shows loss, metrics and time per step: `fit` adds it by itself unless `verbose=0`.

    With `verbose=1` (or "auto") a bar on a terminal while an epoch runs; then, or instead, one line per epoch:
    `Epoch 1/5 - 0.4s - 1.6ms/step - loss: 0.6142 - accuracy: 0.7881`.
    """

    def __init__(self, verbose: int | str = "auto") -> None:
        super().__init__()
        self._display = _Display(verbose)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._display.begin(f"Epoch {epoch + 1}/{self.params['epochs']}", self.params["steps"])

    def on_progress(self, batch: int, logs: Logs | None = None) -> None:
        self._display.show(batch, logs or {})

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._display.stop_clock()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._display.end(logs or {})

    def close(self) -> None:
        self._display.close()

    def clearing(self) -> Callback:
        """What takes the bar away before callbacks are told the end of something, and may print; to be called first."""
        return LambdaCallback(on_epoch_end=lambda *_: self._display.clear())


class TestLogger(Callback):
    """Shows loss, metrics and time per step of `evaluate`, in the form of `ProgbarLogger`."""

    __test__ = False  # no test case, for all its name

    def __init__(self, verbose: int | str = "auto") -> None:
        super().__init__()
        self._display = _Display(verbose)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._display.begin("Evaluation", self.params["steps"])

    def on_test_progress(self, batch: int, logs: Logs | None = None) -> None:
        self._display.show(batch, logs or {})

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._display.end(logs or {})

    def close(self) -> None:
        self._display.close()

    def clearing(self) -> Callback:
        """What takes the bar away before callbacks are told the end of something, and may print; to be called first."""
        return LambdaCallback(on_test_end=lambda *_: self._display.clear())


class _Display:
    """A bar on a terminal, or a line at the end."""

    def __init__(self, verbose: int | str) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"Expected verbose as 0, 1, 2 or 'auto'. Received: verbose={verbose!r}")
        self._as_bar = verbose in ("auto", 1) and is_terminal()
        self._bar: Any = None
        self._elapsed: float | None = None

    def begin(self, title: str, steps: int) -> None:
        self._title, self._steps = title, steps
        self._started = time.perf_counter()
        self._elapsed = None
        if self._as_bar:
            self._bar = open_bar(title, steps)

    def show(self, steps: int, logs: Logs) -> None:
        if self._bar is not None:
            update_bar(self._bar, steps, self._time(), logs)

    def stop_clock(self) -> None:
        """What follows is validation, which does not count as time of a step."""
        self._elapsed = self._time()

    def end(self, logs: Logs) -> None:
        self.clear()
        print(f"{self._title} - {format_line(self._time(), self._steps, logs)}", flush=True)

    def clear(self) -> None:
        """Take the bar away: a line comes into its place, and may be longer than the terminal is wide."""
        if self._bar is not None:
            self._bar.leave = False
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _time(self) -> float:
        return time.perf_counter() - self._started if self._elapsed is None else self._elapsed


def is_terminal() -> bool:
    """Whether standard output is a terminal: elsewhere a bar would flood a log file."""
    return sys.stdout is not None and sys.stdout.isatty()


def open_bar(title: str, steps: int | None) -> Any:
    """Start a progress bar on standard output."""
    from tqdm import tqdm  # loads slowly for what it is, and only a terminal needs it

    # tqdm itself shows nothing on a terminal that does not tell its size.
    columns, lines = shutil.get_terminal_size()
    size = {"ncols": columns - 1, "nrows": lines}
    return tqdm(total=steps, desc=title, bar_format=BAR_LAYOUT, file=sys.stdout, mininterval=0, **size)


def update_bar(bar: Any, steps: int, elapsed: float, logs: Logs) -> None:
    """Move a bar to `steps` and show time and values beside it, as many as leave it its shortest length."""
    bar.n = steps
    bar.ncols = shutil.get_terminal_size().columns - 1
    total = bar.total or 0
    taken = len(f"{bar.desc}: {total}/{total} || ") + SHORTEST_BAR
    values = _fitting(elapsed, steps, logs, bar.ncols - taken)
    # In the layout, since tqdm would set a comma before a postfix.
    bar.bar_format = f"{BAR_LAYOUT} {values.replace('{', '{{').replace('}', '}}')}".rstrip()
    bar.refresh()


def _fitting(elapsed: float, steps: int, logs: Logs, columns: int) -> str:
    """Time and values in so many columns: where these are too few, times are left out, and then the last values."""
    time_parts, values = _time_parts(elapsed, steps), _value_parts(logs)
    choices = [[*time_parts, *values], [*time_parts[1:], *values], values]
    choices += [[*values[:count], "…"] for count in range(len(values) - 1, 0, -1)]
    lines = (" - ".join(parts) for parts in choices)
    return next((line for line in lines if len(line) <= columns), "")


def format_line(elapsed: float, steps: int | None, logs: Logs) -> str:
    """`0.4s - 1.6ms/step - loss: 0.6142`."""
    return " - ".join([*_time_parts(elapsed, steps), *_value_parts(logs)])


def _time_parts(elapsed: float, steps: int | None) -> list[str]:
    return [f"{elapsed:.1f}s", *([f"{_duration(elapsed / steps)}/step"] if steps else [])]


def _value_parts(logs: Logs) -> list[str]:
    """Values with four decimals; small ones, but not 0, with an exponent."""
    return [f"{name}: {value:{'.4e' if 0 < abs(value) <= 1e-3 else '.4f'}}" for name, value in logs.items()]


def _duration(seconds: float) -> str:
    """A time in the unit in which it reads best."""
    if seconds >= 1:
        return f"{seconds:.1f}s"
    return f"{seconds * 1e3:.1f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"
