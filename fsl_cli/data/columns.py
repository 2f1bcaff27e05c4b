"""Which column of a table names the picture, which its class, which the split: by their usual names, else by what
stands in them. What remains ambiguous is one error that says what was found and what to type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from fsl_cli.data.formats import ENDINGS, ending
from fsl_cli.data.names import part_of
from fsl_cli.data.tables import SAMPLE, Table
from fsl_cli.errors import UserError, command

FILE = (  # in the order in which they are preferred; letters and digits only, in lower case
    "file", "filename", "filenames", "filepath", "path", "relpath", "relativepath", "imagepath", "imgpath", "imagefile",
    "imagefilename", "filenameimage", "fname", "image", "images", "img", "imagename", "imgname", "picture", "photo",
    "imageid", "imgid", "imageids", "id", "name",
)  # fmt: skip
LABEL = (
    "label", "labels", "class", "classes", "category", "breed", "target", "species", "classname", "labelname",
    "categoryname", "speciesname", "classlabel", "variety", "imagelabel", "imagelabels", "tag", "y", "classid",
    "labelid", "categoryid",
)  # fmt: skip
SPLIT = ("split", "subset", "set", "partition", "part", "phase", "dataset", "fold", "usage")
TEXTS = " If it lists texts, type data=texts; fsl predict needs a run that was trained on these, or backbone=sentences."
Resolve = Callable[[str], object]  # a cell -> the picture that it names, or nothing


class Columns(NamedTuple):
    """The numbers of a table's columns, from 0, and what they are called; the label's is -1 where there is none."""

    file: int
    label: int
    split: int
    names: list[str]  # of all columns; "1", "2", ... where there is no header
    rows: list[tuple[int, list[str]]]  # those below the header

    def told(self) -> str:
        """In words, such as: columns id and breed."""
        chosen = [self.names[each] for each in (self.file, self.label, self.split) if each >= 0]
        told = ", ".join(chosen[:-1]) + f" and {chosen[-1]}" if len(chosen) > 1 else chosen[0]
        return f"column{'s' * (len(chosen) > 1)} {told}"


def columns_of(
    table: Table, resolve: Resolve, file: str | int | None = None, label: str | int | None = None, labelled: bool = True
) -> Columns:
    """The columns of `table`; `file` and `label` are what the user typed: a name, or a number from 1.

    `labelled` tells whether a column of labels is needed. Raises UserError.
    """
    if not table.rows:
        raise UserError(f"{table.name} is empty: it lists no images.")
    first = table.rows[0][1]
    typed = [each for each in (file, label) if isinstance(each, str)]
    usual = {plain(cell) for cell in first} & {*FILE, *LABEL}
    header = bool(usual or set(typed) & set(first)) and not any(ending(cell) in ENDINGS for cell in first)
    header = header or any(
        ending(cells[0]) not in ENDINGS and not resolve(cells[0]) and any(map(resolve, cells[1:]))  # other words
        for cells in (table.cells(column, SAMPLE) for column in range(len(first)))
    )
    width = max(len(row) for _, row in table.rows[: SAMPLE + 1])
    names = [*first, *[""] * (width - len(first))] if header else [str(i + 1) for i in range(width)]
    below = table._replace(rows=table.rows[1:] if header else table.rows)
    split = split_column(below, names, header)
    pictures = _file_column(below, names, header, file, resolve, {split})
    classes = label_column(below, names, header, label, {split, pictures}, labelled)
    return Columns(pictures, classes, split, names, below.rows)


def plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def typed_column(table: Table, names: list[str], setting: str, typed: str | int) -> int:
    if str(typed) in names:
        return names.index(str(typed))
    if str(typed).isdecimal() and 1 <= int(typed) <= len(names):
        return int(typed) - 1
    raise UserError(f"data.{setting}={typed}: {table.name} has the columns {_listed(names)}. Type one of them.")


def named_columns(names: list[str], usual: tuple[str, ...]) -> list[int]:
    """The columns with one of these names, those that are preferred first."""
    found = {plain(name): i for i, name in reversed(list(enumerate(names)))}
    return [found[name] for name in usual if name in found]


def split_column(table: Table, names: list[str], header: bool) -> int:
    """A column called split, or one of another usual name in which there is nothing but names of splits; else -1."""
    candidates = named_columns(names, SPLIT) if header else list(range(2, len(names)))
    for column in candidates:
        cells = {cell for cell in table.cells(column) if cell}
        if (header and plain(names[column]) == "split") or (cells and all(map(part_of, cells))):
            return column
    return -1


def _file_column(
    table: Table, names: list[str], header: bool, typed: str | int | None, resolve: Resolve, taken: set[int]
) -> int:
    if typed is not None:
        return typed_column(table, names, "file_column", typed)
    named = named_columns(names, FILE) if header else []
    if len(named) == 1 or (named and not table.rows):
        return named[0]
    free = [column for column in range(len(names)) if column not in taken]
    for chosen in (named, [column for column in free if _endings(table, column)], free):
        good = [column for column in chosen if any(resolve(cell) for cell in table.cells(column, SAMPLE) if cell)]
        if len(good) == 1 or (good and chosen is named):
            return good[0]
    if named:
        return named[0]
    looks = [column for column in free if _endings(table, column)]
    if len(looks) == 1:
        return looks[0]
    free = [column for column in free if not header or plain(names[column]) not in LABEL] or free
    choices = _listed([names[column] for column in free])
    raise UserError(
        f"{table.name} {_begins(table, names, header)}: which column names the pictures? Type data.file_column= and "
        f"one of {choices}; its usual names are file, filename, path, image, image_id and id."
        + (TEXTS if {"text", "sentence"} & set(map(plain, names)) else "")
    )


def _endings(table: Table, column: int) -> bool:
    cells = [cell for cell in table.cells(column, SAMPLE) if cell]
    return bool(cells) and all(ending(cell) in ENDINGS for cell in cells)


def label_column(
    table: Table, names: list[str], header: bool, typed: str | int | None, taken: set[int], needed: bool,
    usual: tuple[str, ...] = LABEL,
) -> int:  # fmt: skip
    if typed is not None:
        return typed_column(table, names, "label_column", typed)
    named = [column for column in (named_columns(names, usual) if header else []) if column not in taken]
    free = [c for c in range(len(names)) if c not in taken and (names[c] or not header) and any(table.cells(c, SAMPLE))]
    if header and not named:
        free = [column for column in free if plain(names[column]) not in FILE] or free
    if len(named) > 1 and not ("file" in names and "label" in names):  # exactly these were always taken
        words = [column for column in named if not all(cell.isdecimal() for cell in table.cells(column))]
        named = (words or named)[:1] if len({_partition(table, column) for column in named}) == 1 else named
        if len(named) > 1:
            both = " and ".join(f"{names[column]} ({len(set(table.cells(column)))} values)" for column in named)
            choices = " or ".join(command(f"data.label_column={names[column]}") for column in named)
            raise UserError(f"{table.name} has the columns {both}: which tells the class? Type {choices}.")
    if named:
        return named[0]
    if len(free) == 1:
        return free[0]
    if not needed:
        return -1
    raise UserError(
        f"{table.name} {_begins(table, names, header)}: which column tells the class? "
        + (f"Type data.label_column= and one of {_listed([names[c] for c in free])}; " if free else "Add one; ")
        + "its usual names are label, class, category, breed and target."
    )


def _partition(table: Table, column: int) -> tuple[int, ...]:
    """How a column divides the rows, whatever its values are called."""
    number: dict[str, int] = {}
    return tuple(number.setdefault(cell, len(number)) for cell in table.cells(column))


def _begins(table: Table, names: list[str], header: bool) -> str:
    first = names if header else table.rows[0][1]
    return f"begins with {','.join(first)[:80]}" + ("" if header else ", which is no header")


def _listed(names: list[str]) -> str:
    return ", ".join(name for name in names[:12] if name) + (" and others" if len(names) > 12 else "")
