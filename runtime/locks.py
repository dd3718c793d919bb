"""Locks that a forked child finds free: the thread that held one at the fork is not there to release it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

Lock = AbstractContextManager[bool]


def new_lock(owner: object, attribute: str, make: Callable[[], Lock] = threading.Lock) -> Lock:
    """Return a lock that `owner` is to keep as `attribute`: in a forked child it finds another one there.

    What the lock guards must be whole whenever a thread may be interrupted: the other thread gets no further. A thread
    that forks inside `with` leaves that block by the lock that it took.
    """
    _attributes.setdefault(owner, {})[attribute] = make
    return make()


_attributes: WeakKeyDictionary[object, dict[str, Callable[[], Lock]]] = WeakKeyDictionary()


def _renew() -> None:
    for owner, attributes in list(_attributes.items()):
        for attribute, make in attributes.items():
            setattr(owner, attribute, make())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
