"""What a command is about: a model in a script or a module, or a graph in a file."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from gradloom.command.errors import CommandError, in_file, in_script
from gradloom.command.grammar import near
from gradloom.compiler.errors import FusionError, ParseError
from gradloom.compiler.ir import Graph
from gradloom.inspection import Inspection, inspect_graph, inspect_model
from gradloom.model import Model
from gradloom.naming import clear_session

GRAPH_FILE = ".ir"


def inspection(target: str, options: argparse.Namespace) -> Inspection:
    """The stages of a model's step, or of a graph in a file, by the options of `grammar.add_step_options`."""
    if is_graph(target):
        return inspect_graph(load_graph(target))
    model = load_model(target)
    mode = options.mode or ("train" if model.compiled else "predict")
    return inspect_model(model, options.batch_size, mode, options.dtype)


def is_graph(target: str) -> bool:
    """Whether a target is a file with a graph's text."""
    return target.endswith(GRAPH_FILE)


def load_graph(path: str) -> Graph:
    """Return the graph in a file.

    Raises `CommandError`: with the line, the column and a caret for a text that is none, with the kernel for groups of
    which no kernels can be made.
    """
    from gradloom.compiler import parse
    from gradloom.compiler.passes.groups import check_groups

    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{path}: Expected text in UTF-8. Received: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        ) from None
    try:
        graph = parse(text)
        check_groups(graph)
    except ParseError as error:
        raise in_file(path, text, error) from None
    except FusionError as error:
        raise CommandError(f"{path}: {error}") from None
    return graph


def load_model(target: str) -> Model:
    """Return the model that `script.py:model`, `module:model`, or either without a name stands for."""
    place, colon, name = target.rpartition(":")
    if not colon or not name.replace(".", "_").isidentifier():
        place, name = target, ""
    is_file = place.endswith(".py") or os.sep in place
    if not is_file and not all(part.isidentifier() for part in place.split(".")):
        raise CommandError(
            f"Expected SCRIPT_OR_MODULE:MODEL, or a graph in a file ending in {GRAPH_FILE}. Received: {target!r}"
        )
    if is_file and Path(place).suffix not in ("", ".py"):
        raise CommandError(f"Expected a Python file ending in .py, or a graph in {GRAPH_FILE}. Received: {place}")
    if is_file and not Path(place).is_file():
        raise CommandError(f"Expected a Python file. Received: {place}, which is no file")
    # What the script prints must not mix with what is asked for.
    with contextlib.redirect_stdout(sys.stderr), _as_command(place, is_file):
        try:
            names = runpy.run_path(place, run_name="gradloom.show") if is_file else vars(importlib.import_module(place))
            return _model(names, place, name)
        except CommandError:
            raise
        except ModuleNotFoundError as error:
            if not is_file and error.name and (place == error.name or place.startswith(f"{error.name}.")):
                raise CommandError(f"Expected a Python file or a module. Received: {place}") from None
            raise CommandError(in_script(error, place)) from None
        except (Exception, SystemExit) as error:
            raise CommandError(in_script(error, place)) from None


def _model(names: dict[str, Any], place: str, name: str) -> Model:
    models = [key for key, value in names.items() if isinstance(value, Model)]
    makers = [key for key, value in names.items() if _may_make_a_model(value, names)]
    known = f"models in {place}: {', '.join(models) or 'none'}"
    if makers:
        known += f"; functions that may return one: {', '.join(makers)}"
    if not name:
        if len(models) != 1:
            raise CommandError(f"Expected SCRIPT_OR_MODULE:MODEL with the name of one model; {known}")
        name = models[0]
    first, *rest = name.split(".")
    if first not in names:
        hint = near(first, [key for key in names if not key.startswith("_")])
        raise CommandError(f"{place} has no {first!r}{hint}; {known}")
    found = names[first]
    for part in rest:
        if not hasattr(found, part):
            raise CommandError(f"{place}: {first} of type {type(found).__name__} has no attribute {part!r}; {known}")
        found = getattr(found, part)
    if not isinstance(found, Model) and callable(found):
        found = found()
    if not isinstance(found, Model):
        raise CommandError(f"{place}: Expected a model as {name}. Received: {type(found).__name__}; {known}")
    return found


def _may_make_a_model(found: Any, names: Mapping[str, Any]) -> bool:
    """Whether something in a script is a function, or a class of models, to be called without arguments for a model.

    Functions are not tried: one says in its annotation what it returns, or is written in the script and says nothing.
    """
    if not inspect.isfunction(found) and not (inspect.isclass(found) and issubclass(found, Model)):
        return False
    try:
        inspect.signature(found).bind()
        result = found if inspect.isclass(found) else get_type_hints(found).get("return")
    except (TypeError, ValueError, NameError):  # It wants arguments, or is annotated by what is not there.
        return False
    is_own = found.__module__ == names.get("__name__")
    if inspect.isclass(result) and result is not Any:
        return issubclass(result, Model) and (is_own or result is not found)
    return is_own and not found.__name__.startswith("_")


@contextlib.contextmanager
def _as_command(place: str, is_file: bool) -> Iterator[None]:
    """Let a script find its neighbours and see no arguments but its own name, as if it were run by itself."""
    # Names are counted anew: of two scripts that are compared, both have a "dense".
    clear_session()
    path, arguments = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(Path(place).resolve().parent) if is_file else os.getcwd())
    sys.argv[:] = [place]
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, arguments
