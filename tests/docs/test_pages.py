"""The pages of the documentation run, print what they show, and draw the pictures that they show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import doc_pages
import gradloom.compiler.ops  # noqa: F401  (a page must leave the ops that there are)
from gradloom.compiler.ir import Op
from gradloom.compiler.llvm.target import host_levels

DOCS = doc_pages.ROOT / "docs"
EXECUTED = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text(encoding="utf-8")]


def test_the_pages_with_code_are_all_here() -> None:
    assert {"tour.md", "ir.md", "adding_an_op.md"} <= {page.name for page in EXECUTED}


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_page_prints_what_it_shows(page: Path) -> None:
    if "x86-64-v3" not in host_levels():
        pytest.skip("the pages show code for x86-64-v3")
    before = dict(Op.registry)
    outcome = doc_pages.run_page(page)
    renew = f"where that is right, run python tests/doc_pages.py docs/{page.name}"
    assert not outcome.differences, "\n".join([*outcome.differences, renew])
    assert Op.registry == before
    shown = set(re.findall(r"\]\(pictures/([^)]+)\)", page.read_text(encoding="utf-8")))
    # Pictures that are named after the page are the page's own; screenshots and charts of times are made elsewhere.
    assert {name for name in shown if name.startswith(f"{page.stem}-")} == set(outcome.pictures)
    for name, picture in outcome.pictures.items():
        kept = (DOCS / "pictures" / name).read_text(encoding="utf-8")
        assert kept == picture, f"docs/pictures/{name} is out of date; {renew}"


def test_every_picture_is_shown_by_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    unused = [picture.name for picture in (DOCS / "pictures").iterdir() if f"pictures/{picture.name})" not in pages]
    assert not unused


def test_a_wrong_output_and_a_missing_one_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_pages, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\nprint(x)\n```\n\n```text\n3\n```\n\n```python\nprint(x + 1)\n```\n")
    outcome = doc_pages.run_page(page)
    wrong, missing = outcome.differences
    assert wrong.startswith("page.md:7:") and "printed\n2" in wrong
    assert missing.startswith("page.md:11:") and missing.endswith("3\n")
    assert "```text\n2\n```" in outcome.text


def test_an_exception_names_the_line_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doc_pages, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("Words.\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        doc_pages.run_page(page)
    last = caught.traceback[-1]
    assert (str(last.path).rsplit("/", 1)[-1], last.lineno + 1) == ("page.md", 5)
