"""Fetching one file over HTTP: it goes on where it stopped, is verified, and gets its name when it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torchvision.datasets.utils import check_integrity

from fsl_cli.data.progress import progress
from fsl_cli.errors import UserError

_here_only = ContextVar("here_only", default=False)
PATIENCE = 60  # seconds without a byte
AT_A_TIME = 1 << 16  # bytes


class Absent(Exception):
    """A file is not here, and is not to be fetched; its name."""

    @property
    def name(self) -> str:
        return str(self.args[0])


@contextmanager
def without_downloads() -> Iterator[None]:
    """While inside, nothing is fetched. Raises Absent where something would be."""
    before = _here_only.set(True)
    try:
        yield
    finally:
        _here_only.reset(before)


def download(url: str, path: Path, md5: str | None, by_hand: str) -> None:
    """Fetch `url` to `path`, unless it is there with this MD5 (None: none is known).

    Until it is whole it is called PATH.part, and a later call goes on where that ends, if the server allows it and
    an MD5 can tell whether both pieces belong together.
    `by_hand` tells people how to get the file without us, and ends the message of each UserError.
    """
    if check_integrity(str(path), md5):
        return
    if _here_only.get():
        raise Absent(path.name)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if md5 is None:
            part.unlink(missing_ok=True)
        begun = part.exists()
        _fetch(url, part)
        if begun and not check_integrity(str(part), md5):  # perhaps its beginning was of another file
            part.unlink()
            _fetch(url, part)
        if not check_integrity(str(part), md5):
            part.unlink()
            raise OSError("what came has another MD5")
        part.replace(path)
    except (OSError, HTTPException) as error:
        kept = f" {part} is kept: the same command goes on there." if md5 and part.exists() else ""
        raise UserError(f"{path.name} could not be downloaded from {url}: {error}. {by_hand}.{kept}") from error


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what it lacks; OSError and what came so far in it when the connection ends too soon."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "fsl-cli"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond what we have; the MD5 tells whether it is right
            return
        raise
    with response:
        if response.headers.get_content_type() == "text/html":  # a log-in page must not replace what we have
            raise OSError("a web page came instead of the file")
        if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends all of it again
        length = response.length  # of what is to come, None where the server does not say
        came = 0
        with open(part, "ab" if have else "wb") as file, progress(part.stem, have, length) as advance:
            while chunk := response.read(AT_A_TIME):
                file.write(chunk)
                came += len(chunk)
                advance(len(chunk))
    if length is not None and came < length:
        raise OSError(f"the connection was cut after {have + came:,} of {have + length:,} bytes")
