"""Writes a report: one HTML file with its style, its scripts and its data inside, which nothing is loaded for.

Texts of stages stand in the file as they are, for whoever reads it without JavaScript, up to `PLAIN_BYTES` of them;
longer ones (LLVM IR and assembly of large networks) are deflated, and the browser inflates them when they are shown.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gradloom.compiler.collection import no_garbage_collection
from gradloom.inspection.report.document import report_document
from gradloom.inspection.stages import GRAPH_STAGES
from gradloom.runtime.files import published

if TYPE_CHECKING:
    from gradloom.inspection.inspection import Inspection
    from gradloom.inspection.profiling import Profile

SCRIPTS = ("data.js", "layout.js", "scene.js", "view.js", "details.js", "charts.js", "listings.js", "app.js")
"""In the order in which they are joined to one."""

SUFFIXES = (".html", ".htm")

PLAIN_BYTES = 400_000
"""Bytes up to which a stage's text stands in the file as it is; graphs do so always."""


@no_garbage_collection()
def save_report(inspection: Inspection, path: str | os.PathLike[str], profile: Profile | None = None) -> Path:
    """Write the report to `path`, which is replaced as a whole or not at all; return it."""
    check_path(path)
    # Opened first: an error of the path comes before the work.
    with published(path) as file:
        file.write(report_html(inspection, profile).encode())
    return Path(path)


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise `ValueError` for a path that does not end as what is written."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"Expected a report's path ending in {' or '.join(SUFFIXES)}. Received: {os.fspath(path)!r}")


def report_html(inspection: Inspection, profile: Profile | None = None) -> str:
    """Return the report as the text of an HTML file."""
    document, texts = report_document(inspection, profile)
    style, script = _file("style.css"), "".join(map(_file, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    plain = [name for name, text in texts.items() if name in GRAPH_STAGES or len(text.encode()) <= PLAIN_BYTES]
    # Long texts are deflated beside the encoding of the document.
    with ThreadPoolExecutor(2) as beside:
        long = [beside.submit(_packed, f"packed-{name}", text) for name, text in texts.items() if name not in plain]
        encoded = _packed("document", json.dumps(document, separators=(",", ":"), ensure_ascii=False))
        packed = [encoded, *(each.result() for each in long)]
    parts = {
        "policy": escape(policy),
        "title": escape(inspection.title),
        "style": style,
        "texts": "\n".join(_plain(name, texts[name]) for name in plain),
        "left": _left([name for name in texts if name not in plain]),
        "packed": "\n".join(packed),
        "script": script,
    }
    return _filled(_file("template.html"), parts)


def _filled(template: str, parts: dict[str, str]) -> str:
    """Replace each {{name}} once; what is put in is not looked at again."""
    first, *pieces = template.split("{{")
    filled = [first]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _plain(name: str, text: str) -> str:
    # A line feed straight after <pre> is not part of it; the text's own first one must be.
    return (
        f'<details class="plain"><summary>{name}</summary><pre id="text-{name}">\n{escape(text, False)}</pre></details>'
    )


def _left(names: list[str]) -> str:
    return f"<p>With JavaScript also: {', '.join(names)}.</p>" if names else ""


def _packed(name: str, text: str) -> str:
    packed = base64.b64encode(zlib.compress(text.encode(), 6)).decode()
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
