"""Callbacks of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradloom.callbacks.callback import HOOKS, Callback


class LambdaCallback(Callback):
    """A callback of functions: `LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs["loss"]))`.

    Each takes what the hook of its name in `Callback` takes. Raises TypeError for a hook that there is not.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **more: Callable[..., Any] | None,
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **more,
        }
        for name, function in given.items():
            if name not in HOOKS:
                raise TypeError(f"LambdaCallback: Expected hooks among {', '.join(HOOKS)}. Received: {name!r}")
            if function is not None:
                if not callable(function):
                    raise TypeError(f"LambdaCallback: Expected functions. Received: {name}={function!r}")
                self.__dict__[name] = function
