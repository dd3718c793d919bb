"""Downloads from a server on this machine that breaks off, ignores ranges, lies, or sends too much."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gradloom.datasets import download
from gradloom.datasets.download import DownloadError, fetch

CONTENT = bytes(range(256)) * 1200
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; each entry of `cuts` breaks one response off after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.honours_ranges = True
        self.shifted = 0
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) if match and self.server.honours_ranges else 0
        if self.server.status or (start and start >= len(self.server.content)):
            self.send_error(self.server.status or 416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start + self.server.shifted}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.gz"


def files(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


def test_the_whole_file_arrives_under_its_name(server: Server, file: Path) -> None:
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT
    assert files(file) == ["file.gz"]
    assert server.ranges == [None]


def test_a_present_file_is_not_asked_for(server: Server, file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"mine")
    fetch(server.url, file, MD5)
    assert file.read_bytes() == b"mine"
    assert server.ranges == []


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, file: Path) -> None:
    server.cuts = [100_000, 50_000]
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, file: Path) -> None:
    server.cuts = [120_000, 0]
    with pytest.raises(DownloadError, match="broke off, after 120000 bytes"):
        fetch(server.url, file, MD5)
    assert files(file) == ["file.gz.part"]
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=120000-"
    assert files(file) == ["file.gz"]


def test_a_server_without_ranges_sends_everything_again(server: Server, file: Path) -> None:
    server.honours_ranges = False
    server.cuts = [90_000]
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(CONTENT) + 5)], ids=["short", "longer than the file"])
def test_a_bad_rest_of_an_earlier_call_is_thrown_away(server: Server, file: Path, left: bytes) -> None:
    file.parent.mkdir()
    file.with_name("file.gz.part").write_bytes(left)
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(left)}-", None]


def test_a_complete_rest_needs_its_name_only(server: Server, file: Path) -> None:
    file.parent.mkdir()
    file.with_name("file.gz.part").write_bytes(CONTENT)
    fetch(server.url, file, MD5)
    assert file.read_bytes() == CONTENT


def test_other_content_is_refused_and_not_kept(server: Server, file: Path) -> None:
    server.content = CONTENT[:-1] + b"!"
    received = hashlib.md5(server.content).hexdigest()
    with pytest.raises(DownloadError, match=f"Expected MD5: {MD5}. Received: {received}"):
        fetch(server.url, file, MD5)
    assert files(file) == []


def test_a_server_that_resumes_elsewhere_is_refused(server: Server, file: Path) -> None:
    server.cuts, server.shifted = [1000], 7
    with pytest.raises(DownloadError, match="Expected bytes from 1000 on. Received: Content-Range: 'bytes 1007-"):
        fetch(server.url, file, MD5)
    assert not file.exists()


def test_a_body_beyond_the_limit_is_refused(server: Server, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match="Expected at most 1000 bytes. Received: 307200"):
        fetch(server.url, file, MD5)
    assert files(file) == []


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_of_the_server_is_passed_on(server: Server, file: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=f"file.gz: HTTP Error {status}"):
        fetch(server.url, file, MD5)
    assert server.ranges == [None]
    assert files(file) == []


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(DownloadError, match="taken/file.gz: cannot be written"):
        fetch(server.url, tmp_path / "taken" / "file.gz", MD5)


def test_a_size_alone_tells_a_whole_file(server: Server, file: Path) -> None:
    server.cuts = [100_000]
    fetch(server.url, file, size=len(CONTENT))
    assert file.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_file_of_another_size_is_refused_and_not_kept(server: Server, file: Path, difference: int) -> None:
    with pytest.raises(DownloadError, match=rf"Expected: {len(CONTENT) + difference} bytes. Received: {len(CONTENT)} "):
        fetch(server.url, file, size=len(CONTENT) + difference)
    assert files(file) == []
