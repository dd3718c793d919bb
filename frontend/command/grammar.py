"""What commands are, how command lines are read, and the options and the form of help that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from gradloom.command.errors import CommandError
from gradloom.inspection import MODES

PROGRAM = "python -m gradloom"

TARGET = """\
TARGET is SCRIPT_OR_MODULE:MODEL, a Python file or a module, and in it the name
of a model or of a function that returns one; the name may be left out where
there is only one model, and a script's `if __name__ == "__main__"` part is not
run. Or it is a file with a graph's text, ending in .ir, at any stage.
"""

CODES = """\
exit codes: 0 done; 1 an error; 2 wrong usage; 3 a check came out otherwise
than it should (results differ, or nothing fails); 130 interrupted
"""


@dataclass(frozen=True)
class Command:
    """A command: a line about it, its usage, what it does, examples, and the functions that add its options and run it.

    `run` returns nothing: it raises what `gradloom.command.dispatch` turns into an exit code.
    """

    name: str
    summary: str
    usage: str
    description: str
    examples: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    """Says in two lines what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"usage: {self.usage}\nerror: {message}\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps descriptions and examples as they are written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24)


def parse(commands: Sequence[Command], arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """Return the command and its options; raises `SystemExit` for wrong ones, and after `--help` and `--version`."""
    parser = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND …",
        description="See what Gradloom makes of a model: every stage, what changes, what takes time.",
        epilog=f"`{PROGRAM} COMMAND --help` has the options of a command, and examples.\n\n{CODES}",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"gradloom {metadata.version('gradloom')}")
    chosen = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    parsers: dict[str, argparse.ArgumentParser] = {}
    for command in commands:
        parsers[command.name] = chosen.add_parser(
            command.name,
            help=command.summary,
            usage=f"{PROGRAM} {command.name} {command.usage}",
            description=command.description,
            epilog=f"examples:\n{command.examples}",
            formatter_class=_Help,
        )
        command.add_options(parsers[command.name])
    words = [word for word in arguments if not word.startswith("-")]
    if not arguments:
        parser.error(f"Expected a command: {', '.join(parsers)}. Received: none; --help says what they do")
    if words and words[0] not in parsers:
        parser.error(f"Expected a command: {', '.join(parsers)}. Received: {words[0]}{near(words[0], parsers)}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [text for text in _options(parsers[options.command]) if text.startswith("--")]
        parsers[options.command].error(
            f"Expected the options {', '.join(known)}. Received: {' '.join(unknown)}{near(unknown[0], known)}"
        )
    return next(command for command in commands if command.name == options.command), options


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [text for action in parser._actions for text in action.option_strings]


def near(word: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant, or nothing."""
    found = get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """The type of an option that takes one of some words."""

    def choice(word: str) -> str:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"Expected {', '.join(choices)}. Received: {word}{near(word, choices)}")
        return word

    return choice


def positive(text: str) -> int:
    """The type of an option that takes a number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"Expected a positive integer. Received: {text}")
    return int(text)


def seconds(text: str) -> float:
    """The type of an option that takes a time."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"Expected a positive number of seconds. Received: {text}")
    return number


def require_ending(option: str, path: Path | None, ending: str) -> None:
    """Raise `CommandError` for a file to be written that does not end as what is written into it."""
    if path is not None and path.suffix.lower() != ending:
        raise CommandError(f"{option}: Expected a file ending in {ending}. Received: {path}")


def add_step_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which step of a model is meant."""
    parser.add_argument(
        "--mode", type=one_of(MODES), metavar="MODE", help="train, evaluate, predict (default: train if compiled)"
    )
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="samples in a step (default: 32)")
    parser.add_argument("--dtype", default="float32", help="dtype of the data's features (default: float32)")
