"""Pictures that a table lists: its names are found in a place as people write them, and its rows become classes."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from functools import cached_property
from typing import NamedTuple

from fsl_cli.data.columns import Columns, columns_of
from fsl_cli.data.formats import ENDINGS, ending
from fsl_cli.data.names import part_of
from fsl_cli.data.places import Picture, Place
from fsl_cli.data.store import SPLITS
from fsl_cli.data.tables import ENDINGS as TABLES
from fsl_cli.data.tables import SAMPLE, is_too_large, read_table
from fsl_cli.errors import UserError, command

DEEP = 50  # tables deeper in a place that are looked into
Groups = dict[str, dict[str, list[Picture]]]  # split ("" if there is none) -> class -> its images


class Chosen(NamedTuple):
    """What the user said of a table, or of what cannot be read."""

    file_column: str | int | None = None
    label_column: str | int | None = None
    skip: bool = False  # leave out what is listed, but not there


class Finder:
    """Finds the picture that a name in a table means.

    The name itself; with slashes for backslashes; without its ending; a path of another machine, by its last folders;
    the name alone, wherever in the place it is. Only one picture may be meant.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, name: str) -> Picture | None:
        for each in dict.fromkeys((name, name.replace("\\", "/"))):
            if found := self.place.picture(posixpath.normpath(each)):
                return found
        paths = self.candidates(name)
        return self.place.picture(paths[0]) if len(paths) == 1 else None

    def why_not(self, name: str) -> str:
        """Why there is no picture of this name."""
        paths = self.candidates(name)
        some = ", ".join(self.place.name(path) for path in paths[:3])
        return f"{name} may be {some}: write more of its path." if paths else f"{self.place.name(name)} is missing."

    def candidates(self, name: str) -> list[str]:
        """The pictures that share with `name` the file's name, and as many folders above it as any does."""
        if not name:
            return []
        *folders, last = posixpath.normpath(name.replace("\\", "/")).casefold().split("/")
        paths = self._index.get(last, []) if ending(last) in ENDINGS else self._index.get(f"{last}.", [])
        shared = {path: _shared(folders, self._above(path)) for path in paths}
        most = max(shared.values(), default=0)
        return [path for path, count in shared.items() if count == most] if most or not folders else []

    def _above(self, path: str) -> list[str]:
        inside = posixpath.join(self.place.top.name, self.place.inside, path)
        return inside.casefold().split("/")[:-1]

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """All pictures by their names, and by those without their endings, with a dot."""
        found = defaultdict[str, list[str]](list)
        for path in self.place.files:
            last = path.rpartition("/")[2].casefold()
            if ending(last) in ENDINGS:
                found[last].append(path)
                found[last[: -len(ending(last)) + 1]].append(path)
        return found


def _shared(one: list[str], other: list[str]) -> int:
    """How many folders two paths have in common, from their ends."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count


def divided(place: Place, folder: str) -> list[str]:
    """The folders with pictures in a folder."""
    return [inner for inner in place.folders(folder) if place.holds(inner)]


def tables_of(place: Place, chosen: Chosen) -> list[str]:
    """The tables in a place that list its pictures: one, or one for each split."""
    listing, finder = [path for path in place.loose() if path.lower().endswith(TABLES)], Finder(place)
    tables = [path for path in listing if lists_pictures(place, path, finder, chosen)]
    parts = [part_of(path.rpartition(".")[0]) for path in tables]
    if len(tables) > 1 and (None in parts or len(set(parts)) < len(parts)):
        raise UserError(
            f"{place.name()} has {len(tables)} lists of images, {', '.join(tables)}: keep one of them, or type "
            f"{command(f'data.root={place.name(tables[0])}')}."
        )
    return tables


def tables_of_last_resort(place: Place, chosen: Chosen) -> list[str]:
    """Where folders tell nothing: the only table deeper in a place that lists pictures, or one that says why not."""
    if len(divided(place, "")) > 1:
        return []
    finder = Finder(place)
    deep = [path for path in place.files if path.lower().endswith(TABLES)][:DEEP]
    listing = [path for path in deep if lists_pictures(place, path, finder, chosen)]
    beside = [path for path in place.loose() if path in deep]
    return listing if len(listing) == 1 else beside[:1] if not divided(place, "") else []


def lists_pictures(place: Place, path: str, find: Finder, chosen: Chosen) -> bool:
    """Whether a table in a place lists pictures there, with their classes. Raises UserError where it is damaged."""
    if is_too_large(place, path):
        return False
    table = read_table(place, path, "replace")
    try:
        columns = columns_of(table, find, chosen.file_column, chosen.label_column)
    except UserError:
        return False
    usual = {"file", "label"} <= set(columns.names) and not path.lower().endswith(".json")
    names = [row[columns.file] for _, row in columns.rows[:SAMPLE] if columns.file < len(row)]
    return usual or any(find(name) for name in names)


def by_table(place: Place, path: str, find: Finder, chosen: Chosen, problems: list[str]) -> tuple[Groups, Columns, int]:
    """The pictures of a table, its columns, and how many rows were left out because of `chosen.skip` or as repeated.

    The images of a class are sorted by file. What is wrong is added to `problems`. Raises UserError where no columns
    can be told.
    """
    table = read_table(place, path)
    columns = columns_of(table, find, chosen.file_column, chosen.label_column)
    groups: Groups = {part: {} for part in (SPLITS if columns.split >= 0 else ("",))}
    seen: dict[str, tuple[int, str]] = {}  # file -> the line that lists it, and its label
    left = 0
    for line, row in columns.rows:
        name, label, part = (row[each] if 0 <= each < len(row) else "" for each in columns[:3])
        picture = find(name) if name else None
        wrong = _wrong(name, label, columns)
        split = part_of(part) if columns.split >= 0 else ""
        if split is None:
            wrong.append(f"split is {part or 'empty'}: type train, val or test.")
        if name and not picture:
            left += chosen.skip
            wrong += [] if chosen.skip else [find.why_not(name)]
        elif picture and picture.file.name in seen:
            before, other = seen[picture.file.name]
            left += label == other
            wrong += [] if label == other else [f"{name} is in line {before} too: list each image once."]
        elif picture and not wrong:
            groups[split or ""].setdefault(label, []).append(picture._replace(stamp=(label, *picture.stamp)))
            seen[picture.file.name] = line, label
        problems += [f"line {line}: {text}" for text in wrong]
    problems += [table.broken] if table.broken else []
    if not columns.rows and not problems:
        problems.append("It lists no images.")
    return _sorted(groups), columns, left


def _wrong(name: str, label: str, columns: Columns) -> list[str]:
    file, labels = columns.names[columns.file], columns.names[columns.label]
    return [f"{called} is empty." for called, value in ((file, name), (labels, label)) if not value][:1]


def _sorted(groups: Groups) -> Groups:
    return {
        part: {label: sorted(pictures, key=lambda picture: picture.stamp) for label, pictures in classes.items()}
        for part, classes in groups.items()
    }


def merged(groups: list[tuple[str, Groups]]) -> Groups:
    """Several tables, each of one split."""
    found: Groups = {part: {} for part, _ in groups}
    for part, own in groups:
        for classes in own.values():
            for label, pictures in classes.items():
                found[part].setdefault(label, []).extend(pictures)
    return _sorted(found)
