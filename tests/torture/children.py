"""Functions run in processes of their own, and watched: a crash there, or a hang, is a failure that says where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 900
"""Seconds after which a child prints what each of its threads does, and ends; none should come near."""

SCRIPT = """
import faulthandler, importlib, json, signal, sys

faulthandler.enable()
# An alarm: faulthandler's own timer is a thread, for which a forked child would wait for ever.
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm({patience})
sys.path[:0] = {path!r}
function = getattr(importlib.import_module({module!r}), {name!r})
print(json.dumps(function(**json.loads(sys.argv[1]))))
"""


class Child:
    """A process that calls a function of a module with arguments that JSON knows."""

    def __init__(self, function: Callable[..., Any], environment: dict[str, str], arguments: dict[str, Any]) -> None:
        path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
        script = SCRIPT.format(patience=PATIENCE, path=path, module=function.__module__, name=function.__name__)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, json.dumps(arguments)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def result(self) -> Any:
        """What the function returned; an `AssertionError` with what it wrote to stderr if it did not."""
        try:
            out, err = self._process.communicate(timeout=PATIENCE + 60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            out, err = self._process.communicate()
        assert self._process.returncode == 0, f"exit code {self._process.returncode}\n{out}\n{err}"
        return json.loads(out.splitlines()[-1])


def start(function: Callable[..., Any], environment: dict[str, str] | None = None, **arguments: Any) -> Child:
    """Begin to call `function` in a process of its own, with these variables besides those of this environment."""
    return Child(function, environment or {}, arguments)


def call(function: Callable[..., Any], environment: dict[str, str] | None = None, **arguments: Any) -> Any:
    """Call `function` in a process of its own and return its result."""
    return start(function, environment, **arguments).result()


def call_each(functions: list[Callable[[], Child]], together: int) -> list[Any]:
    """The results of children, of which so many run at a time."""
    results: list[Any] = []
    running: list[Child] = []
    for begin in functions:
        if len(running) == together:
            results.append(running.pop(0).result())
        running.append(begin())
    return results + [child.result() for child in running]
