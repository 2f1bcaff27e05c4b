"""Which prepared store was made from this copy? A store records its source, and another copy makes another store.

A copy is recognised by the names, sizes and times of its files. If only the times differ from those of a store's
source, all bytes are compared once, and the result is remembered: so the same copy in another place is recognised.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.data.names import is_junk
from fsl_cli.data.places import Folder

ALSO = "also.json"  # in a store's folder: other places, by their files' names, sizes and times, with the same bytes
BLOCK = 1 << 22  # bytes
Counts = Callable[[str], bool]  # whether a file of a folder, by its path, is part of the copy


class Copy(NamedTuple):
    """The files of a copy, by path: size in bytes, time in nanoseconds."""

    place: Path
    files: list[tuple[str, int, int]]

    @property
    def quick(self) -> str:
        """A hash of names, sizes and times, as in version 0.1.0."""
        return _digest(self.files)

    @property
    def listing(self) -> str:
        """A hash of names and sizes."""
        return _digest([file[:2] for file in self.files])

    def content(self) -> str:
        """A hash of all bytes; reads them."""
        found = blake2b(digest_size=16)
        for path, size, _ in self.files:
            found.update(f"{path}\0{size}\0".encode(errors="surrogateescape"))
            with open(self.place / path, "rb", buffering=0) as file:
                while block := file.read(BLOCK):
                    found.update(block)
        return found.hexdigest()

    def source(self) -> dict[str, str]:
        """What a store made from it records about it."""
        return {"listing": self.listing, "content": self.content()}


def copy_of(place: Path, counts: Counts = lambda path: True) -> Copy:
    """The copy that a folder or a single file is. Only regular files count. Raises OSError."""
    if not place.is_dir():
        found = place.stat()
        return Copy(place, [(".", found.st_size, found.st_mtime_ns)] if stat.S_ISREG(found.st_mode) else [])
    folder = Folder(place)
    stamps = [picture.stamp for path, picture in folder.files.items() if counts(path)]
    files = [(str(path), int(size), int(time)) for path, size, time in stamps]
    return Copy(place, sorted(files, key=lambda file: Path(file[0])))


def recognised(cache: Path, name: str, recipe: dict[str, Any], copy: Copy) -> str:
    """The `copy` in the recipe of the store that was made from these files, or that is to be made from them."""
    quick, content = copy.quick, ""
    stores = list(made_by(cache, name, recipe))
    for folder, about in stores:
        if quick in (about["recipe"].get("copy"), *_also(folder)):
            return str(about["recipe"].get("copy"))
    for folder, about in stores:
        source = about.get("source") or {}
        if source.get("listing") == copy.listing and "copy" in about["recipe"]:
            content = content or copy.content()
            if source.get("content") == content:
                _remember(folder, quick)
                return str(about["recipe"]["copy"])
    return quick


def made_by(cache: Path, name: str, recipe: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The stores that a recipe made, from whatever copy, the last one first: their folders and what they tell."""
    found = sorted(cache.glob(f"{name}-*/store.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        if is_junk(path.parent.name):
            continue
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            about = json.loads(path.read_text(encoding="utf-8"))
            made = about["recipe"]
            if all(made.get(key) == value for key, value in recipe.items() if key != "skipped"):
                yield path.parent, about


def _also(folder: Path) -> list[str]:
    try:
        found = json.loads((folder / ALSO).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def _remember(folder: Path, quick: str) -> None:
    with suppress(OSError):  # where the cache may not be written, the bytes are read again
        new = folder / f".{ALSO}.{os.getpid()}"
        new.write_text(json.dumps([*_also(folder), quick]), encoding="utf-8")
        new.replace(folder / ALSO)


def _digest(listing: Any) -> str:
    return blake2b(json.dumps(listing).encode(), digest_size=8).hexdigest()
