"""Text in encodings that lack characters: what can be said is kept, the rest is alike or an escape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradloom.plain_text import PLAIN


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "cp437", "utf-8"]))
def test_any_text_is_encoded(text: str, encoding: str) -> None:
    read = text.encode(encoding, PLAIN).decode(encoding)
    try:
        assert read == text.encode(encoding).decode(encoding)
    except UnicodeEncodeError:
        assert read.isascii() or encoding != "ascii"
        assert read != text


def test_signs_become_alike_ones_and_letters_escapes() -> None:
    assert "│ größe → 漢 │".encode("ascii", PLAIN) == rb"| gr\xf6\xdfe > \u6f22 |"
    assert "│ größe → 漢 │".encode("latin-1", PLAIN).decode("latin-1") == r"| größe > \u6f22 |"


def test_what_cannot_be_decoded_is_an_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", PLAIN)
