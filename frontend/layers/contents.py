"""What a layer holds: the layers and variables among its attributes, also inside of containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import NoneType
from typing import Any, TypeVar

T = TypeVar("T")

_ATOMS = (str, int, float, NoneType)
"""What most attributes are, and what holds nothing: told at once, where `Mapping` asks a slow question."""


def held(values: Iterable[Any], kind: type[T]) -> list[T]:
    """Return each instance of `kind` among `values` once: itself, or in (nested) lists, tuples, dicts and sets.

    What is in a set comes in the order of its names, which is the same in every run.
    """
    return list(dict.fromkeys(_within(values, kind, set())))


def _within(values: Iterable[Any], kind: type[T], open_containers: set[int]) -> Iterator[T]:
    for value in values:
        if isinstance(value, kind):
            yield value
        elif isinstance(value, _ATOMS):
            continue
        elif isinstance(value, (list, tuple, Mapping, set, frozenset)) and id(value) not in open_containers:
            inside: Iterable[Any] = value
            if isinstance(value, Mapping):
                inside = value.values()
            elif isinstance(value, (set, frozenset)):
                inside = sorted(value, key=_name)
            yield from _within(inside, kind, open_containers | {id(value)})


def held_by_path(attributes: Mapping[str, Any], kind: type[T]) -> dict[str, T]:
    """Return what `held` does, each by the way to it: "encoder", "blocks/0", "heads/left"."""
    found: dict[T, str] = {}
    _note_paths(attributes, kind, "", (), found)
    return {path: item for item, path in found.items()}


def _note_paths(items: Mapping[Any, Any], kind: type[T], path: str, open_containers: Any, found: dict[T, str]) -> None:
    for name, value in items.items():
        if isinstance(value, kind):
            found.setdefault(value, f"{path}{name}")
        elif isinstance(value, _ATOMS) or id(value) in open_containers:
            continue
        elif isinstance(value, (list, tuple, Mapping, set, frozenset)):
            inside = sorted(value, key=_name) if isinstance(value, (set, frozenset)) else value
            numbered = inside if isinstance(inside, Mapping) else dict(enumerate(inside))
            _note_paths(numbered, kind, f"{path}{name}/", (*open_containers, id(value)), found)


def _name(item: Any) -> str:
    return str(getattr(item, "path", getattr(item, "name", "")))


class SetByInit:
    """An attribute that `Layer.__init__` sets; without it, it says that a subclass forgot to call its base's."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        made = type(layer).__name__
        raise AttributeError(
            f"{made!r} object has no attribute {self._name!r}: Expected {made}.__init__ to begin with "
            "super().__init__()"
        )
