"""Text in drawings: its escapes, and how wide it will be: estimated, since the fonts are the viewer's."""

from __future__ import annotations

from html import escape

SANS = "ui-sans-serif, -apple-system, 'Segoe UI', Inter, Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_NARROW = frozenset("iljtfrI.,:;'|!()[]{}/ ·")
_WIDE = frozenset("mwMW@%")


def text_width(text: str, family: str, size: float) -> float:
    """Pixels that `text` takes at a font size, on the generous side."""
    if family == MONO:
        return 0.61 * size * len(text)
    return size * sum(0.38 if c in _NARROW else 0.92 if c in _WIDE else 0.70 if c.isupper() else 0.61 for c in text)


def escaped(text: str) -> str:
    """Return `text` for XML, without the control characters that XML cannot hold."""
    return escape("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))
