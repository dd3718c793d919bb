"""Finding things by name: "relu", "glorot_uniform", "mse", with the nearest known names when there is none."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
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


class ClassCatalogue(Catalogue[type[T]]):
    """Classes that can be asked for by name, all with the base class `base`, whose instances are wanted.

    of_function: makes an instance of a function of the user's own, where one may stand in for an instance.
    """

    def __init__(
        self, kind: str, base: type, things: Mapping[str, type[T]], of_function: Callable[[Any], T] | None = None
    ) -> None:
        super().__init__(kind, things)
        self._base = base
        self._of_function = of_function

    def get(self, identifier: Any, **arguments: Any) -> T:
        """Return the instance that a name, a class, a `{"class_name", "config"}` mapping or a function stands for.

        An instance is returned itself; `arguments` are for one that is made by name. Raises `ValueError` naming the
        nearest known names for an unknown one, `TypeError` for anything else.
        """
        is_class = isinstance(identifier, type)
        made: Any
        if isinstance(identifier, str):
            made = self._make(identifier, arguments)
        elif isinstance(identifier, Mapping) and "class_name" in identifier:
            made = self._make(str(identifier["class_name"]), identifier.get("config", {}))
        elif is_class and issubclass(identifier, self._base):
            made = identifier()
        elif isinstance(identifier, self._base):
            made = identifier
        elif callable(identifier) and not is_class and self._of_function is not None:
            made = self._of_function(identifier)
        else:
            raise not_understood(self.kind, identifier)
        return made  # type: ignore[no-any-return]

    def _make(self, name: str, arguments: Mapping[str, Any]) -> T:
        make: Callable[..., T] = self.find(name)
        return make(**arguments)


def unknown_name(kind: str, received: str, known: list[str]) -> str:
    """Return the message for an unknown name: the nearest known ones first, then all of them."""
    close = difflib.get_close_matches(snake_case(received), known, n=3, cutoff=0.5)
    nearest = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return f"Unknown {kind}.{nearest} Expected one of: {', '.join(sorted(known))}. Received: {received!r}"


def not_understood(kind: str, received: object) -> TypeError:
    """Return the error for something that is no name, callable or instance."""
    return TypeError(f"Expected the {kind}'s name, a callable or an instance. Received: {received!r}")
