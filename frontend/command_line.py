"""The command line: shows the stages of a model's way to machine code, and looks after the cache of compiled code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

from gradloom.compiler.errors import GradloomError
from gradloom.inspection import GRAPH_STAGES, MODES, STAGES, GraphStage, Inspection, inspect_graph, inspect_model
from gradloom.model import Model

FORMATS = {"text": (".txt", ".ir", ".ll", ".s"), "dot": (".dot", ".gv"), "svg": (".svg",)}
"""Formats, and the endings of files that are written in them unless `--format` says otherwise."""

_EXAMPLES = """\
examples:
  python -m gradloom show train.py:model                            the fused graph of its train step
  python -m gradloom show train.py:model --stage scheduled          its kernels as loop IR
  python -m gradloom show package.models:build --mode predict --stage assembly
  python -m gradloom show train.py:model --output step.svg          a drawing
  python -m gradloom show graph.ir --stage simplified               a graph in its text form
  python -m gradloom cache info
"""


class CommandError(Exception):
    """What is wrong with the command or with what it names, in a line or two."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, or 1 after an error, which is printed without a traceback."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "show":
            _show(options)
        else:
            _cache(options.action)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (a pager, `head`) has seen enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandError, GradloomError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gradloom",
        description="Look at what Gradloom makes of a model, and at its cache of compiled code.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gradloom {metadata.version('gradloom')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser(
        "show",
        help="print or draw a stage of a model",
        description="Print or draw one stage of a model's way to machine code: " + " → ".join(STAGES) + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument(
        "target",
        metavar="SCRIPT_OR_MODULE:MODEL",
        help="a Python file or a module, and in it the name of a model or of a function that returns one "
        "(which may be left out where there is only one model); or a file with a graph's text, ending in .ir. "
        "A script's `if __name__ == '__main__'` part is not run",
    )
    show.add_argument("--stage", choices=STAGES, help="the stage (default: fused)", metavar="STAGE", default="fused")
    show.add_argument(
        "--format",
        choices=list(FORMATS),
        help="text, dot or svg (default: by the ending of FILE, else text); all but text for "
        + ", ".join(GRAPH_STAGES),
    )
    show.add_argument("--mode", choices=MODES, help="the step (default: train if the model is compiled, else predict)")
    show.add_argument(
        "--prepare", action="store_true", help="what a prediction computes once per set of weights, not once per batch"
    )
    show.add_argument("--batch-size", type=_positive, default=32, metavar="N", help="samples in a step (default: 32)")
    show.add_argument("--dtype", default="float32", help="dtype of the data's features (default: float32)")
    show.add_argument("--output", type=Path, metavar="FILE", help="where to write (default: standard output)")
    cache = commands.add_parser("cache", help="show or empty the cache of compiled code")
    cache.add_argument("action", choices=("info", "clear"), help="show folder and size, or remove all entries")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a positive integer. Received: {text}")
    return int(text)


# cache


def _cache(action: str) -> None:
    from gradloom.runtime import cache

    if action == "info":
        print(cache.info())
        return
    removed = cache.clear()
    print(f"removed {removed} {'entry' if removed == 1 else 'entries'}")


# show


def _show(options: argparse.Namespace) -> None:
    form = options.format or _format_of(options.output)
    if form != "text" and options.stage not in GRAPH_STAGES:
        raise CommandError(
            f"Expected a graph stage ({', '.join(GRAPH_STAGES)}) for format {form}. Received: --stage {options.stage}"
        )
    inspection = _inspection(options)
    stage = inspection.stage(options.stage)
    if form != "text" and isinstance(stage, GraphStage):
        text = stage.svg() if form == "svg" else stage.dot()
    else:
        text = stage.text()
    text = text if text.endswith("\n") else text + "\n"
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")


def _format_of(output: Path | None) -> str:
    suffix = "" if output is None else output.suffix.lower()
    return next((form for form, suffixes in FORMATS.items() if suffix in suffixes), "text")


def _inspection(options: argparse.Namespace) -> Inspection:
    if options.target.endswith(".ir"):
        if options.prepare:
            raise CommandError(f"Expected a model with --prepare. Received: {options.target}, a graph")
        from gradloom.compiler import parse

        try:
            return inspect_graph(parse(Path(options.target).read_text(encoding="utf-8")))
        except (GradloomError, UnicodeDecodeError) as error:
            raise CommandError(f"{options.target}: {error}") from None
    model = _load(options.target)
    if not options.prepare:
        mode = options.mode or ("train" if model.compiled else "predict")
        return inspect_model(model, options.batch_size, mode, options.dtype)
    if options.mode not in (None, "predict"):
        raise CommandError(f"Expected mode predict with --prepare. Received: --mode {options.mode}")
    prepare = inspect_model(model, options.batch_size, "predict", options.dtype).prepare
    if prepare is None:
        raise CommandError(f"{options.target}: nothing is prepared: its predictions read the weights as they are")
    return prepare


def _load(target: str) -> Model:
    """Return the model that `script.py:model`, `module:model`, or either without a name stands for."""
    place, colon, name = target.rpartition(":")
    if not colon or not name.replace(".", "_").isidentifier():
        place, name = target, ""
    is_file = place.endswith(".py") or os.sep in place
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
            raise CommandError(_where(error, place)) from None
        except (Exception, SystemExit) as error:
            raise CommandError(_where(error, place)) from None


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
        near = get_close_matches(first, [key for key in names if not key.startswith("_")], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
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
    path, arguments = list(sys.path), list(sys.argv)
    sys.path.insert(0, str(Path(place).resolve().parent) if is_file else os.getcwd())
    sys.argv[:] = [place]
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, arguments


def _where(error: BaseException, place: str) -> str:
    """An error of a script in one line, with the script's own line that it came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    package = str(Path(__file__).resolve().parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((package, "<frozen")) and Path(frame.filename).name != "runpy.py"
    ]
    own = [frame for frame in frames if Path(frame.filename) == Path(place)] or frames
    at = f"{own[-1].filename}:{own[-1].lineno}" if own else place
    if isinstance(error, SystemExit):
        return f"{at}: the script ends itself (exit code {error.code})"
    return f"{at}: {type(error).__name__}: {error}"
