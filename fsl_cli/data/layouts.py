"""Which image shows what, in the forms in which people have their own: class folders, split folders, or a CSV.

Everything wrong with them is one error.
"""

from __future__ import annotations

import csv
import io
import posixpath
import zipfile
import zlib
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

from fsl_cli.data.decode import ten
from fsl_cli.data.places import Folder, Picture, Place, Zip
from fsl_cli.data.store import SPLITS
from fsl_cli.errors import UserError

LAYOUT = (
    "It needs a folder per class, such as ROOT/cat/1.jpg, or class folders inside ROOT/train and ROOT/test, "
    "or a CSV with the columns file and label; or a zip of these."
)
Groups = dict[str, dict[str, list[Picture]]]  # split ("" if there is none) -> class -> its images


class Found(NamedTuple):
    """All images, and the table that lists them; "" if their folders tell what they show."""

    groups: Groups
    table: str


def find(root: str | None, setting: str = "data.root") -> Found:
    """The images of a folder, a CSV or a zip, as `setting` names it.

    A CSV that lies directly in a folder or zip and has the columns file and label lists the images there, whatever
    folders are beside it; other CSVs mean nothing. Raises UserError.
    """
    if not root:
        raise UserError(f"data=folder needs to know where your images are: type data.root=ROOT. {LAYOUT}")
    try:
        place, table = _open(root, setting)
        tables = [table] if table else [each for each in place.tables() if _lists_images(place, each)]
        if len(tables) > 1:
            raise UserError(f"{place.name()} has {len(tables)} lists of images, {', '.join(tables)}: keep one of them.")
        return (
            Found(_by_table(place, tables[0]), place.name(tables[0]))
            if tables
            else Found(_by_name(place, f"{setting}={root}"), "")
        )
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error


def refuse(heading: str, problems: list[str]) -> NoReturn:
    """One UserError for all problems; the first ten are shown."""
    raise UserError("\n  ".join([heading, *ten(problems)]))


def _open(root: str, setting: str) -> tuple[Place, str]:
    """The place, and the CSV in it if `root` names that."""
    path = Path(root).expanduser()
    if path.is_dir():
        return Folder(path), ""
    if path.exists() and path.suffix.lower() == ".csv":
        return Folder(path.parent), path.name
    state = "does not exist"
    if path.exists():
        try:
            return Zip(path), ""
        except (zipfile.BadZipFile, ValueError, RuntimeError) as error:  # what a damaged one raises
            state = f"is a file, but no CSV and no zip ({error})"
    raise UserError(f"{setting}={root} {state}. Type {setting}=ROOT with a folder, a CSV or a zip. {LAYOUT}")


def _by_name(place: Place, typed: str) -> Groups:
    """By folders. Only those with a name of a split are splits: a class may be called train."""
    names, problems = place.folders(), []
    groups = {"": names}
    if names and (set(names) <= set(SPLITS) or {"train", "test"} <= set(names)):
        groups = {part: place.folders(part) for part in SPLITS if part in names}
        missing = [place.name(part) for part in ("train", "test") if part not in names]
        problems += [f"{path} is missing: train and test are needed, val is not." for path in missing]
        odd = [place.name(name) for name in names if name not in SPLITS]
        problems += [f"{path} is none of train, val and test: rename it." for path in odd]
    found = {
        part: {path.rpartition("/")[2]: place.images(path) for path in classes} for part, classes in groups.items()
    }
    for part, classes in groups.items():
        if not classes:
            loose = len(place.images(part))
            has = f"has {loose} images but no class folders" if loose else "has no class folders"
            problems.append(f"{place.name(part)} {has}. {LAYOUT}")
        empty = [place.name(path) for path in classes if not found[part][path.rpartition("/")[2]]]
        problems += [f"{path} has no images: remove it." for path in empty]
    problems += _in_two(found)
    if problems:
        refuse(f"{typed} is no data set yet (images end in {' '.join(IMG_EXTENSIONS)}):", problems)
    return found


def _in_two(groups: Groups) -> list[str]:
    """The classes that two splits have, as problems."""
    problems = []
    for one, other in combinations(groups, 2):
        both = sorted(groups[one].keys() & groups[other].keys())
        some = ", ".join(both[:5]) + (f" and {len(both) - 5} more" if len(both) > 5 else "")
        problems += [f"{one} and {other} both have {some}: keep a class in one split only."] if both else []
    return problems


def _by_table(place: Place, table: str) -> Groups:
    """By a CSV with the columns file and label, and perhaps split; the images of a class are sorted by file."""
    rows = table_rows(place, table)
    columns = rows.fieldnames or []
    lacking = [f"There is no column {name}." for name in ("file", "label") if name not in columns]
    if lacking:
        begins = f"begins with {','.join(columns)[:80]}" if columns else "is empty"
        refuse(f"{place.name(table)} {begins}; needed is file,label or file,label,split:", lacking)
    groups: Groups = {part: {} for part in (SPLITS if "split" in columns else ("",))}
    problems, lines = [], dict[str, int]()  # lines: in which each file was listed
    try:
        for row in rows:
            name, label, part = ((row.get(column) or "").strip() for column in ("file", "label", "split"))
            path = posixpath.normpath(name)
            picture = place.picture(path)
            wrong = []
            if not name or not label:
                wrong += [f"{'label' if name else 'file'} is empty."]
            elif not picture:
                wrong += [f"{place.name(path)} is missing."]
            elif path in lines:
                wrong += [f"{name} is in line {lines[path]} too: list each image once."]
            if part not in groups:
                wrong += [f"split is {part or 'empty'}: type train, val or test."]
            if picture and not wrong:
                groups[part].setdefault(label, []).append(picture._replace(stamp=(label, *picture.stamp)))
            problems += [f"line {rows.line_num}: {text}" for text in wrong]
            lines.setdefault(path, rows.line_num)
    except csv.Error as error:
        problems.append(f"after line {rows.line_num}: {error}.")
    if not lines and not problems:
        problems.append("It lists no images.")
    elif "split" in columns and not problems:
        absent = [part for part in ("train", "test") if not groups[part]]
        problems += [f"No line has the split {part}: train and test are needed, val is not." for part in absent]
    problems += _in_two(groups)
    if problems:
        refuse(f"{place.name(table)} is no list of images yet:", problems)
    return {
        part: {label: sorted(pictures, key=lambda picture: picture.stamp) for label, pictures in classes.items()}
        for part, classes in groups.items()
        if classes
    }


def _lists_images(place: Place, table: str) -> bool:
    try:
        return {"file", "label"} <= set(table_rows(place, table, "replace").fieldnames or [])
    except (csv.Error, OSError):
        return False


def table_rows(place: Place, table: str, errors: str = "strict") -> csv.DictReader[str]:
    """The rows of a CSV by column; columns in any order. `errors` is what to do where it is not UTF-8."""
    picture = place.picture(table)
    try:
        text = picture.file.read().decode("utf-8-sig", errors) if picture else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{place.name(table)} is not in UTF-8 ({error}). Save it as a CSV in UTF-8.") from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # what a zip's members raise
        raise UserError(
            f"{place.name(table)} cannot be read ({error}). Make the zip again, without a password."
        ) from error
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
    return rows
