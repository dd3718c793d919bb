"""Publishing files: the old content or the new one, nothing left behind, errors that name the path asked for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gradloom.runtime.files import make_folder, published


def test_the_file_has_what_was_written(tmp_path: Path) -> None:
    with published(tmp_path / "file") as file:
        file.write(b"content")
        assert not (tmp_path / "file").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_alone(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left") as caught, published(target) as file:
        file.write(b"new")
    assert str(caught.value) == f"[Errno 28] No space left on device: {str(target)!r}"
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_where_the_folder_cannot_be_synchronized_the_new_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronize, target = os.fsync, tmp_path / "file"

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        synchronize(descriptor)

    target.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error") as caught, published(target) as file:
        file.write(b"new")
    assert caught.value.filename == str(target)
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


def test_new_folders_are_synchronized_with_what_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Path] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.add(Path(f"/proc/self/fd/{descriptor}").resolve()))
    make_folder(tmp_path / "one" / "two")
    assert (tmp_path / "one" / "two").is_dir() and seen == {tmp_path, tmp_path / "one"}
    seen.clear()
    make_folder(tmp_path / "one" / "two")
    assert not seen


def test_an_interrupt_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with published(target) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_the_file_and_its_folder_are_synchronized_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    synchronize, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        seen.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path else "file")
        synchronize(descriptor)

    def replace(source: Path, target: Path) -> None:
        seen.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with published(tmp_path / "file") as file:
        file.write(b"content")
    assert seen == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("umask", "mode", "expected"), [(0o022, 0o666, 0o644), (0o077, 0o666, 0o600), (0, 0o600, 0o600)]
)
def test_a_new_file_has_the_permissions_that_the_umask_leaves(
    umask: int, mode: int, expected: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        with published(tmp_path / "file", mode):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected


def test_a_replaced_file_hands_on_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.touch(0o640)
    target.chmod(0o640)
    with published(target):
        pass
    assert target.stat().st_mode & 0o777 == 0o640


def test_what_a_link_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    with published(tmp_path / "link") as file:
        file.write(b"content")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("missing/file", FileNotFoundError), ("folder", IsADirectoryError), ("file/below", NotADirectoryError)],
)
def test_errors_name_the_path_that_was_asked_for(name: str, kind: type[OSError], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(kind) as caught, published(tmp_path / name):
        pytest.fail("the block was entered")
    assert caught.value.filename == str(tmp_path / name) and name in str(caught.value)
    missing = f"No such folder as {tmp_path / 'missing'}"
    assert (caught.value.strerror == missing) == (kind is FileNotFoundError)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Expected a regular file") as caught, published(tmp_path / "pipe"):
        pytest.fail("the block was entered")
    assert caught.value.filename == str(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
