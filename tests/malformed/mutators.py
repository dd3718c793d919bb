"""Ways to damage a file: of bytes, of numbers in binary headers, of text. Each takes a random stream and two files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[Random, bytes, bytes], bytes]
"""(stream, a valid or already damaged file, another valid one) → a damaged file."""

EXTREMES = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**24,
    *(2**bits + more for bits in (31, 32, 63) for more in (-1, 0, 1)),
]
"""Counts that programs trip over, written with any width and sign."""

NUMBERS = """
    0 -0 1 -1 2 3 7 31 32 33 255 256 65535 65536 1000003 2147483647 2147483648 4294967295 4294967296 -2147483649
    9223372036854775807 9223372036854775808 18446744073709551616 99999999999999999999999999 1e9 1e999 -1e999 1e-400
    1.5 nan inf -inf NaN Infinity .5 5. 0x10 1_000 +1 --1 ٣ １２ ² ½ ∞ true none [] [1,1] "1" f32 f32[] ?
""".split()  # noqa: SIM905
"""Numbers in text, and what is none: too large, of another kind, in other scripts."""

ODD_TEXT = ["\0", "\r", "\x1b[31m", "\x85", "\u2028", "\ufeff", "\u202e", "é", "𝟙", "\udcff", '"', "\\", "#", "=", "\t"]

MOST_REPEATS = 3000


def place(rng: Random, content: bytes) -> int:
    """An offset: in half of the cases one of the first 64, where headers are."""
    return rng.randint(0, min(len(content), 64) if rng.random() < 0.5 else len(content))


def truncated(rng: Random, content: bytes, other: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def with_flipped_bits(rng: Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if changed:
            changed[place(rng, content) % len(changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def with_a_run(rng: Random, content: bytes, other: bytes) -> bytes:
    """Some bytes overwritten by one value."""
    start, length = place(rng, content), rng.randint(1, 16)
    return content[:start] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * length + content[start + length :]


def with_inserted_bytes(rng: Random, content: bytes, other: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + rng.randbytes(rng.randint(1, 20)) + content[at:]


def with_deleted_bytes(rng: Random, content: bytes, other: bytes) -> bytes:
    at = place(rng, content)
    return content[:at] + content[at + rng.randint(1, 20) :]


def with_a_part_twice(rng: Random, content: bytes, other: bytes) -> bytes:
    first, last = sorted((place(rng, content), place(rng, content)))
    return content[:last] + content[first:last] + content[last:]


def spliced(rng: Random, content: bytes, other: bytes) -> bytes:
    """The begin of one file and the end of another."""
    return content[: place(rng, content)] + other[place(rng, other) :]


def with_an_extreme_count(rng: Random, content: bytes, other: bytes) -> bytes:
    """An integer overwritten, of any width and order of bytes."""
    width = rng.choice((1, 2, 4, 4, 8))
    number = rng.choice(EXTREMES) * rng.choice((1, -1)) % 2 ** (8 * width)
    at = place(rng, content) // rng.choice((1, width)) * rng.choice((1, 1, width)) % (len(content) + 1)
    return content[:at] + number.to_bytes(width, rng.choice(("little", "big"))) + content[at + width :]


def with_garbage_behind(rng: Random, content: bytes, other: bytes) -> bytes:
    return content + rng.choice((bytes(rng.randint(1, 600)), rng.randbytes(rng.randint(1, 600)), content, other))


def replaced(rng: Random, content: bytes, other: bytes) -> bytes:
    """Nothing, noise, or zeros instead of the file."""
    return rng.choice((b"", rng.randbytes(rng.randint(1, 600)), bytes(rng.randint(1, 600))))


BYTES: Sequence[Mutator] = (
    truncated,
    with_flipped_bits,
    with_flipped_bits,
    with_a_run,
    with_inserted_bytes,
    with_deleted_bytes,
    with_a_part_twice,
    spliced,
    with_an_extreme_count,
    with_an_extreme_count,
    with_garbage_behind,
)


def of_text(change: Callable[[Random, str, str], str]) -> Mutator:
    """A mutator of text as one of bytes; what is not UTF-8 stays as it is."""

    def mutate(rng: Random, content: bytes, other: bytes) -> bytes:
        texts = (part.decode("utf-8", "surrogateescape") for part in (content, other))
        return change(rng, *texts).encode("utf-8", "surrogateescape")

    mutate.__name__ = change.__name__
    return mutate


def of_lines(change: Callable[[Random, list[str], list[str]], list[str]]) -> Mutator:
    """A mutator of the lines of a text as one of bytes."""

    def mutate(rng: Random, text: str, other: str) -> str:
        return "\n".join(change(rng, text.split("\n"), other.split("\n")))

    mutate.__name__ = change.__name__
    return of_text(mutate)


def _match_replaced(rng: Random, text: str, pattern: str, new: Callable[[str], str]) -> str:
    matches = list(re.finditer(pattern, text))
    if not matches:
        return text
    match = rng.choice(matches)
    return text[: match.start()] + new(match.group()) + text[match.end() :]


@of_text
def with_another_number(rng: Random, text: str, other: str) -> str:
    return _match_replaced(rng, text, r"-?\d+(?:\.\d+)?", lambda old: rng.choice([*NUMBERS, "9" * 5000]))


@of_text
def with_a_near_number(rng: Random, text: str, other: str) -> str:
    """An integer that is one more, one less, the double or the negative: what a count or an index may be off by."""

    def near(old: str) -> str:
        number = int(old[:20])
        return str(rng.choice((number + 1, number - 1, number * 2, -number, number * 1000)))

    return _match_replaced(rng, text, r"\d+", near)


@of_text
def with_another_word(rng: Random, text: str, other: str) -> str:
    """A word, string or mark replaced by another of either text."""
    words = re.findall(r'"[^"\n]*"|\w+|[^\w\s]', rng.choice((text, other)))
    return _match_replaced(rng, text, r'"[^"\n]*"|\w+|[^\w\s]', lambda old: rng.choice(words) if words else "")


@of_text
def with_a_number_everywhere(rng: Random, text: str, other: str) -> str:
    """One number's every occurrence replaced by another: sizes still fit one another, and are others."""
    numbers = re.findall(r"(?<![\w.%])\d+(?![\w.])", text)
    new = rng.choice(("0", "1", "2", "5", "17", "64", "1000", "65536", "2147483647", "4294967296", "1099511627776"))
    return re.sub(rf"(?<![\w.%]){rng.choice(numbers)}(?![\w.])", new, text) if numbers else text


