"""An SVG document of its own: its styles and ids stay inside, also where a page holds several drawings.

A notebook inlines what cells show: there, style sheets apply to the whole page, and ids are looked for in all of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from gradloom.compiler.views.typography import escaped


def document(label: str, width: float, height: float, style: str, lines: Iterable[str]) -> str:
    """Return an SVG document on a page of `width` × `height` pixels, with the class `page` for its background.

    style: CSS rules, each `selectors{declarations}`, at most in a @media block. They, the ids of `lines` and the
    references to these get a prefix that follows from the content: the same drawing is the same text.
    """
    body = "\n".join(lines)
    digest = hashlib.sha256(f"{label}\n{width} {height}\n{style}\n{body}".encode()).hexdigest()
    name = f"d{digest[:10]}"
    # Only tags are concerned: in texts quotation marks are escaped.
    body = re.sub(r'\b(id="|href="#)', rf"\g<1>{name}-", body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{name}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{escaped(label)}">\n'
        f"<style>{_scoped(style, name)}</style>\n"
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}" rx="10"/>\n'
        f"{body}\n</svg>\n"
    )


def _scoped(style: str, name: str) -> str:
    """The rules, for what is inside of an element of the class `name`."""

    def scoped(found: re.Match[str]) -> str:
        selectors = found[1]
        return found[0] if selectors is None else ",".join(f".{name} {each.strip()}" for each in selectors.split(","))

    rules = re.sub(r"@[^{}]*\{|([^{}@\s][^{}]*)(?=\{)", scoped, style)
    return rules.replace("url(#", f"url(#{name}-")
