"""Where a user's pictures lie: a folder, a zip or a tar, looked into alike and never unpacked by name.

Only regular files are read, up to `LARGEST` bytes each, `PICTURE` where they are pictures. What is nobody's data
(hidden files, __MACOSX, Thumbs.db) and what cannot be read (a device, a link that leads nowhere) is left out, and
`Place.odd` and `Place.junk` say so.
"""

from __future__ import annotations

import os
import posixpath
import stat
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from fsl_cli.data.decode import File
from fsl_cli.data.formats import ENDINGS, HEAD, begins_as_picture, ending, is_picture
from fsl_cli.data.names import is_junk
from fsl_cli.errors import UserError

LARGEST = 1 << 30  # bytes of one file
PICTURE = 1 << 28  # bytes of one picture
DEEPEST = 50  # folders, one inside another
TOO_DEEP = f"more than {DEEPEST} folders deep"
MOST = 5_000_000  # files and folders of one place
IRREGULAR = "no regular file"
LINKS = 4  # links to folders, one inside another, that are followed


class Picture(NamedTuple):
    """A file, and what changes when it does: its path, its size in bytes, its time or checksum."""

    file: File
    stamp: tuple[str | int, ...]


class Place(ABC):
    """Files by their paths, of whatever holds them. `enter` makes a folder in it the place."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.inside = ""  # the folder that stands for the place, with a slash at its end
        self.odd: list[str] = []  # what cannot be read, and why
        self.junk: list[str] = []  # what is nobody's data
        self.outside: list[str] = []  # what lies beside the folder that was entered
        self._is_picture: dict[str, bool] = {}

    @abstractmethod
    def _walk(self) -> Iterator[tuple[str, Picture | None]]:
        """Every file by its path in `top`; folders too, as paths with a slash at their end, and None."""

    @abstractmethod
    def name(self, path: str = "") -> str:
        """A path in here, as people know it."""

    @cached_property
    def files(self) -> dict[str, Picture]:
        """All files by path, sorted."""
        found = dict(sorted(self._limited(), key=itemgetter(0)))
        self._folders = [path for path, picture in found.items() if picture is None]
        return {path: picture for path, picture in found.items() if picture}

    def _limited(self) -> Iterator[tuple[str, Picture | None]]:
        for count, found in enumerate(self._walk()):
            if count == MOST:
                raise UserError(f"{self.top} holds more than {MOST:,} files and folders. Choose one inside it.")
            yield found

    @cached_property
    def _tree(self) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
        """For each folder: all files below it, sorted; and the folders in it."""
        below, within = defaultdict[str, list[str]](list), defaultdict[str, set[str]](set)
        for path in [*self.files, *self._folders]:
            above = ["", *(path[:i] for i, letter in enumerate(path) if letter == "/")]
            for outer, inner in pairwise(above):
                within[outer].add(inner)
            if not path.endswith("/"):
                for folder in above:
                    below[folder].append(path)
        return below, within

    def folders(self, path: str = "") -> list[str]:
        """The paths of the folders in a folder, sorted."""
        return sorted(self._tree[1].get(path, ()))

    def images(self, path: str = "") -> list[Picture]:
        """All pictures below a folder, by their paths."""
        return [self.files[each] for each in self._tree[0].get(path, ()) if self.shows(each)]

    def holds(self, path: str) -> bool:
        """Whether there are pictures below a folder."""
        return any(map(self.shows, self._tree[0].get(path, ())))

    def loose(self, path: str = "") -> list[str]:
        """The paths of the files that lie in a folder itself, sorted."""
        start = len(path) + 1 if path else 0
        return [each for each in self._tree[0].get(path, ()) if "/" not in each[start:]]

    def shows(self, path: str) -> bool:
        """Whether a file of `files` is a picture: by its ending, or else by how it begins."""
        if path not in self._is_picture:
            _, size, *_ = self.files[path].stamp
            large = int(size) > PICTURE
            self.odd += [f"{self.name(path)}: larger than {PICTURE >> 20} MB"] if large else []
            self._is_picture[path] = not large and (ending(path) in ENDINGS or self._looks(self.files[path]))
        return self._is_picture[path]

    def _looks(self, picture: Picture) -> bool:
        try:
            return begins_as_picture(picture.file.read(HEAD)) and is_picture(picture.file.read())
        except Exception:  # a damaged archive may raise anything
            return False

    def picture(self, path: str) -> Picture | None:
        """The file with this path, if there is one."""
        return self.files.get(path)

    def enter(self, folder: str) -> None:
        """Make a folder the root of the place: what surrounds it is only a wrapper."""
        inner = f"{folder}/"
        files, folders = self.files, self._folders
        self.outside += [self.name(path) for path in files if not path.startswith(inner)]
        self._is_picture = {path.removeprefix(inner): known for path, known in self._is_picture.items()}
        self.inside += inner
        self._folders = [path.removeprefix(inner) for path in folders if path.startswith(inner) and path != inner]
        short = {path.removeprefix(inner): each for path, each in files.items() if path.startswith(inner)}
        self.files = {path: Picture(each.file, (path, *each.stamp[1:])) for path, each in short.items()}
        del self._tree


class Folder(Place):
    """A folder on disk. Links are followed, as long as they do not lead to a folder that they are in."""

    def name(self, path: str = "") -> str:
        return str(self.top / self.inside / path)

    def _walk(self) -> Iterator[tuple[str, Picture | None]]:
        real = Path(os.path.realpath(self.top))
        above = {(found.st_dev, found.st_ino) for found in (each.stat() for each in (real, *real.parents))}
        yield from self._below("", above, 0)

    def _below(self, path: str, above: set[tuple[int, int]], links: int) -> Iterator[tuple[str, Picture | None]]:
        """`above` are the folders on the way, by device and number."""
        with os.scandir(self.top / path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            full = posixpath.join(path, entry.name)
            if is_junk(entry.name):
                self.junk.append(self.name(full))
                continue
            try:
                status = entry.stat()
            except OSError as error:
                self.odd.append(f"{self.name(full)}: {_nowhere(entry, error)}")
                continue
            if stat.S_ISDIR(status.st_mode):
                number, depth = (status.st_dev, status.st_ino), links + entry.is_symlink()
                if number in above or depth > LINKS:
                    self.odd.append(f"{self.name(full)}: a link that leads in a circle")
                    continue
                if full.count("/") == DEEPEST:
                    self.odd.append(f"{self.name(full)}: {TOO_DEEP}")
                    continue
                yield f"{full}/", None
                try:
                    yield from self._below(full, above | {number}, depth)
                except PermissionError as error:
                    self.odd.append(f"{self.name(full)}: {error.strerror}")
            elif not stat.S_ISREG(status.st_mode):
                self.odd.append(f"{self.name(full)}: {IRREGULAR}")
            else:
                yield full, self._picture(full, status)

    def _picture(self, path: str, status: os.stat_result) -> Picture:
        full = self.top / self.inside / path
        return Picture(disk_file(full), (path, status.st_size, status.st_mtime_ns))

    def picture(self, path: str) -> Picture | None:
        """The file with this path, which may lead out of the folder, if there is one; nothing else is looked at."""
        try:
            status = (self.top / self.inside / path).stat()
        except (OSError, ValueError):
            return None
        return self._picture(path, status) if stat.S_ISREG(status.st_mode) else None


def disk_file(path: Path) -> File:
    """A file on disk, which is not opened yet."""
    return File(str(path), partial(read_regular, path))


def read_regular(path: Path, count: int = LARGEST) -> bytes:
    """The first `count` bytes of a regular file. OSError where it is none, or larger than `LARGEST`."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(IRREGULAR)
        demand_size(status.st_size)
        return file.read(count)


def demand_size(size: int) -> None:
    """Raises OSError for a file of more bytes than are read."""
    if size > LARGEST:
        raise OSError(f"larger than {LARGEST >> 20} MB")


def _nowhere(entry: os.DirEntry[str], error: OSError) -> str:
    return "a link that leads nowhere" if entry.is_symlink() else error.strerror or str(error)
