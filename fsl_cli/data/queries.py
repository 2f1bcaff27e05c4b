"""New pictures to classify: a folder or archive of them, a table that lists them, or single files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import NamedTuple

from fsl_cli.data.archives import BROKEN, archive_of
from fsl_cli.data.columns import Columns, columns_of
from fsl_cli.data.decode import File
from fsl_cli.data.layouts import open_folder, refuse
from fsl_cli.data.left_out import left_out
from fsl_cli.data.listed import Finder
from fsl_cli.data.places import Folder, Place, disk_file
from fsl_cli.data.tables import ENDINGS, read_table
from fsl_cli.errors import UserError

NEEDED = (
    "Type {0}= with a folder, a zip or tar, a CSV with the column file, or pictures: {0}='new/*.jpg', {0}=a.jpg,b.png."
)


class Query(NamedTuple):
    """A picture, and what it is known to show."""

    file: File
    label: str | None  # the class that it shows, if a folder on its way or the table's column label names one
    told: bool  # whether a folder or the table tells what it shows, be it a class or not


def queries(
    words: Iterable[str], classes: Iterable[str], lost: list[str] | None = None, setting: str = "query"
) -> list[Query]:
    """The pictures that these words name, each a path or a pattern; `classes` are those that they may show.

    A folder is looked through with all its sub-folders, of which the innermost with a class's name is a picture's
    label. What is left out is added to `lost`, in words. Raises UserError, which calls them by their
    `setting`.
    """
    known, lost = set(classes), [] if lost is None else lost
    try:
        found = [query for word in words for query in _pictures(word, known, lost, setting)]
    except OSError as error:
        raise UserError(f"{error.filename or setting} cannot be read: {error.strerror or error}.") from error
    if not found:
        told = "".join(f"\n  Left out: {line}." for line in lost)
        raise UserError(f"{setting}={','.join(words)} has no pictures. {NEEDED.format(setting)}{told}")
    return found


def _pictures(word: str, classes: set[str], lost: list[str], setting: str) -> Iterator[Query]:
    path = Path(word).expanduser()
    if path.is_dir():
        yield from _below(open_folder(path), classes, lost)
    elif not path.exists():
        matches = sorted(glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{setting}={word} does not exist. {NEEDED.format(setting)}")
        for match in matches:
            yield from _pictures(match, classes, lost, setting)
    elif not path.is_file():
        raise UserError(f"{setting}={word} is no regular file. {NEEDED.format(setting)}")
    elif path.suffix.lower() in (*ENDINGS, ".txt"):
        yield from _listed(Folder(path.parent), path.name, classes)
    elif place := _archive(path, setting):
        tables = [(table, found) for table in place.loose() if (found := _columns(place, table))]
        yield from _listed(place, tables[0][0], classes) if len(tables) == 1 else _below(place, classes, lost)
    else:
        yield Query(disk_file(path), None, False)


def _archive(path: Path, setting: str) -> Place | None:
    try:
        return archive_of(path)
    except BROKEN as error:
        raise UserError(f"{setting}={path} is an archive that cannot be read ({error}). Copy it again.") from error


def _columns(place: Place, table: str) -> Columns | None:
    """The columns of a table that lists pictures; None if it is no table, or lists none."""
    if not table.lower().endswith(ENDINGS):
        return None
    try:
        find = Finder(place)
        columns = columns_of(read_table(place, table), find, labelled=False)
    except (UserError, OSError):
        return None
    return columns if any(find(row[columns.file]) for _, row in columns.rows if columns.file < len(row)) else None


def _below(place: Place, classes: set[str], lost: list[str]) -> Iterator[Query]:
    pictures = place.images()
    for picture in pictures:
        *folders, _ = str(picture.stamp[0]).split("/")
        label = next((name for name in reversed(folders) if name in classes), None)
        yield Query(picture.file, label, bool(folders))
    lost += left_out(place, [picture.file.name for picture in pictures], [], "")


def _listed(place: Place, path: str, classes: set[str]) -> Iterator[Query]:
    """Pictures that a table lists, by paths relative to it, and their labels where it has them."""
    find, table = Finder(place), read_table(place, path)
    columns = columns_of(table, find, labelled=False)
    found, missing = [], []
    for line, row in columns.rows:
        name, label = (row[each] if 0 <= each < len(row) else "" for each in columns[:2])
        if picture := find(name) if name else None:
            found.append(Query(picture.file, label if label in classes else None, bool(label)))
        else:
            called = columns.names[columns.file]
            missing.append(f"line {line}: {find.why_not(name) if name else f'{called} is empty.'}")
    missing += [table.broken] if table.broken else []
    if missing:
        refuse(f"{place.name(path)} is no list of pictures yet:", missing)
    yield from found
