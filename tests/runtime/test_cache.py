"""The cache on disk: what is found again, and that nothing damaged ever is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gradloom.compiler.program import Argument, Program, Slot
from gradloom.compiler.types import F32, I32, OPEN, TensorType
from gradloom.runtime import cache


def program(name: str = "step", code: bytes = b"\x7fELF code") -> Program:
    return Program(
        name,
        (code,),
        (
            Argument("dense/kernel", TensorType(F32, (10, 128)), "parameter", (1, 0), written=True),
            Argument("x", TensorType(F32, (OPEN, 784)), "data"),
            Argument("rows", TensorType(I32, (32,)), "indices"),
        ),
        arena_bytes=256,
        scratch_bytes=64,
        max_threads=2,
        schedule=("matmul(argument 0, arena+64) blocks=3", "barrier"),
        buffers=(Slot("hidden", 64, 128, 0, 1),),
        notes=("übung",),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    for name in ("GRADLOOM_CACHE", "GRADLOOM_CACHE_LIMIT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRADLOOM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def test_what_was_stored_is_found_and_counted():
    before = cache.info()
    assert cache.load("key") is None
    cache.store("key", program())
    assert cache.load("key") == program()
    assert cache.load("another key") is None
    after = cache.info()
    assert (after.hits - before.hits, after.misses - before.misses, after.entries) == (1, 2, 1)
    assert after.nbytes == only_entry(after.folder).stat().st_size


def test_a_key_stands_for_the_program_stored_last(folder):
    cache.store("key", program("first"))
    cache.store("key", program("second"))
    assert cache.load("key") == program("second")
    only_entry(folder)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_flipped_bit_is_a_miss(folder, data):
    cache.store("key", program())
    entry = only_entry(folder)
    content = bytearray(entry.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    entry.write_bytes(content)
    assert cache.load("key") is None
    assert not entry.exists()


@given(data=st.data(), tail=st.binary(max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_entry_cut_off_or_overwritten_is_a_miss(folder, data, tail):
    cache.store("key", program())
    entry = only_entry(folder)
    content = entry.read_bytes()
    changed = content[: data.draw(st.integers(0, len(content)))] + tail
    entry.write_bytes(changed)
    assert (cache.load("key") is None) == (changed != content)


@given(text=st.text(), bit=st.integers(0))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_is_found_again_unless_a_bit_of_it_is_flipped(folder, text, bit):
    cache.clear()
    cache.store_text("key", text)
    assert cache.load_text("key") == text
    assert cache.load_text("another key") is None
    entry = only_entry(folder)
    content = bytearray(entry.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    entry.write_bytes(content)
    assert cache.load_text("key") is None
    assert not entry.exists()


def test_programs_and_texts_share_no_keys():
    cache.store_text("key", "text")
    assert cache.load("key") is None
    cache.store("key", program())
    assert (cache.load("key"), cache.load_text("key")) == (program(), "text")
    assert cache.info().entries == cache.clear() == 2


def test_damage_is_logged_at_debug_level(folder, caplog):
    cache.store("key", program())
    entry = only_entry(folder)
    entry.write_bytes(entry.read_bytes()[:-1])
    with caplog.at_level(logging.DEBUG, "gradloom.runtime.cache"):
        cache.load("key")
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert str(entry) in caplog.text and "Expected the checksum" in caplog.text


def test_an_entry_under_another_key_is_a_miss(folder):
    cache.store("key", program())
    entry = only_entry(folder)
    cache.store("other", program())
    (other,) = set(folder.iterdir()) - {entry}
    other.write_bytes(entry.read_bytes())
    assert cache.load("other") is None
    assert cache.load("key") == program()


def test_a_folder_that_cannot_be_made_or_read_is_no_error(folder):
    folder.write_text("a file where the folder should be")
    cache.store("key", program())
    assert cache.load("key") is None
    assert cache.info().entries == 0
    assert cache.clear() == 0
    assert folder.read_text() == "a file where the folder should be"


def test_an_entry_that_cannot_be_replaced_is_no_error(folder):
    cache.store("key", program())
    entry = only_entry(folder)
    entry.unlink()
    entry.mkdir()
    cache.store("key", program())
    assert cache.load("key") is None
    assert [path.name for path in folder.iterdir()] == [entry.name]  # Nothing half written stays behind.


def _loop(entry: Path) -> None:
    entry.symlink_to(entry.with_suffix(".other"))
    entry.with_suffix(".other").symlink_to(entry)


def _full_folder(entry: Path) -> None:
    entry.mkdir()
    (entry / "file").write_bytes(b"content")


def _sparse(entry: Path) -> None:
    with entry.open("wb") as file:
        file.truncate(1 << 40)


ODD_ENTRIES: dict[str, Callable[[Path], None]] = {
    "a loop of links": _loop,
    "a link to nothing": lambda entry: entry.symlink_to("nothing"),
    "a link to a folder": lambda entry: entry.symlink_to("/"),
    "a link to a device": lambda entry: entry.symlink_to("/dev/zero"),
    "a folder": _full_folder,
    "a pipe": os.mkfifo,
    "a file of a terabyte": _sparse,
    "an empty file": Path.touch,
}


@pytest.mark.parametrize("kind", ODD_ENTRIES)
def test_what_is_no_file_is_a_miss(folder, kind):
    cache.store("key", program())
    entry = only_entry(folder)
    entry.unlink()
    ODD_ENTRIES[kind](entry)
    descriptors = os.listdir("/proc/self/fd")
    assert cache.load("key") is None
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)
    # It takes the place of all that the system lets it replace.
    cache.store("key", program())
    lasting = kind in ("a folder", "a link to a folder", "a loop of links")
    assert cache.load("key") == (None if lasting else program())
    assert cache.clear() == (kind != "a loop of links") - (kind == "a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_entry_that_may_not_be_read_is_a_miss(folder):
    cache.store("key", program())
    only_entry(folder).chmod(0)
    assert cache.load("key") is None
    cache.store("key", program())
    assert cache.load("key") == program()


def test_the_least_recently_used_entries_go_first(folder, monkeypatch):
    for number in range(4):
        cache.store(f"key {number}", program())
    size = cache.info().nbytes // 4
    paths = {number: folder / (cache._digest(f"key {number}").hex() + ".program") for number in range(4)}
    for number, path in paths.items():
        os.utime(path, ns=(0, number * 10**9))
    assert cache.load("key 0") is not None  # Now it is the one used last.
    monkeypatch.setenv("GRADLOOM_CACHE_LIMIT", str(3 * size))
    cache.store("key 4", program())
    found = [number for number in range(5) if cache.load(f"key {number}") is not None]
    assert found == [0, 3, 4]


def test_a_program_above_the_limit_is_not_kept(monkeypatch):
    cache.store("small", program())
    monkeypatch.setenv("GRADLOOM_CACHE_LIMIT", str(2 * cache.info().nbytes))
    cache.store("large", program(code=bytes(10_000)))
    assert cache.load("large") is None
    assert cache.load("small") is not None


def test_a_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("GRADLOOM_CACHE_LIMIT", "1GB")
    with pytest.raises(cache.CacheLimitError, match=r"number of bytes in GRADLOOM_CACHE_LIMIT\. Received: '1GB'"):
        cache.info()


def test_files_that_a_killed_process_left_are_removed_later(folder):
    cache.store("key", program())
    old, new = folder / ".writing-old", folder / ".writing-new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.store("another", program())
    assert not old.exists() and new.exists()


def test_clear_removes_every_entry_and_nothing_else(folder):
    cache.store("key", program())
    cache.store("another", program())
    (folder / "notes.txt").write_text("mine")
    assert cache.clear() == 2
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert cache.load("key") is None


def test_it_can_be_switched_off(folder, monkeypatch):
    monkeypatch.setenv("GRADLOOM_CACHE", "0")
    cache.store("key", program())
    assert cache.load("key") is None
    assert not folder.exists() and str(cache.info()) == "cache: off"


def test_the_home_of_nobody_is_no_error(monkeypatch):
    monkeypatch.setenv("GRADLOOM_CACHE_DIR", "~no-such-user/cache")
    assert cache.cache_folder() is None
    cache.store("key", program())
    assert cache.load("key") is None and cache.clear() == 0


def test_the_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("GRADLOOM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "gradloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "gradloom"


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cache import cache, program
for number in range(30):
    cache.store("key", program(sys.argv[2], sys.argv[2].encode() * 50_000))
    found = cache.load("key")
    assert found is not None and found.code == (found.name.encode() * 50_000,), found and found.name
"""


def test_processes_may_write_the_same_entry_at_once(folder):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(Path(__file__).parent), name], stderr=subprocess.PIPE, text=True
        )
        for name in "ab"
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert cache.load("key").name in "ab"
    only_entry(folder)


@given(content=st.binary(max_size=200))
@example(content=program().to_bytes()[:40])
@example(content=b"GLPROG\x01\x00" + (2).to_bytes(8, "little") + b"{}")
@example(content=b"GLPROG\x01\x00" + (4).to_bytes(8, "little") + b"null")
@example(content=b"GLPROG\x01\x00" + (2**63).to_bytes(8, "little") + b"{}")
def test_bytes_that_are_no_program_are_refused(content):
    from gradloom.compiler.program import ProgramError

    with pytest.raises(ProgramError, match="Expected"):
        Program.from_bytes(content)
