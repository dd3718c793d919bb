"""What the command lines of these examples share: numbers in ranges, places to write to, errors in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import gradloom as gl
from gradloom.compiler.errors import GradloomError
from gradloom.compiler.llvm.target import Target

PICTURES = (".pdf", ".png", ".svg")
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


def integer(low: int, high: float = float("inf")) -> Callable[[str], int]:
    """Return an argument type for integers from `low` to `high`."""

    def parse(text: str) -> int:
        number = int(text)
        if not low <= number <= high:
            limit = f"from {low} on" if high == float("inf") else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"Expected a number {limit}. Received: {text}")
        return number

    parse.__name__ = "integer"
    return parse


def positive(text: str) -> float:
    """Read a finite number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"Expected a number above 0. Received: {text}")
    return number


def weight(text: str) -> float:
    """Read a finite number that is not below 0."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"Expected a number from 0 on. Received: {text}")
    return number


def share(text: str) -> float:
    """Read a number in [0, 1)."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"Expected a share in [0, 1). Received: {text}")
    return number


def picture(text: str) -> Path:
    """Read the name of a picture to be written, in a format that its suffix tells."""
    file = Path(text)
    if file.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"Expected a file name ending in {', '.join(PICTURES)}. Received: {text!r}")
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"Expected a file name. Received: {text!r}, a folder")
    check_writable(file.parent)
    return file


def output_folder(text: str) -> Path:
    """Read the name of a folder to write into, which need not be there yet."""
    if not text:
        raise argparse.ArgumentTypeError("Expected a folder. Received: ''")
    check_writable(Path(text))
    return Path(text)


def check_writable(folder: Path) -> None:
    """Raise an error unless `folder` can be written into, or made: before an hour's work and not after it."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise argparse.ArgumentTypeError(f"Expected a folder. Received: {str(place)!r}, a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"Expected a folder to write into. Received: {str(place)!r}, write-protected")


def check_environment() -> None:
    """Raise an error for variables that Gradloom cannot follow: before images are read and not after it."""
    gl.get_num_threads()
    Target.host()


def describe(error: BaseException) -> str:
    """An error in words: a file's own name before what the system says of it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def run(main: Callable[[], None]) -> None:
    """Run a command; what the user can do something about ends it with one line, not with a traceback."""
    try:
        main()
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt or 'interrupted'}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except ImportError as error:
        if error.name not in ("matplotlib", "PIL", None):
            raise
        sys.exit(f"error: {error}; the examples need: pip install 'gradloom[examples]'")
    except (GradloomError, OSError) as error:
        sys.exit(f"error: {describe(error)}")
