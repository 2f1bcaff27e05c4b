"""Where a user's images lie: a folder or a zip, looked into alike. Hidden files and folders do not count."""

from __future__ import annotations

import posixpath
import zipfile
from collections import defaultdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from fsl_cli.data.decode import File


class Picture(NamedTuple):
    """An image, and what changes when it does: its path, its size in bytes, its time or checksum."""

    file: File
    stamp: tuple[str | int, ...]


class Folder:
    """A folder on disk. Links to class folders are followed, links inside them are not: they may go in circles."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def name(self, path: str = "") -> str:
        """A path in here, as people know it."""
        return str(self.top / path)

    def folders(self, path: str = "") -> list[str]:
        """The paths of the folders in a folder, sorted."""
        names = sorted(p.name for p in (self.top / path).iterdir() if p.is_dir() and not p.name.startswith("."))
        return [posixpath.join(path, name) for name in names]

    def tables(self) -> list[str]:
        """The CSV files that lie in the folder itself, sorted."""
        return sorted(p.name for p in self.top.glob("[!.]*") if p.suffix.lower() == ".csv" and p.is_file())

    def images(self, path: str = "") -> list[Picture]:
        """All images below a folder, by their paths."""
        below = self.top / path
        paths = sorted(p.relative_to(below).as_posix() for p in below.rglob("*") if _is_image(p.name))
        found = [self.picture(posixpath.join(path, name)) for name in paths if "/." not in f"/{name}"]
        return [picture for picture in found if picture]

    def picture(self, path: str) -> Picture | None:
        """The file with this path, if there is one."""
        full = self.top / path
        if not full.is_file():
            return None
        stat = full.stat()
        return Picture(File(str(full), full.read_bytes), (path, stat.st_size, stat.st_mtime_ns))


class Zip:
    """A zip, read without unpacking it; one that holds nothing but a folder stands for that folder.

    Raises OSError or zipfile.BadZipFile where it cannot be opened.
    """

    def __init__(self, zip: Path) -> None:
        self.zip, self.archive = zip, zipfile.ZipFile(zip)
        infos = [i for i in self.archive.infolist() if "/." not in f"/{i.filename}" and "__MACOSX/" not in i.filename]
        tops = {"".join(info.filename.partition("/")[:2]) for info in infos}
        self.inside = next(iter(tops)) if len(tops) == 1 and min(tops).endswith("/") else ""
        self.files: dict[str, zipfile.ZipInfo] = {}
        self.below = defaultdict[str, list[str]](list)  # folder -> all files below it, sorted
        self.within = defaultdict[str, set[str]](set)  # folder -> the folders in it
        for info in sorted(infos, key=lambda info: info.filename):
            path = info.filename.removeprefix(self.inside)
            above = ["", *(path[:i] for i, letter in enumerate(path) if letter == "/")]
            for outer, inner in pairwise(above):
                self.within[outer].add(inner)
            if path and not path.endswith("/"):  # else the entry of a folder
                self.files[path] = info
                for folder in above:
                    self.below[folder].append(path)

    def name(self, path: str = "") -> str:
        """A path in here, as people know it."""
        inside = f"{self.inside}{path}".rstrip("/")
        return f"{self.zip}: {inside}" if inside else str(self.zip)

    def folders(self, path: str = "") -> list[str]:
        """The paths of the folders in a folder, sorted."""
        return sorted(self.within[path])

    def tables(self) -> list[str]:
        """The CSV files that lie in the zip itself, sorted."""
        return [path for path in self.files if "/" not in path and path.lower().endswith(".csv")]

    def images(self, path: str = "") -> list[Picture]:
        """All images below a folder, by their paths."""
        found = [self.picture(each) for each in self.below[path] if _is_image(each)]
        return [picture for picture in found if picture]

    def picture(self, path: str) -> Picture | None:
        """The file with this path, if there is one."""
        info = self.files.get(path)
        if not info:
            return None
        return Picture(
            File(self.name(path), partial(self.archive.read, info.filename)), (path, info.file_size, info.CRC)
        )


Place = Folder | Zip


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)
