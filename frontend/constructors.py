"""Constructors that name a wrong argument and the nearest right one, for layers, losses, metrics and the like."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

from gradloom.lookup import unknown_name


class Constructed:
    """The base of classes whose subclasses pass on arguments, `**options`, to their own base.

    Python would name the class at the end of the line: `Dense(3, activaton="relu")` is about `Dense`, not about the
    class that no argument is left for.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _naming_arguments(cls.__init__)  # type: ignore[method-assign]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an instance from what `get_config` returned."""
        return cls(**config)


class Arguments:
    """The arguments that an object was made with: no container, so that nobody looks inside for what it holds."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._args = args
        self._kwargs = kwargs

    def by_name(self, made: type) -> dict[str, Any]:
        """The arguments that an instance of this class was given, by name; `TypeError` for one without a name."""
        signature = inspect.signature(made.__init__)  # type: ignore[misc]
        bound = signature.bind(None, *self._args, **self._kwargs).arguments
        named: dict[str, Any] = {}
        for name, parameter in list(signature.parameters.items())[1:]:
            if name not in bound:
                continue
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= bound[name]
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                raise TypeError(f"{made.__name__}: Expected arguments that have names. Received: {bound[name]!r}")
            else:
                named[name] = bound[name]
        return named

    def __deepcopy__(self, memo: dict[int, Any]) -> Arguments:
        return self


def takes(made: type, argument: str) -> bool:
    """Whether a class takes an argument of this name."""
    return argument in _argument_names(made)


def _naming_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap an `__init__`: what is wrong about its arguments is told in terms of the class that is being made."""

    @functools.wraps(init)
    def wrapped(self: Constructed, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except TypeError:
            # Whether the call itself does not fit, or something inside failed.
            if not _fits(init, self, *args, **kwargs):
                known = _argument_names(type(self))
                for name in kwargs:
                    if name not in known:
                        raise TypeError(unknown_name(f"argument of {type(self).__name__}", name, known)) from None
            raise

    return wrapped


def _fits(init: Callable[..., None], *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(init).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _argument_names(made: type) -> list[str]:
    """The names of the arguments that a class takes: its own, and those of its bases as far as it passes others on."""
    names: dict[str, None] = {}
    for cls in made.__mro__:
        if "__init__" not in cls.__dict__ or cls is object:
            continue
        parameters = list(inspect.signature(cls.__dict__["__init__"]).parameters.values())[1:]
        names.update({p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)})
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(names)