@of_text
def with_a_word_everywhere(rng: Random, text: str, other: str) -> str:
    """One word's every occurrence replaced by another of either text."""
    words = re.findall(r"[A-Za-z_]\w*", text)
    new = rng.choice(re.findall(r"[A-Za-z_]\w*", rng.choice((text, other))) or ["word"])
    return re.sub(rf"\b{rng.choice(words)}\b", new, text) if words else text


@of_text
def with_odd_text(rng: Random, text: str, other: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(ODD_TEXT) * rng.choice((1, 1, 2, 500)) + text[at:]


@of_text
def with_deep_nesting(rng: Random, text: str, other: str) -> str:
    """Brackets that open, and may close, very often at one place."""
    opening, closing = rng.choice(("[]", "{}", "()", ('{"a":', "}")))
    depth = rng.choice((10, 33, 1000, 100_000))
    nest = opening * depth + rng.choice(("", "1", '"x"')) + closing * rng.choice((0, depth, depth - 1))
    if rng.random() < 0.7:
        return _match_replaced(rng, text, r"\d+", lambda old: nest)
    at = rng.randint(0, len(text))
    return text[:at] + nest + text[at:]


@of_lines
def with_lines_swapped(rng: Random, lines: list[str], other: list[str]) -> list[str]:
    first, second = (rng.randrange(len(lines)) for _ in range(2))
    lines[first], lines[second] = lines[second], lines[first]
    return lines


@of_lines
def with_lines_again(rng: Random, lines: list[str], other: list[str]) -> list[str]:
    """Some lines a second time, or one of them very often."""
    first, last = sorted(rng.randrange(len(lines) + 1) for _ in range(2))
    often = rng.choice((1, 1, 2, MOST_REPEATS)) if last - first <= 2 else 1
    return lines[:last] + lines[first:last] * often + lines[last:]


@of_lines
def with_lines_dropped(rng: Random, lines: list[str], other: list[str]) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + rng.choice((1, 1, 2, 5)) :]


@of_lines
def with_lines_of_another(rng: Random, lines: list[str], other: list[str]) -> list[str]:
    first, last = sorted(rng.randrange(len(other) + 1) for _ in range(2))
    at = rng.randrange(len(lines) + 1)
    return lines[:at] + other[first:last] + lines[at + rng.choice((0, last - first)) :]


TEXT: Sequence[Mutator] = (
    with_another_number,
    with_another_number,
    with_another_number,
    with_a_near_number,
    with_a_near_number,
    with_another_word,
    with_another_word,
    with_odd_text,
    with_deep_nesting,
    with_lines_swapped,
    with_lines_again,
    with_lines_dropped,
    with_lines_of_another,
)


def damaged(rng: Random, corpus: Sequence[bytes], mutators: Sequence[Mutator]) -> bytes:
    """A file of the corpus after one to three changes, seldom nothing of it."""
    if rng.random() < 0.01:
        return replaced(rng, b"", b"")
    content = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(mutators)(rng, content, rng.choice(corpus))
    return content
