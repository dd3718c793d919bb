"""The hook by which functions of values are recorded when they are called on symbolic tensors of a model."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Recorded(ABC):
    """What calls are recorded on instead of carried out: `gradloom.symbolic.SymbolicTensor`.

    It is known here by this base alone, so that the functions need not import what they are recorded in.
    """

    @abstractmethod
    def record_call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call that this is among the arguments of; return what stands for its result."""


def recordable(function: Callable[P, R]) -> Callable[P, R]:
    """Let `function` record itself when an argument, or an item of a list that is one, is symbolic.

    A function that it returns (`custom_gradient` does) is recordable, too.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        symbolic = find_recorded((*args, *kwargs.values()))
        if symbolic is not None:
            recorded: R = symbolic.record_call(function, args, kwargs)
            return recorded
        result = function(*args, **kwargs)
        return recordable(result) if isinstance(result, FunctionType) else result  # type: ignore[return-value]

    return call


def find_recorded(arguments: Iterable[Any]) -> Recorded | None:
    """Return the first symbolic tensor among arguments and their items, if any."""
    for argument in arguments:
        if isinstance(argument, Recorded):
            return argument
        if isinstance(argument, (list, tuple)):
            found = find_recorded(argument)
        elif isinstance(argument, dict):
            found = find_recorded(argument.values())
        else:
            continue
        if found is not None:
            return found
    return None
