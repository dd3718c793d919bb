"""Reader of Darknet's `.cfg` files: sections of `key=value` lines, each value checked where it is asked for.

    [convolutional]
    filters=32      # text after # is a comment, blanks mean nothing
    activation=leaky

Errors name the file and the line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from gradloom.compiler.errors import GradloomError
from gradloom.lookup import unknown_name

_C_INT_MAX = 2**31 - 1
_SHOWN = 60
"""Characters of a line that an error shows: the file may be none of text."""


class CfgError(GradloomError, ValueError):
    """A cfg file says something that makes no network: names the file and its line."""


@dataclass(frozen=True)
class Option:
    """A value as it stands in the file, without blanks, and its line."""

    text: str
    line: int


class Section:
    """A section of a cfg file: its kind, its options by key, and the last lines of those said again.

    The first line of a key counts, as in Darknet.
    """

    def __init__(self, file: Path, line: int, kind: str) -> None:
        self.file = file
        self.line = line
        self.kind = kind
        self.options: dict[str, Option] = {}
        self.repeated: dict[str, int] = {}

    def error(self, message: str, key: str | None = None) -> CfgError:
        """Return an error at the line of `key`, or of the section where it has no such key."""
        line = self.options[key].line if key in self.options else self.line
        return CfgError(f"{self.file}:{line}: [{self.kind}] {message}")

    def check_keys(self, known: Collection[str], without_meaning: Collection[str] = ()) -> None:
        """Raise `CfgError` for a key that is in neither, and for one of `known` that is said twice."""
        for key in self.options:
            if key not in known and key not in without_meaning:
                raise self.error(unknown_name("key", key, sorted({*known, *without_meaning})), key)
        for key, line in self.repeated.items():
            if key in known:
                raise self.error(
                    f"Expected each key once. Received: {key}= in line {self.options[key].line} and again in "
                    f"line {line}",
                    key,
                )

    def integer(self, key: str, default: int | None = None, low: int = 0, high: int = _C_INT_MAX) -> int:
        """The integer of `key` within [low, high]; `default` where the section has none, None when it must."""
        if key not in self.options:
            if default is None:
                raise self.error(f"Expected {key}=… in this section. Received: no such line")
            return default
        number = _as_integer(self.options[key].text)
        if number is None or not low <= number <= high:
            limits = f"≥ {low}" if high == _C_INT_MAX else f"in [{low}, {high}]"
            raise self.error(f"Expected {key} as an integer {limits}. Received: {self._shown(key)}", key)
        return number

    def flag(self, key: str) -> bool:
        """Whether `key` is there and not 0: Darknet's own files say 2, too, where they mean yes."""
        return self.integer(key, 0) != 0

    def number(self, key: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
        """The finite number of `key` within [low, high]; `default` where the section has none."""
        if key not in self.options:
            return default
        try:
            number = float(self.options[key].text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and low <= number <= high):
            limits = "" if (low, high) == (-math.inf, math.inf) else f" in [{low:g}, {high:g}]"
            raise self.error(f"Expected {key} as a finite number{limits}. Received: {self._shown(key)}", key)
        return number

    def choice(self, key: str, known: Collection[str], default: str) -> str:
        """The value of `key`, one of `known`; `default` where the section has none."""
        if key not in self.options:
            return default
        text = self.options[key].text
        if text not in known:
            raise self.error(unknown_name(key, text, sorted(known)), key)
        return text

    def integers(self, key: str) -> list[int]:
        """The integers of `key`, divided by commas: at least one."""
        if key not in self.options:
            raise self.error(f"Expected {key}=… in this section. Received: no such line")
        numbers = [_as_integer(part) for part in self.options[key].text.split(",")]
        if None in numbers:
            raise self.error(f"Expected {key} as integers divided by commas. Received: {self._shown(key)}", key)
        return [number for number in numbers if number is not None]

    def refuse_unless(self, key: str, meaning: str) -> None:
        """Raise `CfgError` if `key` is there and not 0: a feature that changes results and is not supported."""
        if key in self.options and self.options[key].text != "0":
            raise self.error(
                f"{meaning} is not supported. Expected: {key}=0, or no such line. Received: {self._shown(key)}", key
            )

    def _shown(self, key: str) -> str:
        return f"{key}={self.options[key].text[:_SHOWN]}"


def read(path: str | os.PathLike[str]) -> list[Section]:
    """Read the sections of a cfg file, in order, without asking what they mean.

    Raises CfgError for lines that are neither section, `key=value` nor comment; OSError when the file cannot be read.
    """
    file = Path(path)
    sections: list[Section] = []
    for number, line in _lines(file):
        if line.startswith("["):
            if not line.endswith("]"):
                raise CfgError(f"{file}:{number}: Expected a section like [net]. Received: {line[:_SHOWN]!r}")
            sections.append(Section(file, number, line[1:-1]))
            continue
        key, equals, value = line.partition("=")
        if not sections or not equals or not key:
            expected = "key=value" if sections else "[net]"
            raise CfgError(f"{file}:{number}: Expected {expected}. Received: {line[:_SHOWN]!r}")
        section = sections[-1]
        if key in section.options:
            section.repeated[key] = number
        else:
            section.options[key] = Option(value, number)
    if not sections:
        raise CfgError(f"{file}:1: Expected [net], then a section a layer. Received: a file without sections")
    return sections


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Number and text of the lines that say something, without blanks and comments."""
    # Comments are in whatever encoding their author had.
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            text = "".join(line.split("#")[0].split())
            if text and not text.startswith(";"):
                yield number, text


def _as_integer(text: str) -> int | None:
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > len(str(_C_INT_MAX)):
        return None
    return int(sign + digits)
