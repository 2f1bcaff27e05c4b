"""New pictures to classify: a folder or zip of them, a CSV that lists them, or single files."""

from __future__ import annotations

import csv
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

from fsl_cli.data.decode import File
from fsl_cli.data.layouts import refuse, table_rows
from fsl_cli.data.places import Folder, Place, Zip
from fsl_cli.errors import UserError

NEEDED = (
    "Type query= with a folder, a zip, a CSV with the column file, or pictures: query='new/*.jpg', query=a.jpg,b.png."
)


class Query(NamedTuple):
    """A picture, and what it is known to show."""

    file: File
    label: str | None  # the class that it shows, if a folder on its way or the CSV's column label names one
    told: bool  # whether a folder or the CSV tells what it shows, be it a class or not


def queries(words: Iterable[str], classes: Iterable[str]) -> list[Query]:
    """The pictures that these words name, each a path or a pattern; `classes` are those that they may show.

    A folder is looked through with all its sub-folders, of which the innermost with a class's name is a picture's
    label. Raises UserError.
    """
    known = set(classes)
    try:
        found = [query for word in words for query in _pictures(word, known)]
    except OSError as error:
        raise UserError(f"{error.filename or 'query'} cannot be read: {error.strerror or error}.") from error
    if not found:
        raise UserError(f"query={','.join(words)} has no pictures. {NEEDED}")
    return found


def _pictures(word: str, classes: set[str]) -> Iterator[Query]:
    path = Path(word).expanduser()
    if path.is_dir():
        yield from _below(Folder(path), classes)
    elif not path.exists():
        matches = sorted(glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"query={word} does not exist. {NEEDED}")
        for match in matches:
            yield from _pictures(match, classes)
    elif path.suffix.lower() == ".csv":
        yield from _listed(Folder(path.parent), path.name, classes)
    elif zipfile.is_zipfile(path):
        yield from _in_zip(path, classes)
    else:
        yield Query(File(str(path), path.read_bytes), None, False)


def _in_zip(path: Path, classes: set[str]) -> Iterator[Query]:
    """All pictures of a zip, or those that the one CSV in it lists."""
    try:
        place = Zip(path)
    except (zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise UserError(f"query={path} is a zip that cannot be read ({error}). Copy it again.") from error
    tables = [each for each in place.tables() if "file" in (table_rows(place, each, "replace").fieldnames or [])]
    yield from _listed(place, tables[0], classes) if len(tables) == 1 else _below(place, classes)


def _below(place: Place, classes: set[str]) -> Iterator[Query]:
    for picture in place.images():
        *folders, _ = str(picture.stamp[0]).split("/")
        label = next((name for name in reversed(folders) if name in classes), None)
        yield Query(picture.file, label, bool(folders))


def _listed(place: Place, table: str, classes: set[str]) -> Iterator[Query]:
    """By a CSV with the column file, relative to where it lies, and perhaps label."""
    rows = table_rows(place, table)
    if "file" not in (rows.fieldnames or []):
        raise UserError(
            f"{place.name(table)} has no column file: it begins with {','.join(rows.fieldnames or [])[:80]}"
        )
    found, missing = [], []
    try:
        for row in rows:
            name, label = ((row.get(column) or "").strip() for column in ("file", "label"))
            picture = place.picture(posixpath.normpath(name)) if name else None
            if picture:
                found.append(Query(picture.file, label if label in classes else None, bool(label)))
            else:
                missing.append(
                    f"line {rows.line_num}: {place.name(name) if name else 'file'} is {'missing' if name else 'empty'}."
                )
    except csv.Error as error:
        missing.append(f"after line {rows.line_num}: {error}.")
    if missing:
        refuse(f"{place.name(table)} is no list of pictures yet:", missing)
    yield from found
