"""Failing calls as source code that can be pasted as a test: the function, its arrays as literals, the check."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gradloom.testing.arguments import is_array, taken_apart
from gradloom.testing.literals import NoLiteralError, literal
from gradloom.testing.problem import Function

END = "# End of the test."
"""The last line: what others print behind it, hypothesis for example, is no code."""


def pasted(function: Function, options: Mapping[str, Any]) -> str:
    """Return a module with one test, which makes the failing check again.

    What cannot be written, a lambda or a layer that was made elsewhere, is `...` there, and listed in the first lines.
    """
    module = _Module()
    name = module.function(function.python)
    arguments = [module.literal(value, f"argument {at}") for at, value in enumerate(_values(function))]
    changed = [f"{key}={value!r}" for key, value in options.items() if _DEFAULTS.get(key) != value]
    call = ",\n        ".join([name, *arguments, *changed])
    test = re.sub("[^0-9A-Za-z_]", "_", function.name.removeprefix("test_"))
    lines = [f"def test_{test}():", *module.weights(function, name), f"    check_gradients(\n        {call},\n    )"]
    fill_in = [f"# Fill in {name}: {what}" for name, what in module.missing.items()]
    imports = sorted(module.imports, key=lambda line: (line.startswith("from"), line))
    blocks = [*module.parts.values(), "\n".join(lines)]
    return "\n".join([*fill_in, *imports, "", "", "\n\n\n".join(blocks), "", "", END])


_DEFAULTS = {"order": 2, "kinks": "avoid", "seed": 0}


def _values(function: Function) -> list[Any]:
    """The arguments, with the arrays of the point at which the check failed."""
    arrays = iter(function.arrays.values())
    values = []
    for argument in function.args:
        inside, _, rebuild = taken_apart(argument, "")
        values.append(next(arrays) if is_array(argument) else rebuild([next(arrays) for _ in inside]))
    return values


class _Module:
    """The text of a module: its imports, then functions and values after what they use, by name.

    missing: what could not be written, by name, and what it was.
    """

    def __init__(self) -> None:
        self.imports = {"import numpy as np", "from gradloom.testing import check_gradients"}
        self.parts: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def function(self, f: Callable[..., Any]) -> str:
        """Add the function that is checked, with what it uses of its own module, and return what it is called here."""
        definition = _definition(f)
        if definition is not None:
            # pytest would take a function called test_… for a test.
            self._collect(f, definition, _untested(definition.name))
            return _untested(definition.name)
        name, module = getattr(f, "__qualname__", ""), getattr(f, "__module__", "")
        if name.isidentifier() and module not in ("", "__main__"):
            new = _untested(name)
            self.imports.add(f"from {module} import {name}" + ("" if new == name else f" as {new}"))
            return new
        self._leave_out("f", f"the function that was checked, {_described(f)}")
        return "f"

    def literal(self, value: Any, what: str) -> str:
        """A value as an expression, `...` for one that has none."""
        try:
            return literal(value, self.imports)
        except NoLiteralError as error:
            self.missing[what] = f"it was {error}"
            return "..."

    def weights(self, function: Function, name: str) -> list[str]:
        """The lines that give a layer the weights with which it failed."""
        arrays = list(function.arrays.values())[len(function.arrays) - len(function.weights) :]
        if not arrays:
            return []
        rows = "".join(f"        {literal(array, self.imports)},\n" for array in arrays)
        return [
            f"    weights = [\n{rows}    ]",
            f"    for variable, array in zip({name}.trainable_weights, weights, strict=True):",
            "        variable.assign(array)",
        ]

    def _leave_out(self, name: str, what: str) -> None:
        self.missing[name] = what
        self.parts[name] = f"{name} = ..."

    def _collect(self, f: Any, definition: ast.FunctionDef, name: str) -> None:
        """Add a function, after what it uses."""
        self.parts[definition.name] = ""  # it may use itself
        function = inspect.unwrap(f)
        self._write_out_defaults(function, definition)
        around = {**function.__globals__, **_enclosed(function)}
        outside = {used.id for part in _run_at_definition(definition) for used in _names(part)}
        inside = {*function.__code__.co_freevars, *_globals_in(function.__code__)}
        for used in _names(definition):
            if used.id in around and (used.id in outside or used.id in inside):
                self._add(used.id, around[used.id], function)
        del self.parts[definition.name]
        if name != definition.name:
            for used in _names(definition):
                used.id = name if used.id == definition.name else used.id
            definition.name = name
        self.parts[name] = ast.unparse(definition)

    def _write_out_defaults(self, function: types.FunctionType, definition: ast.FunctionDef) -> None:
        """Put literals in the place of default arguments: names in them are those of the place of definition."""
        for at, value in enumerate(function.__defaults__ or ()):
            with contextlib.suppress(NoLiteralError):
                definition.args.defaults[at] = ast.parse(literal(value, self.imports), mode="eval").body
        by_keyword = function.__kwdefaults__ or {}
        for at, argument in enumerate(definition.args.kwonlyargs):
            if argument.arg in by_keyword:
                with contextlib.suppress(NoLiteralError):
                    text = literal(by_keyword[argument.arg], self.imports)
                    definition.args.kw_defaults[at] = ast.parse(text, mode="eval").body

    def _add(self, name: str, value: Any, user: types.FunctionType) -> None:
        """Add what a name stands for: an import, another function of the same module, a value as a literal."""
        if name in self.parts:
            return
        module = getattr(value, "__module__", None)
        if isinstance(value, types.ModuleType):
            self.imports.add(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
            return
        definition = _definition(value) if module == user.__module__ else None
        if definition is not None and definition.name == name:
            self._collect(value, definition, name)
        elif getattr(value, "__qualname__", None) == name and module not in (None, "__main__"):
            self.imports.add(f"from {module} import {name}")
        else:
            try:
                self.parts[name] = f"{name} = {literal(value, self.imports)}"
            except NoLiteralError:
                self._leave_out(name, f"{_described(value)}, as where {user.__qualname__} is defined")


def _untested(name: str) -> str:
    return f"checked_{name.removeprefix('test_')}" if name.startswith("test") else name


def _described(value: Any) -> str:
    """What something is, and where it was made, if that is known."""
    source = getattr(value, "source", None)
    function = inspect.unwrap(value) if callable(value) else value
    code = getattr(function, "__code__", None)
    place = f" at {code.co_filename}:{code.co_firstlineno}" if code else f" at {source}" if source else ""
    return (getattr(value, "__qualname__", "") or repr(value).splitlines()[0]) + place


def _definition(f: Any) -> ast.FunctionDef | None:
    """The definition of a function, without annotations and what makes a test of it; None for a lambda, or if unknown.

    Annotations may name what only type checkers see.
    """
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
        decorator
        for decorator in definition.decorator_list
        if not any(test in ast.unparse(decorator) for test in ("gradient_property", "pytest."))
    ]
    for node in ast.walk(definition):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return definition


def _run_at_definition(definition: ast.FunctionDef) -> Iterator[ast.expr]:
    yield from definition.decorator_list
    yield from definition.args.defaults
    yield from (default for default in definition.args.kw_defaults if default is not None)


def _names(node: ast.AST) -> list[ast.Name]:
    return [part for part in ast.walk(node) if isinstance(part, ast.Name)]


def _globals_in(code: types.CodeType) -> Iterable[str]:
    """The names that code, and functions in it, take from their module (and those of attributes)."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_in(constant)


def _enclosed(function: types.FunctionType) -> dict[str, Any]:
    """The variables of the functions around a function."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell may still be empty
            found[name] = cell.cell_contents
    return found
