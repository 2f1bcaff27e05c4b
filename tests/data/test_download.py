"""Downloading from a server of our own in a thread: resuming, servers that cannot, cut lines, wrong files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fsl_cli.data.download import download
from fsl_cli.errors import UserError

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()
CUT = 100_000  # bytes, after which the line goes dead


class Server(ThreadingHTTPServer):
    """Serves CONTENT, and notes what was asked for."""

    ranges = True  # whether it can send a part
    cut = False
    page = False  # a log-in page instead of the file
    missing = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []  # the Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/it.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        first = int(asked[len("bytes=") : -1]) if asked and self.server.ranges else 0
        if self.server.missing or first >= len(CONTENT):
            self.send_error(404 if self.server.missing else 416)
            return
        content = b"<html>Please log in</html>" if self.server.page else CONTENT[first:]
        self.send_response(206 if first and not self.server.page else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8" if self.server.page else "application/zip")
        self.send_header("Content-Length", str(len(content)))
        if first and not self.server.page:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(content[:CUT] if self.server.cut else content)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "it.zip"


def fetch(server: Server, path: Path, md5: str | None = MD5) -> None:
    download(server.url, path, md5, "Put it into a folder")


def fails(server: Server, path: Path, *says: str, md5: str | None = MD5) -> None:
    with pytest.raises(UserError) as error:
        fetch(server, path, md5)
    wanted = (f"it.zip could not be downloaded from {server.url}: ", "Put it into a folder.", *says)
    assert not [text for text in wanted if text not in str(error.value)], error.value
    assert not path.exists()


def test_a_file_comes_whole_and_once(server: Server, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert list(path.parent.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")  # no bar where nobody looks


@pytest.mark.parametrize("ranges", [True, False], ids=["the server can resume", "it cannot"])
def test_after_a_cut_it_goes_on(server: Server, path: Path, ranges: bool) -> None:
    server.ranges, server.cut = ranges, True
    part = path.with_name("it.zip.part")
    fails(server, path, "cut after 100,000 of 256,000 bytes", f"{part} is kept")
    assert part.read_bytes() == CONTENT[:CUT]
    if ranges:
        fails(server, path, "cut after 200,000 of 256,000 bytes")
    server.cut = False
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ([None, "bytes=100000-", "bytes=200000-"] if ranges else [None, "bytes=100000-"])
    assert list(path.parent.iterdir()) == [path]


def test_a_whole_part_only_gets_its_name(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("it.zip.part").write_bytes(CONTENT)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["bytes=256000-"]


@pytest.mark.parametrize("begun", [b"of another file", bytes(len(CONTENT)), bytes(len(CONTENT) + 1)])
def test_a_part_of_another_file_is_fetched_again(server: Server, path: Path, begun: bytes) -> None:
    path.parent.mkdir()
    path.with_name("it.zip.part").write_bytes(begun)
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(begun)}-", None]


def test_a_damaged_file_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_another_file_is_not_kept(server: Server, path: Path) -> None:
    fails(server, path, "what came has another MD5", md5="0" * 32)
    assert not list(path.parent.iterdir())


def test_a_web_page_does_not_replace_what_came_before(server: Server, path: Path) -> None:
    server.cut = True
    fails(server, path, "cut after")
    server.cut, server.page = False, True
    fails(server, path, "a web page came instead of the file", "is kept")
    assert path.with_name("it.zip.part").read_bytes() == CONTENT[:CUT]


def test_without_an_md5_nothing_is_pieced_together(server: Server, path: Path) -> None:
    server.cut = True
    fails(server, path, "cut after 100,000 of 256,000 bytes. Put it into a folder.", md5=None)
    server.cut = False
    fetch(server, path, md5=None)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_what_the_server_says(server: Server, path: Path) -> None:
    server.missing = True
    fails(server, path, "404")
    assert not list(path.parent.iterdir())


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads").touch()
    fails(server, tmp_path / "downloads" / "it.zip", str(tmp_path / "downloads"))
    assert not server.asked
