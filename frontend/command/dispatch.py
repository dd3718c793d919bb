"""Runs one command, and turns what ends it into an exit code; `grammar.CODES` lists them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gradloom.command import cache, diff, profile, reduce, report, run, show
from gradloom.command.errors import CheckError, described, is_internal
from gradloom.command.grammar import parse

COMMANDS = (
    show.COMMAND,
    diff.COMMAND,
    profile.COMMAND,
    report.COMMAND,
    run.COMMAND,
    reduce.COMMAND,
    cache.COMMAND,
)
DONE, ERROR, CHECK = 0, 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. Raises `SystemExit` for wrong usage, and after `--help`.

    Ctrl-C goes through it: it may also come before the commands are imported.
    """
    command, options = parse(COMMANDS, sys.argv[1:] if arguments is None else arguments)
    try:
        command.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (a pager, `head`) has seen enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except CheckError as error:
        print(error, file=sys.stderr)
        return CHECK
    except Exception as error:
        print(described(error, internal=is_internal(error)), file=sys.stderr)
        return ERROR
    return DONE
