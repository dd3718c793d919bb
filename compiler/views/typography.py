"""How wide text will be in a drawing: estimated, since the fonts are the viewer's."""

from __future__ import annotations

SANS = "ui-sans-serif, -apple-system, 'Segoe UI', Inter, Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_NARROW = frozenset("iljtfrI.,:;'|!()[]{}/ ·")
_WIDE = frozenset("mwMW@%")


def text_width(text: str, family: str, size: float) -> float:
    """Pixels that `text` takes at a font size, on the generous side."""
    if family == MONO:
        return 0.61 * size * len(text)
    return size * sum(0.38 if c in _NARROW else 0.92 if c in _WIDE else 0.70 if c.isupper() else 0.61 for c in text)
