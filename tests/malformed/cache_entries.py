"""Entries of the cache of programs and texts: damaged below their checksum, and with one that fits the damage."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from random import Random

from gradloom.compiler import parse
from gradloom.compiler.pipeline import compile_graph
from gradloom.runtime import cache
from malformed.formats import Format
from malformed.mutators import BYTES, TEXT, Mutator, damaged

GRAPH = """graph "step" {
  %0: f32[8,16] = input {label="x"}
  %1: f32[16] = input {label="b", role="parameter"}
  %2: f32[8,16] = broadcast_to %1 {shape=[8, 16]}
  %3: f32[8,16] = add %0 %2
  output "y" = %3
}
"""
PROGRAM, TEXT_KEY = "a program", "a text"
START = 8 + 32
"""Bytes of an entry before what its checksum is of."""


class CacheFormat(Format):
    """Damage is a miss, and the entry goes; what has a checksum of its own is a miss, or a program in its parts."""

    mutators: tuple[Mutator, ...] = (*BYTES, *TEXT[:6])

    def __init__(self, folder: Path) -> None:
        os.environ["GRADLOOM_CACHE_DIR"] = str(folder / "cache")
        self.program, self.text = compile_graph(parse(GRAPH)), "define void @k0() {\n}\n" * 50
        cache.store(PROGRAM, self.program)
        cache.store_text(TEXT_KEY, self.text)
        entries = sorted((folder / "cache").iterdir(), key=lambda path: path.suffix)
        self.program_path, self.text_path = entries
        self.corpus = [path.read_bytes() for path in entries]

    def mutant(self, rng: Random) -> bytes:
        if rng.random() < 0.5:
            return damaged(rng, self.corpus, self.mutators)
        # The checksum guards against accidents: behind it, descriptions are checked, too.
        code = b"".join(self.program.code)
        head = self.corpus[0][: -len(code)]
        body = damaged(rng, [head[START:]], self.mutators) + code
        return head[:8] + hashlib.blake2b(body, digest_size=32).digest() + body

    def read(self, path: Path, content: bytes) -> str:
        self.program_path.write_bytes(content)
        self.text_path.write_bytes(content)
        program, text = cache.load(PROGRAM), cache.load_text(TEXT_KEY)
        whole = content[8:START] == hashlib.blake2b(content[START:], digest_size=32).digest()
        if content in self.corpus:
            assert (program, text) == ((self.program, None) if content == self.corpus[0] else (None, self.text))
        elif not whole:
            assert (program, text) == (None, None)
        if program is None:
            assert not self.program_path.exists()
        if whole and program is not None:
            assert type(program).from_bytes(program.to_bytes()) == program
        return "miss" if program is None and text is None else "read"
