"""Failing calls as source code that can be pasted as a test: the function, its arrays as literals, the check."""

from __future__ import annotations

import ast
import base64
import builtins
import contextlib
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

LINE = 80
"""Characters up to which an array stays on one line."""

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
    text = text.replace("[ ", "[").replace(" ,", ",").replace(" ]", "]")
    if len(text) > LINE:
        text = re.sub(r"\], (?=\[)", "],\n            ", text)
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
    """The text of a function and of what it uses of its own module, and what it is called there."""
    definition = _definition(f)
    if definition is None:
        return _elsewhere(f, imports)
    parts: dict[str, str] = {}
    _collect(f, definition, parts, imports)
    return "\n\n\n".join(parts.values()) + "\n\n\n", definition.name


def _collect(f: Any, definition: ast.FunctionDef, parts: dict[str, str], imports: set[str]) -> None:
    """Add a function, after what it uses."""
    parts[definition.name] = ""
    for decorator in definition.decorator_list:
        for name in {node.id for node in ast.walk(decorator) if isinstance(node, ast.Name)}:
            _add(name, getattr(inspect.unwrap(f), "__globals__", {}).get(name), f, parts, imports)
    for name, value in _used(f).items():
        _add(name, value, f, parts, imports)
    del parts[definition.name]
    parts[definition.name] = ast.unparse(definition)


def _add(name: str, value: Any, f: Any, parts: dict[str, str], imports: set[str]) -> None:
    """Add what a name stands for: an import, another function of the same module, a value as a literal."""
    if name in parts:
        return
    if isinstance(value, types.ModuleType):
        imports.add(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        return
    definition = _definition(value) if getattr(value, "__module__", None) == inspect.unwrap(f).__module__ else None
    if definition is not None and definition.name == name:
        _collect(value, definition, parts, imports)
    elif getattr(value, "__qualname__", None) == name and getattr(value, "__module__", None) not in (None, "__main__"):
        imports.add(f"from {value.__module__} import {name}")
    elif isinstance(value, int | float | str | np.ndarray | tuple):
        parts[name] = f"{name} = {literal(value, imports)}"
    else:
        parts[name] = f"# {name}: as where {inspect.unwrap(f).__qualname__} is defined"


def _definition(f: Any) -> ast.FunctionDef | None:
    """The definition of a function, without the decorator `gradient_property`; None for a lambda, or if unknown."""
    function = inspect.unwrap(f) if callable(f) else f
    if not isinstance(function, types.FunctionType):
        return None
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError):
        return None
    definition = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    if definition is None or definition.name != function.__name__:
        return None
    definition.decorator_list = [
        decorator for decorator in definition.decorator_list if "gradient_property" not in ast.unparse(decorator)
    ]
    return definition


def _elsewhere(f: Callable[..., Any], imports: set[str]) -> tuple[str, str]:
    name, module = getattr(f, "__qualname__", ""), getattr(f, "__module__", "")
    if name.isidentifier() and module not in ("", "__main__"):
        imports.add(f"from {module} import {name}")
        return "", name
    return f"# f: the function that was checked ({name or f!r})\n", "f"


def _used(f: Callable[..., Any]) -> dict[str, Any]:
    """The names that a function takes from its surroundings, and what they stand for."""
    function = inspect.unwrap(f)
    if not isinstance(function, types.FunctionType):
        return {}
    codes = [function.__code__]
    names: dict[str, None] = {}
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        names |= dict.fromkeys(code.co_names)
    used = {
        name: function.__globals__[name]
        for name in names
        if name in function.__globals__ and not hasattr(builtins, name)
    }
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell may still be empty
            used[name] = cell.cell_contents
    return used
