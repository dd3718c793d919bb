"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any, TypeVar, overload

T = TypeVar("T")

_MISSING: Any = object()


class cached_property(functools.cached_property[T]):
    """As `functools.cached_property`, and computed by one thread: others that ask for the same attribute wait for it.

    Nobody waits for the attribute of another object, as for functools' in Python 3.11; nor does a forked child for a
    thread that is not there.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> cached_property[T] | T:
        if instance is None:
            return self
        known, name = instance.__dict__, self.attrname
        assert name is not None
        value: T = known.get(name, _MISSING)
        if value is _MISSING:
            making = f"{name} is made in {os.getpid()}"
            with known.setdefault(making, threading.RLock()):
                value = known.get(name, _MISSING)
                if value is _MISSING:
                    value = known[name] = self.func(instance)
            known.pop(making, None)  # not after an error: it is the lock of who tries again
        return value
