"""Failing calls as source code that can be pasted as a test: the function, its arrays as literals, the check."""

from __future__ import annotations

import ast
import base64
import builtins
import dataclasses
import inspect
import re
import textwrap
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradloom.testing.arguments import is_array, taken_apart
from gradloom.testing.problem import Function

WRITTEN_OUT = 200
"""Elements of the largest array that is written number by number."""


def pasted(function: Function, options: Mapping[str, Any]) -> str:
    """Return a module with one test, which makes the failing check again."""
    imports = {"import numpy as np", "from gradloom.testing import check_gradients"}
    source, name = _source(function.python, imports)
    values = _values(function)
    literals = [literal(value, imports) for value in values]
    changed = [f"{key}={value!r}" for key, value in options.items() if _DEFAULTS.get(key) != value]
    call = ",\n        ".join([name, *literals, *changed])
    test = f"def test_{re.sub('[^0-9A-Za-z_]', '_', function.name)}():\n    check_gradients(\n        {call},\n    )"
    return "\n".join([*sorted(imports, key=lambda line: (line.startswith("from"), line)), "", "", source + test])


_DEFAULTS = {"order": 2, "kinks": "avoid", "seed": 0}


def literal(value: Any, imports: set[str]) -> str:
    """Return an expression for a value; `imports` gets the lines that it needs."""
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), imports)
    if isinstance(value, type | types.FunctionType):
        imports.add(f"import {value.__module__}")
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {literal(part, imports)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        inside = ", ".join(literal(part, imports) for part in value)
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        imports.add(
            f"from {cls.__module__.removesuffix('.strategies').removesuffix('.layer_strategies')} import {cls.__name__}"
        )
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return f"{cls.__name__}({', '.join(f'{name}={literal(getattr(value, name), imports)}' for name in fields)})"
    return repr(value)


def _array(array: np.ndarray, imports: set[str]) -> str:
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
    return f"np.array({text}, {array.dtype.name!r})"


def _values(function: Function) -> list[Any]:
    """The arguments, with the arrays of the point at which the check failed."""
    arrays = iter(function.arrays.values())
    values = []
    for argument in function.args:
        inside, _, rebuild = taken_apart(argument, "")
        values.append(next(arrays) if is_array(argument) else rebuild([next(arrays) for _ in inside]))
    return values


def _source(f: Callable[..., Any], imports: set[str]) -> tuple[str, str]:
    """The function's own text without decorators, and what it is called there; else a comment that says what it was."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(f)))
    except (OSError, TypeError, SyntaxError):
        tree = ast.Module([], [])
    definition = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    if definition is None or getattr(f, "__name__", "") != definition.name:
        return _elsewhere(f, imports)
    definition.decorator_list = [
        decorator for decorator in definition.decorator_list if "gradient_property" not in ast.unparse(decorator)
    ]
    unknown = [name for name in _free_names(f) if not _imported(name, f, imports)]
    text = f"# {', '.join(unknown)}: as where {f.__qualname__} is defined\n" if unknown else ""
    return f"{text}{ast.unparse(definition)}\n\n\n", definition.name


def _elsewhere(f: Callable[..., Any], imports: set[str]) -> tuple[str, str]:
    name, module = getattr(f, "__qualname__", ""), getattr(f, "__module__", "")
    if name.isidentifier() and module not in ("", "__main__"):
        imports.add(f"from {module} import {name}")
        return "", name
    return f"# f: the function that was checked ({name or f!r})\n", "f"


def _free_names(f: Callable[..., Any]) -> list[str]:
    """The names that a function takes from its surroundings."""
    if not isinstance(f, types.FunctionType):
        return []
    inside = [constant for constant in f.__code__.co_consts if isinstance(constant, types.CodeType)]
    names = [*f.__code__.co_names, *(name for code in inside for name in code.co_names)]
    known = [name for name in names if name in f.__globals__ and not hasattr(builtins, name)]
    return list(dict.fromkeys([*known, *f.__code__.co_freevars]))


def _imported(name: str, f: Callable[..., Any], imports: set[str]) -> bool:
    """Whether a line that brings a name could be added."""
    value = getattr(f, "__globals__", {}).get(name)
    if isinstance(value, types.ModuleType):
        imports.add(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        return True
    module = getattr(value, "__module__", None)
    if module in (None, "__main__") or getattr(value, "__qualname__", None) != name:
        return False
    imports.add(f"from {module} import {name}")
    return True
