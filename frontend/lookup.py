"""Finding things by name: "relu", "glorot_uniform", "mse", with the nearest known names when there is none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from gradloom.naming import snake_case

T = TypeVar("T")


class Catalogue(Generic[T]):
    """What can be asked for by name, of one kind ("activation", "loss", …).

    Every thing has a main name and may have others; a class is also found by its own name: "glorot_uniform" and
    "GlorotUniform".
    """

    def __init__(self, kind: str, things: Mapping[str, T]) -> None:
        self.kind = kind
        self.names = list(things)
        self._things: dict[str, T] = {}
        for name, thing in things.items():
            self._things[name] = thing
            if isinstance(thing, type):
                self._things.setdefault(thing.__name__, thing)

    def find(self, name: str) -> T:
        """Return the thing of this name; raise `ValueError` naming the nearest ones when there is none."""
        for spelling in (name, snake_case(name), name.lower()):
            if spelling in self._things:
                return self._things[spelling]
        raise ValueError(unknown_name(self.kind, name, self.names))

    def configured(self, config: Mapping[str, Any]) -> Any:
        """Return the instance that `{"class_name": …, "config": {…}}` describes."""
        thing: Any = self.find(str(config["class_name"]))
        return thing(**config.get("config", {}))


def unknown_name(kind: str, received: str, known: list[str]) -> str:
    """Return the message for an unknown name: the nearest known ones first, then all of them."""
    close = difflib.get_close_matches(snake_case(received), known, n=3, cutoff=0.5)
    nearest = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"Unknown {kind}.{nearest} Expected one of: {', '.join(sorted(known))}. Received: {received!r}"


def not_understood(kind: str, received: object) -> TypeError:
    """Return the error for something that is no name, callable or instance."""
    return TypeError(f"Expected the {kind}'s name, a callable or an instance. Received: {received!r}")
