"""All callbacks of one call of `fit` or `evaluate`, called in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from gradloom.callbacks.callback import HOOKS, Callback

if TYPE_CHECKING:
    from gradloom.model import Model

UNCALLED = (
    "on_batch_begin",
    "on_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_predict_begin",
    "on_predict_end",
    "on_predict_batch_begin",
    "on_predict_batch_end",
)
"""Hooks that only Keras has."""


class CallbackList:
    """Calls each hook on all callbacks in turn, last on those that run last."""

    def __init__(self, callbacks: Iterable[Callback], model: Model, params: Mapping[str, Any]) -> None:
        self.model = model
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"Expected instances of gl.callbacks.Callback. Received: {callback!r}")
            if uncalled := [hook for hook in UNCALLED if hasattr(callback, hook)]:
                raise TypeError(
                    f"{type(callback).__name__}: Expected hooks among {', '.join(HOOKS)}. "
                    f"Received: {', '.join(uncalled)}, which would never be called"
                )
        self.callbacks.sort(key=lambda callback: callback.runs_last)
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)

    def overrides(self, *hooks: str) -> bool:
        """Whether a callback, its class or the instance, has a version of its own of one of these hooks."""
        return any(
            getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)
            for callback in self.callbacks
            for hook in hooks
        )

    def call(self, hook: str, *arguments: Any) -> None:
        """Call the hook of that name on every callback."""
        for callback in self.callbacks:
            getattr(callback, hook)(*arguments)

    def close(self) -> None:
        """Let every callback leave things tidy, also after the error of another one, which is raised at the end."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):  # It calls the last one first.
                stack.callback(callback.close)

    def states(self) -> list[tuple[str, dict[str, Any]]]:
        """The class and the state of every callback that has one; raises `TypeError` for what is no dict by strings."""
        pairs = [(type(callback).__name__, callback.get_state()) for callback in self.callbacks]
        for name, state in pairs:
            if not isinstance(state, dict):
                raise TypeError(f"{name}.get_state: Expected a dict. Received: {state!r}")
        return [(name, state) for name, state in pairs if state]

    def set_states(self, states: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Give callbacks their states back: those of one class in order.

        A callback that is new begins anew, and the state of one that is gone is passed over. What `set_state` raises is
        raised when all callbacks have the states again that they had; one that cannot tell its state keeps the new one.
        """
        before: list[tuple[Callback, dict[str, Any]]] = []
        try:
            for callback, state in self._owners(states):
                with suppress(Exception):
                    before.append((callback, callback.get_state()))
                callback.set_state(state)
        except Exception:
            for callback, own in before:
                with suppress(Exception):
                    callback.set_state(own)
            raise

    def _owners(self, states: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[Callback, Mapping[str, Any]]]:
        waiting = list(self.callbacks)
        for name, state in states:
            callback = next((one for one in waiting if type(one).__name__ == name), None)
            if callback is not None:
                waiting.remove(callback)
                yield callback, state
