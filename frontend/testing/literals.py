"""Values as expressions in Python that make them again: arrays, containers, dataclasses, what modules define."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
import types
import zlib
from typing import Any

import numpy as np

LINE = 80
"""Characters up to which an array stays on one line."""

WRITTEN_OUT = 200
"""Elements of the largest array that is written number by number."""


class NoLiteralError(ValueError):
    """No expression makes this value again."""


def literal(value: Any, imports: set[str]) -> str:
    """Return an expression for a value; `imports` gets the lines that it needs. Raises `NoLiteralError`."""
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), imports)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes, slice, range):
        return repr(value)
    if isinstance(value, type | types.FunctionType):
        return _defined(value, imports)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _container(value, imports)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        inside = ", ".join(f"{name}={literal(getattr(value, name), imports)}" for name in names)
        cls = type(value)
        # Those of this package are public one module further up.
        module = cls.__module__.removesuffix(".strategies").removesuffix(".layer_strategies")
        if module == cls.__module__:
            return f"{_defined(cls, imports)}({inside})"
        imports.add(f"from {module} import {cls.__name__}")
        return f"{cls.__name__}({inside})"
    raise NoLiteralError(repr(value))


def _defined(value: type | types.FunctionType, imports: set[str]) -> str:
    """A class or function by the module that defines it."""
    module, name = value.__module__, value.__qualname__
    if module == "builtins":
        return name
    if module == "__main__" or "<" in name:
        raise NoLiteralError(repr(value))
    imports.add(f"import {module}")
    return f"{module}.{name}"


def _container(value: Any, imports: set[str]) -> str:
    if isinstance(value, dict):
        text = ", ".join(f"{literal(key, imports)}: {literal(part, imports)}" for key, part in value.items())
        made = f"{{{text}}}"
    else:
        inside = ", ".join(literal(part, imports) for part in value)
        if hasattr(value, "_fields"):
            return f"{_defined(type(value), imports)}({inside})"
        if isinstance(value, tuple):
            made = f"({inside},)" if len(value) == 1 else f"({inside})"
        elif isinstance(value, list):
            made = f"[{inside}]"
        else:
            made = f"{{{inside}}}" if value else "()"
    if type(value) in (dict, list, tuple) or (type(value) is set and value):
        return made
    return f"{_defined(type(value), imports)}({made})"


def _array(array: np.ndarray, imports: set[str]) -> str:
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise NoLiteralError(repr(array))
    if not array.size:
        return f"np.zeros({array.shape}, {array.dtype.name!r})"
    if array.size > WRITTEN_OUT or array.dtype.name == "bfloat16":
        imports |= {"import base64", "import zlib"}
        if array.dtype.name == "bfloat16":
            imports.add("import ml_dtypes")
        text = base64.b85encode(zlib.compress(array.tobytes(), 9)).decode()
        packed = f"zlib.decompress(base64.b85decode({text!r}))"
        return f"np.frombuffer({packed}, {array.dtype.name!r}).reshape({array.shape})"
    text = np.array2string(array, separator=", ", threshold=WRITTEN_OUT + 1, floatmode="unique", max_line_width=10**6)
    text = re.sub(r"\b(nan|inf)\b", r"np.\1", re.sub(r"\s+", " ", text))
    text = text.replace("[ ", "[").replace(" ,", ",").replace(" ]", "]")
    if len(text) > LINE:
        text = re.sub(r"\], (?=\[)", "],\n            ", text)
    return f"np.array({text}, {array.dtype.name!r})"
