"""Provenance: the layer, the user's line and the forward node that a node came from, by the scopes it was built in."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Provenance:
    """Where a node came from: layer path, the user's `file:line`, for a gradient node its forward node's number.

    `node` is its own number in a graph that is being followed through later stages, else None.
    """

    layer: str = ""
    source: str = ""
    forward: int | None = None
    node: int | None = None

    def __str__(self) -> str:
        return ", ".join(part for part in (self.layer, self.source) if part)


_layer: ContextVar[str] = ContextVar("layer", default="")
_owner: ContextVar[str] = ContextVar("owner", default="")
_source: ContextVar[tuple[FrameType, str] | None] = ContextVar("source", default=None)
_origins: ContextVar[frozenset[Provenance] | None] = ContextVar("origins", default=None)


@contextmanager
def layer_scope(name: str) -> Iterator[None]:
    """Nodes built inside belong to layer `name`, below the layers around it (`outer/inner`)."""
    path = f"{_layer.get()}/{name}" if _layer.get() else name
    token = _layer.set(path)
    try:
        yield
    finally:
        _layer.reset(token)


@contextmanager
def owner_scope(name: str) -> Iterator[None]:
    """Nodes built inside, but outside of any layer, belong to `name`."""
    token = _owner.set(name)
    try:
        yield
    finally:
        _owner.reset(token)


@contextmanager
def source_scope(source: str) -> Iterator[None]:
    """Nodes that Gradloom's own code builds inside come from the line `source`, unless the user's code calls it there.

    A layer is applied whenever a program is needed; where it was made says more than where that happened.
    """
    # The frames of this generator and of its `__enter__` lie above the one that has the `with`.
    token = _source.set((sys._getframe(2), source) if source else _source.get())
    try:
        yield
    finally:
        _source.reset(token)


@contextmanager
def origin_scope(origins: Iterable[Provenance]) -> Iterator[None]:
    """Nodes built inside come from `origins` instead of the current layer and line: gradients use it."""
    token = _origins.set(frozenset(origins))
    try:
        yield
    finally:
        _origins.reset(token)


def current_origins() -> frozenset[Provenance]:
    """Where nodes that are built now come from."""
    origins = _origins.get()
    return frozenset([current_provenance()]) if origins is None else origins


def current_provenance() -> Provenance:
    """The current layer path, and the user's line."""
    return Provenance(_layer.get() or _owner.get(), user_line())


def user_line() -> str:
    """`file:line` of the innermost frame of the user's code, or of the `source_scope` inside of it; "" without any."""
    frame: FrameType | None = sys._getframe(1)
    scope, source = _source.get() or (None, "")
    while frame is not None:
        if frame is scope:
            return source
        if _is_users(frame):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _is_users(frame: FrameType) -> bool:
    """Whether a frame belongs neither to Gradloom nor to Python's library; a script has no module specification."""
    spec = frame.f_globals.get("__spec__")
    top = "" if spec is None else spec.name.partition(".")[0]
    return top != "gradloom" and top not in sys.stdlib_module_names
