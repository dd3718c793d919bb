"""Runs the pages of the documentation: their Python, what it prints, and the pictures it leaves.

The blocks marked `python` of a page run one after the other in one namespace. A block marked `text`, `llvm` or `asm`
that follows is what they must have printed since the last such block, to the letter. Files that a page writes below
`docs/pictures` must be the ones in the repository.

    python tests/doc_pages.py docs/tour.md        writes what is printed, and the pictures, into the repository
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PICTURES = Path("docs") / "pictures"
OUTPUTS = ("text", "llvm", "asm")

LLVM_VERSION = 22
"""The LLVM that printed the blocks `llvm` and `asm`: another one may choose other names and registers."""

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where its body begins and ends in the page, in characters."""

    language: str
    start: int
    stop: int


@dataclass
class Outcome:
    """What running a page gave: the page with all that was printed, where it differs, and the pictures."""

    text: str
    differences: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(match["language"], match.start("body"), match.end("body")) for match in _FENCE.finditer(text)]


def run_page(page: Path) -> Outcome:
    """Run a page from a folder of its own, and compare what it prints; the code's exceptions are raised."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    outcome = Outcome("")
    written = 0
    # Python finds the text of a page's functions as it does that of functions in files.
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    with module_for(f"page_{page.stem}") as module, own_surroundings() as folder:
        printed, source = "", 0
        for block in blocks(text):
            body, line = text[block.start : block.stop], text.count("\n", 0, block.start) + 1
            if block.language == "python":
                if printed:
                    outcome.differences.append(f"{name}:{source}: prints what the page does not show:\n{printed}")
                # Lines are counted as in the page, for tracebacks and for the provenance that the page shows.
                code = compile("\n" * (line - 1) + body, name, "exec")
                with contextlib.redirect_stdout(io.StringIO()) as stream:
                    exec(code, module.__dict__)
                printed, source = _without_trailing_space(stream.getvalue()), line
            elif block.language in OUTPUTS:
                if block.language == "text" or _llvm_version() == LLVM_VERSION:
                    if printed != body:
                        outcome.differences.append(f"{name}:{line}: expected\n{body}\nbut it printed\n{printed}")
                    outcome.text += text[written : block.start] + printed
                    written = block.stop
                printed = ""
        if printed:
            outcome.differences.append(f"{name}:{source}: prints what the page does not show:\n{printed}")
        for picture in sorted((folder / PICTURES).iterdir()):
            outcome.pictures[picture.name] = picture.read_text(encoding="utf-8")
    outcome.text += text[written:]
    return outcome


def update(page: Path) -> None:
    """Write what a page prints into it, and its pictures beside it."""
    outcome = run_page(page)
    page.write_text(outcome.text, encoding="utf-8")
    for name, picture in outcome.pictures.items():
        (ROOT / PICTURES / name).write_text(picture, encoding="utf-8")
    print(f"{page.relative_to(ROOT)}: {len(outcome.differences)} outputs renewed, {len(outcome.pictures)} pictures")


@contextlib.contextmanager
def module_for(name: str) -> Iterator[ModuleType]:
    """A module for a page's names: classes that the page defines find theirs there."""
    module = sys.modules[name] = ModuleType(name)
    try:
        yield module
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def own_surroundings() -> Iterator[Path]:
    """A scratch folder to run in; environment, registry of ops and random state are afterwards what they were."""
    import hypothesis

    import gradloom as gl
    import gradloom.compiler.ops  # all ops are registered before the registry is kept
    from gradloom.compiler.ir import Op

    environment, registry = dict(os.environ), dict(Op.registry)
    profile = hypothesis.settings.get_current_profile_name()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (seeding a page seeds the generators of old)
    gl.utils.clear_session()
    gl.utils.set_random_seed(0)
    # An op that a page defines must not leave compiled code under its name.
    os.environ["GRADLOOM_CACHE"] = "off"
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        (Path(folder) / PICTURES).mkdir(parents=True)
        try:
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(environment)
            Op.registry.clear()
            Op.registry.update(registry)
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            gl.utils.clear_session()
            hypothesis.settings.load_profile(profile)


def _without_trailing_space(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.rstrip("\n").split("\n")) if text else ""


def _llvm_version() -> int:
    from llvmlite.binding import llvm_version_info

    return int(llvm_version_info[0])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        update(Path(argument).resolve())
