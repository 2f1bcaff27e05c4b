"""Zips and tars as places. Nothing in them is ever written under its own name, so none can lead anywhere."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any

from fsl_cli.data.decode import File
from fsl_cli.data.names import is_junk
from fsl_cli.data.places import DEEPEST, TOO_DEEP, Folder, Picture, Place, demand_size
from fsl_cli.errors import UserError

BROKEN = (zipfile.BadZipFile, tarfile.TarError, ValueError, RuntimeError, EOFError, zlib.error, lzma.LZMAError)
PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
SWELLS, LEAST = 20, 1 << 30  # an archive may unpack to so many times its own size, or to so many bytes


class Archive(Place):
    """What is in an archive; a folder's slashes may be those of Windows."""

    def name(self, path: str = "") -> str:
        inside = f"{self.inside}{path}".rstrip("/")
        return f"{self.top}: {inside}" if inside else str(self.top)

    def _path(self, name: str) -> str:
        """A member's path; "" for those that do not count."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        if any(map(is_junk, parts)) and ".." not in parts:
            self.junk.append(f"{self.top}: {name}")
        elif ".." in parts:
            self.odd.append(f"{self.top}: {name}: its path leads out of the archive")
        elif len(parts) > DEEPEST:
            self.odd.append(f"{self.top}: {'/'.join(parts[:4])}/…: {TOO_DEEP}")
        else:
            return "/".join(parts) + ("/" if name.endswith(("/", "\\")) else "")
        return ""


class Zip(Archive):
    """A zip, or the `content` of one. Raises OSError or zipfile.BadZipFile where it cannot be opened."""

    def __init__(self, top: Path, content: bytes | None = None) -> None:
        super().__init__(top)
        self.archive = zipfile.ZipFile(top if content is None else BytesIO(content))
        packed = top.stat().st_size if content is None else len(content)
        if sum(info.file_size for info in self.archive.infolist()) > _most(packed):
            raise _swollen(top, packed)

    def _walk(self) -> Iterator[tuple[str, Picture | None]]:
        for info in self.archive.infolist():
            path = self._path(info.filename)
            if path.endswith("/"):
                yield path, None
            elif path:
                file = File(f"{self.top}: {path}", partial(_member, self.archive, info))
                yield path, Picture(file, (path, info.file_size, info.CRC))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int = -1) -> bytes:
    demand_size(info.file_size)
    with archive.open(info) as file:  # may hold more than it says
        return file.read(info.file_size if count < 0 else min(count, info.file_size))


class Tar(Archive):
    """A tar, packed or not. A packed one is unpacked, as one file, into a temporary one without a name."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        with open(top, "rb") as file:
            head = file.read(8)
        packed = next((each for magic, each in PACKED.items() if head.startswith(magic)), None)
        self.bytes = _Bytes(_unpack(packed(top), top) if packed else open(top, "rb"))  # noqa: SIM115
        self.archive = tarfile.open(fileobj=self.bytes.file, mode="r:")  # noqa: SIM115

    def _walk(self) -> Iterator[tuple[str, Picture | None]]:
        for info in self.archive:
            path = self._path(info.name)
            if path and info.isdir():
                yield f"{path}/", None
            elif path and (whole := self._link_target(info)):
                read = partial(self.bytes.read, whole.offset_data, whole.size)
                yield path, Picture(File(f"{self.top}: {path}", read), (path, whole.size, int(info.mtime)))
        if self.bytes.file.seek(0, 2) <= self.archive.offset:
            self.odd.append(f"{self.top}: it has no mark at its end, and may be cut short")

    def _link_target(self, info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """The member itself, or that which it is a link to."""
        found: tarfile.TarInfo | None = info
        try:
            for _ in range(8):
                if found and (found.issym() or found.islnk()):
                    found = self.archive._find_link_target(found)  # type: ignore[attr-defined]
        except (KeyError, RecursionError):
            found = None
        if not found or not found.isreg() or found.issparse():
            self.odd.append(f"{self.top}: {info.name}: no regular file")
            return None
        return found


class _Bytes:
    """A file that threads read, a piece each; closed with the last who may ask it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.lock = file, Lock()

    def read(self, start: int, size: int, count: int | None = None) -> bytes:
        demand_size(size)
        with self.lock:
            self.file.seek(start)
            return self.file.read(size if count is None else min(size, count))

    def __del__(self) -> None:
        self.file.close()


def _unpack(packed: IO[bytes], top: Path) -> IO[bytes]:
    """Its content in a temporary file, which is removed when this process ends."""
    most = _most(size := top.stat().st_size)
    file = tempfile.TemporaryFile()  # noqa: SIM115
    with packed, ExitStack() as failed:
        failed.callback(file.close)
        try:
            while block := packed.read(1 << 20):
                if file.tell() + len(block) > most:
                    raise _swollen(top, size)
                file.write(block)
        except OSError as error:
            if not error.errno:  # a damaged one: gzip.BadGzipFile
                raise ValueError(str(error)) from error
            raise UserError(
                f"{top} cannot be unpacked into {tempfile.gettempdir()}: {error.strerror}. Type TMPDIR=FOLDER in front "
                "of the command with a folder that has room, or unpack it yourself."
            ) from error
        failed.pop_all()
    file.seek(0)
    return file


def _most(packed: int) -> int:
    """The most bytes that an archive of so many bytes may unpack to."""
    return max(LEAST, SWELLS * packed)


def _swollen(top: Path, packed: int) -> UserError:
    return UserError(
        f"{top} has {packed:,} bytes and unpacks to more than {_most(packed):,}, as pictures hardly do. If they are "
        "yours, unpack it yourself and type its folder."
    )


def archive_of(path: Path) -> Archive | None:
    """The zip or tar at `path`; None if it is neither. Raises one of `BROKEN` where it is damaged."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        return Zip(path)
    with open(path, "rb") as file:
        head = file.read(512)
    named = ".zip" not in _is_archive(path.name) and bool(_is_archive(path.name))
    if not named and head[257:262] != b"ustar" and not head.startswith(tuple(PACKED)):
        return None
    try:
        return Tar(path)
    except BROKEN:
        if named:
            raise
        return None


class Mounted(Folder):
    """A folder whose archives are folders in it, called as they are without their endings."""

    def _walk(self) -> Iterator[tuple[str, Picture | None]]:
        for path, picture in super()._walk():
            archive = _try(self.top / path) if picture and _is_archive(path) else None
            if not archive:
                yield path, picture
                continue
            stem = path[: -len(_is_archive(path))]
            yield f"{stem}/", None
            for inner, member in archive._walk():
                stamp = (f"{stem}/{inner}", *member.stamp[1:]) if member else ()
                yield f"{stem}/{inner}", Picture(member.file, stamp) if member else None
            self.odd += archive.odd
            self.junk += archive.junk

    def picture(self, path: str) -> Picture | None:
        return self.files.get(path) or super().picture(path)


def _is_archive(path: str) -> str:
    """The ending of an archive's name; "" if it is none."""
    endings = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")
    return max((each for each in endings if path.lower().endswith(each)), key=len, default="")


def _try(path: Path) -> Archive | None:
    try:
        return archive_of(path)
    except (*BROKEN, OSError):
        return None
