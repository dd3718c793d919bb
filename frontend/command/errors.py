"""Errors of a command: at most five lines that say what was expected, what came and where, and a path to the rest."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from importlib import metadata
from pathlib import Path

from gradloom.compiler.errors import GradloomError, ParseError, VerificationError

MOST_LINES = 5
MOST_COLUMNS = 400
"""Characters of a line of a message: a shape or a list of names may be longer than anybody reads."""
WINDOW = 72
"""Characters of a line of a file that are shown around an error in it."""

PACKAGE = str(Path(__file__).resolve().parents[1])


class CommandError(Exception):
    """What is wrong with the command or with what it names."""


class CheckError(Exception):
    """A check came out otherwise than it should: an exit code of its own, and no error of the command."""


def is_internal(error: Exception) -> bool:
    """Whether an error is a defect of Gradloom, and not of what it was given."""
    if isinstance(error, VerificationError):
        return True
    return not isinstance(error, (CommandError, GradloomError, MemoryError, OSError, ValueError))


def described(error: Exception, internal: bool) -> str:
    """The error in at most five lines; of an internal one, and of a longer one, the last is the path of a log."""
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif internal:
        text = f"internal error at {_innermost(error)}: {type(error).__name__}: {error}"
    else:
        text = str(error) or type(error).__name__
    lines = [line if len(line) <= MOST_COLUMNS else f"{line[:MOST_COLUMNS]} …" for line in text.splitlines()]
    lines[:1] = [f"error: {''.join(lines[:1])}"]
    if internal or len(lines) > MOST_LINES:
        lines[MOST_LINES - 1 :] = []
        lines.append(f"  all of it: {_log(error)}")
    return "\n".join(lines)


def in_file(path: str, text: str, error: ParseError) -> CommandError:
    """An error of a file's text: file, line and column, the line itself, and a caret below the place."""
    message = str(error).removeprefix(f"line {error.line}: ")
    lines = text.split("\n")
    line = lines[error.line - 1] if 0 < error.line <= len(lines) else ""
    start = max(0, min(error.column - WINDOW // 2, len(line) - WINDOW))
    shown = line[start : start + WINDOW].replace("\t", " ")
    caret = " " * (error.column - 1 - start) + "^"
    return CommandError(f"{path}:{error.line}:{error.column}: {message}\n  {shown}\n  {caret}")


def in_script(error: BaseException, place: str) -> str:
    """An error of a script in one line, with the script's own line that it came from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, "<frozen")) and Path(frame.filename).name != "runpy.py"
    ]
    own = [frame for frame in frames if Path(frame.filename) == Path(place)] or frames
    at = f"{own[-1].filename}:{own[-1].lineno}" if own else place
    if isinstance(error, SystemExit):
        return f"{at}: the script ends itself (exit code {error.code})"
    return f"{at}: {type(error).__name__}: {error}"


def _innermost(error: Exception) -> str:
    """The innermost line of Gradloom that an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    return f"{os.path.relpath(own[-1].filename, PACKAGE)}:{own[-1].lineno}" if own else "an unknown place"


def _log(error: Exception) -> str:
    """Write the whole error into a new file in the folder for temporary files; return its path."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="gradloom-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
        ) as log:
            log.write(f"gradloom {metadata.version('gradloom')}, Python {sys.version}\n{' '.join(sys.argv)}\n\n")
            log.writelines(traceback.format_exception(error))
    except OSError as failure:
        return f"(no log: {failure.strerror})"
    return log.name
