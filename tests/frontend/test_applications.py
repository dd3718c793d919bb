"""Published files of an application: taken from the cache, downloaded into it, or explained."""

from __future__ import annotations

from pathlib import Path

import pytest

import gradloom as gl
from gradloom.applications import published
from gradloom.applications.published import FileNotAvailableError, Published
from gradloom.datasets import download
from gradloom.datasets.download import DownloadError


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_cached_file_is_not_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "gradloom" / "darknet53" / "darknet53.weights"
    file.parent.mkdir(parents=True)
    with file.open("wb") as stream:
        stream.truncate(published.WEIGHTS.size)
    assert gl.applications.weights_file() == file


def test_another_file_in_the_place_of_a_published_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "gradloom" / "darknet53" / "imagenet.shortnames.list"
    file.parent.mkdir(parents=True)
    file.write_text("cat\ndog\n")
    message = r"shortnames\.list: Expected the file .* of 10473 bytes\. Received: 8 bytes\. Delete it"
    with pytest.raises(FileNotAvailableError, match=message):
        gl.applications.labels_file()
    assert file.exists()


def test_a_file_out_of_reach_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, destination: Path, size: int) -> None:
        raise DownloadError(f"{url}: no route to host")

    monkeypatch.setattr(published, "fetch", fetch)
    place = tmp_path / "gradloom" / "darknet53" / "darknet53.weights"
    with pytest.raises(
        FileNotAvailableError, match="neither in the folder of downloads nor within reach: .*: no route to host"
    ) as caught:
        gl.applications.Darknet53(weights="imagenet")
    message = str(caught.value)
    assert "https://pjreddie.com/media/files/darknet53.weights (166582580 bytes)" in message
    assert str(place) in message
    assert not place.exists()


def test_the_size_is_told_to_the_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, Path, int | None]] = []

    def fetch(url: str, destination: Path, md5: str | None = None, size: int | None = None) -> None:
        asked.append((url, destination, size))

    monkeypatch.setattr(published, "fetch", fetch)
    file = Published("https://example.org/some/file.bin", 77).get()
    assert asked == [("https://example.org/some/file.bin", tmp_path / "gradloom" / "darknet53" / "file.bin", 77)]
    assert file == asked[0][1]


def test_a_download_needs_something_to_be_known_by(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected md5 or size"):
        download.fetch("http://127.0.0.1:9/file", tmp_path / "file")
