"""Texts and their classes, in the forms in which people have them: a table, JSON lines, or folders of text files.

The twin of `layouts`, for texts in place of pictures. Everything wrong with them is one error.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from glob import glob
from pathlib import Path
from typing import NamedTuple

from fsl_cli.data.archives import BROKEN, archive_of
from fsl_cli.data.columns import LABEL, Columns, label_column, named_columns, plain, split_column, typed_column
from fsl_cli.data.decode import PIECE, Classes, File
from fsl_cli.data.formats import ending
from fsl_cli.data.layouts import counted, left_out_by, refuse, split_folders, split_problems
from fsl_cli.data.left_out import some
from fsl_cli.data.names import part_of
from fsl_cli.data.places import Folder, Picture, Place, disk_file
from fsl_cli.data.store import Images
from fsl_cli.data.tables import SAMPLE, Table, cell, decoded_text, parse_table
from fsl_cli.data.texts import as_items, cleaned
from fsl_cli.errors import UserError

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
LINES = (".jsonl", ".ndjson")
FILES = (".txt", "")  # of a text in a class folder; "": without an ending
TEXT = (  # usual names of the column, in the order in which they are preferred
    "text", "texts", "sentence", "utterance", "query", "question", "content", "message", "document", "body", "comment",
    "review", "tweet", "headline", "title", "description",
)  # fmt: skip
LABELS = (*LABEL, "intent", "topic", "sentiment", "language", "lang")
LARGEST = 1 << 29  # bytes of a table
LAYOUT = (
    "It needs a table (CSV) with the columns text and label, JSON lines with these keys, or a folder per class with a "
    "text a file, such as ROOT/sports/1.txt; or a zip or tar of these."
)
NEEDED = "Type query= with a table of texts, a folder of text files, or files: query=new.csv, query='new/*.txt'."


class Text(NamedTuple):
    """One text, cleaned, and where it stands: a file, or a table's line."""

    text: str
    place: str


class Found(NamedTuple):
    """All texts by split ("" if there is none) and class, how they were found, and what was left out."""

    groups: dict[str, dict[str, list[Text]]]
    reading: str
    left_out: list[str]
    table: bool  # whether tables list them, and not folders


class Query(NamedTuple):
    """A text to classify, and what it is known to be."""

    text: Text
    label: str | None  # its class, if a folder on its way or the table's column label names one
    told: bool  # whether a folder or the table tells, be it a class or not


class Chosen(NamedTuple):
    """What the user said of a table, or of what cannot be read."""

    text_column: str | int | None = None
    label_column: str | int | None = None
    skip: bool = False  # leave out what is empty or cannot be read


def find_texts(root: str | None, setting: str = "data.root", chosen: Chosen = Chosen()) -> Found:  # noqa: B008
    """The texts of a table, a folder or an archive, as `setting` names it. Raises UserError."""
    if not root:
        raise UserError(f"data=texts needs to know where your texts are: type data.root=FILE.csv. {LAYOUT}")
    try:
        place, named = _open(root, setting)
        tables = [named] if named else _tables(place)
        while not tables and len(place.folders()) == 1 and not place.loose() and place.folders(place.folders()[0]):
            place.enter(place.folders()[0])  # a wrapper
            tables = _tables(place)
        return _by_tables(place, tables, setting, chosen) if tables else _by_folder(place, root, setting, chosen)
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error
    except BROKEN as error:
        raise UserError(f"{root} cannot be read ({error}). Copy it again.") from error


def text_queries(words: Iterable[str], classes: Iterable[str], lost: list[str]) -> list[Query]:
    """The texts that these words name, each a path or a pattern; `classes` are those that they may be of.

    Empty ones, and what cannot be read, are added to `lost`, in words. Raises UserError.
    """
    known, empty = set(classes), list[str]()
    try:
        found = [query for word in words for query in _asked(word, known, empty)]
    except OSError as error:
        raise UserError(f"{error.filename or 'query'} cannot be read: {error.strerror or error}.") from error
    lost += [some(empty, "text", "empty, or cannot be read")] if empty else []
    if not found:
        raise UserError(f"query={','.join(words)} has no texts. {NEEDED}" + "".join(f"\n  {line}" for line in lost))
    return found


def as_file(text: Text) -> File:
    """A text in the place of a file, by the name of where it stands."""
    return File(text.place, partial(text.text.encode, "utf-8", "surrogatepass"))


def decoded_texts(classes: Classes, size: int) -> Iterator[tuple[list[tuple[str, File]], Images]]:
    """The items (n, 3, 1, size) of such files, in pieces; each with its class and file."""
    order = [(name, file) for name in sorted(classes) for file in classes[name]]
    for start in range(0, len(order), PIECE):
        some = order[start : start + PIECE]
        yield some, as_items((file.read().decode("utf-8", "surrogatepass") for _, file in some), size)


def _open(root: str, setting: str) -> tuple[Place, str]:
    """The place, and the table in it if `root` names that."""
    path = Path(root).expanduser()
    if path.is_dir():
        return Folder(path), ""
    state = "is no regular file" if path.exists() else "does not exist"
    if path.is_file():
        if path.suffix.lower() in (*TABLES, ".txt"):
            return Folder(path.parent), path.name
        if place := archive_of(path):
            return place, ""
        state = "is a file, but no table, zip or tar"
    raise UserError(f"{setting}={root} {state}. Type {setting}=FILE.csv, a folder, a zip or a tar. {LAYOUT}")


def _tables(place: Place) -> list[str]:
    """The tables in a place that have texts with labels: one, or one for each split."""
    found = [path for path in place.loose() if path.lower().endswith(TABLES) and _has_texts(place, path)]
    parts = [part_of(path.rpartition(".")[0]) for path in found]
    if len(found) > 1 and (None in parts or len(set(parts)) < len(parts)):
        raise UserError(
            f"{place.name()} has {len(found)} tables of texts, {', '.join(found)}: type the path of one of them."
        )
    return found


def _has_texts(place: Place, path: str) -> bool:
    try:
        columns = text_columns(_table(place, path, "replace"))
    except UserError:
        return False
    return {plain(columns.names[each]) for each in (columns.file, columns.label)} <= {*TEXT, *LABELS}


def _table(place: Place, path: str, errors: str = "strict") -> Table:
    picture = place.picture(path)
    if picture is None:
        raise UserError(f"{place.name(path)} is not there.")
    if int(picture.stamp[1]) > LARGEST:
        raise UserError(f"{place.name(path)} is larger than {LARGEST >> 20} MB. Divide it.")
    content = picture.file.read()
    if not path.lower().endswith(LINES):
        return parse_table(content, path, place.name(path), errors)
    rows, keys = list[tuple[int, list[str]]](), list[str]()
    lines = io.StringIO(decoded_text(content, place.name(path), errors), newline=None)  # JSON may have U+2028 in a text
    for line, words in enumerate(lines, 1):
        if not words.strip():
            continue
        try:
            value = json.loads(words)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            return Table(path, place.name(path), rows, f"line {line}: is no JSON object.")
        keys = keys or list(value)
        rows = rows or [(0, keys)]
        rows.append((line, [cell(value.get(key)) for key in keys]))
    return Table(path, place.name(path), rows, "")


def text_columns(
    table: Table, text: str | int | None = None, label: str | int | None = None, labelled: bool = True
) -> Columns:
    """The columns of a table of texts, `Columns.file` being that of the text: by usual names, else the longest one.

    `text` and `label` are what the user typed; `labelled` tells whether labels are needed. Raises UserError.
    """
    if not table.rows:
        raise UserError(f"{table.name} is empty: it has no texts.{' ' + table.broken if table.broken else ''}")
    first = table.rows[0][1]
    typed = {each for each in (text, label) if isinstance(each, str)}
    header = bool({plain(cell) for cell in first} & {*TEXT, *LABELS} or typed & set(first))
    width = max(len(row) for _, row in table.rows[: SAMPLE + 1])
    names = [*first, *[""] * (width - len(first))] if header else [str(i + 1) for i in range(width)]
    below = table._replace(rows=table.rows[1:] if header else table.rows)
    split = split_column(below, names, header)
    if text is not None:
        chosen = typed_column(below, names, "text_column", text)
    else:
        labels = {*(named_columns(names, LABELS) if header else ()), split}
        free = [column for column in range(width) if column not in labels] or [0]
        by_name = [column for column in (named_columns(names, TEXT) if header else []) if column in free]
        chosen = by_name[0] if by_name else max(free, key=lambda column: sum(map(len, below.cells(column, SAMPLE))))
    return Columns(
        chosen, label_column(below, names, header, label, {split, chosen}, labelled, LABELS), split, names, below.rows
    )


def _too_many(columns: Columns, row: list[str]) -> str:
    """What is wrong with a row that has cells in columns without a name, else ""."""
    named = max(number for number, name in enumerate(columns.names, 1) if name)
    if not any(row[named:]):
        return ""
    return f"{len(row)} cells, where the table has {named}: put a text with commas in quotes."


def _by_tables(place: Place, tables: list[str], setting: str, chosen: Chosen) -> Found:
    problems, empty, told = list[str](), list[str](), ""
    groups = defaultdict[str, dict[str, list[Text]]](dict)
    for path in tables:
        table = _table(place, path)
        columns = text_columns(table, chosen.text_column, chosen.label_column)
        told, name = columns.told(), place.name(path)
        own = part_of(path.rpartition(".")[0]) or "" if len(tables) > 1 else ""
        for line, row in columns.rows:
            text, label, part = (row[each] if 0 <= each < len(row) else "" for each in columns[:3])
            split = part_of(part) if columns.split >= 0 else own
            text = cleaned(text)
            wrong = "" if text else f"{columns.names[columns.file]} is empty."
            wrong = wrong or ("" if label else f"{columns.names[columns.label]} is empty.")
            wrong = _too_many(columns, row) or wrong
            if wrong and chosen.skip:
                empty.append(f"line {line} of {name}")
            elif wrong or split is None:
                problems.append(f"line {line}: {wrong or f'split is {part or chr(34) * 2}: type train, val or test.'}")
            else:
                groups[split].setdefault(label, []).append(Text(text, f"{name}:{line}"))
        problems += [table.broken] if table.broken else []
    if not groups and not problems:
        problems.append("It lists no texts.")
    problems += split_problems(groups)
    if problems:
        empties = any("is empty" in line for line in problems)
        skip = f" ({left_out_by(setting)} leaves out what is empty)" if empties else ""
        refuse(f"{place.name(tables[0])} is no table of texts yet{skip}:", problems)
    lost = [some(empty, "row", "its text or label is empty, or it has too many cells")] if empty else []
    return Found(dict(groups), f"table {', '.join(tables)}, {told}; {counted(groups)}", lost, True)


def _by_folder(place: Place, root: str, setting: str, chosen: Chosen) -> Found:
    """By class folders, in folders of splits where these are so called."""
    texts = [path for path in place.files if ending(path) in FILES]
    full = [folder for folder in place.folders() if any(path.startswith(f"{folder}/") for path in texts)]
    parts = split_folders(full)
    groups, problems, unreadable = defaultdict[str, dict[str, list[Text]]](dict), list[str](), list[str]()
    taken = 0
    for path in texts:
        folders = path.split("/")[:-1]
        part = parts.get(folders[0], "") if folders else ""
        if len(folders) < (2 if part else 1):
            continue  # lies beside the class folders
        text, wrong = _read(place.files[path])
        taken += 1
        if wrong:
            unreadable.append(place.name(path))
            problems += [] if chosen.skip else [wrong]
        else:
            groups[part].setdefault(folders[1 if part else 0], []).append(Text(text, place.name(path)))
    problems += split_problems(groups)
    if not groups and not problems:
        problems.append(f"{place.name()} has no class folders with text files, and no table of texts. {LAYOUT}")
    if problems:
        skip = f" ({left_out_by(setting)} leaves out what cannot be read)" if unreadable and not chosen.skip else ""
        refuse(f"{setting}={root} is no data set yet{skip}:", problems)
    lost = [some(unreadable, "text", "empty, or cannot be read")] if unreadable else []
    others = len(place.files) - taken
    lost += [f"{others:,} file{'s' * (others > 1)}: not a text file (.txt) in a class folder"] if others else []
    reading = "split folders" if parts else "class folders"
    return Found(dict(groups), f"{reading}; {counted(groups)}", lost, False)


def _read(file: Picture) -> tuple[str, str]:
    """A file's text, and what is wrong with it."""
    name = file.file.name
    try:
        text = decoded_text(file.file.read(), name)
    except (UserError, OSError, *BROKEN) as error:
        return "", str(error)
    if "\0" in text:
        return "", f"{name}: it is no text."
    return cleaned(text), "" if cleaned(text) else f"{name}: it is empty."


def _asked(word: str, classes: set[str], empty: list[str]) -> Iterator[Query]:
    path = Path(word).expanduser()
    if not path.exists():
        matches = sorted(glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"query={word} does not exist. {NEEDED}")
        for match in matches:
            yield from _asked(match, classes, empty)
        return
    if path.is_file() and path.suffix.lower() in TABLES:
        yield from _of_table(Folder(path.parent), path.name, classes, empty)
        return
    place = Folder(path) if path.is_dir() else archive_of(path)
    if place is None:
        yield from _of_file(Picture(disk_file(path), (path.name,)), [], classes, empty)
        return
    for name, file in place.files.items():
        if ending(name) in FILES:
            yield from _of_file(file, name.split("/")[:-1], classes, empty)
        elif name.lower().endswith(TABLES):
            yield from _of_table(place, name, classes, empty)


def _of_file(file: Picture, folders: list[str], classes: set[str], empty: list[str]) -> Iterator[Query]:
    text, wrong = _read(file)
    if wrong:
        empty.append(file.file.name)
        return
    yield Query(
        Text(text, file.file.name), next((each for each in reversed(folders) if each in classes), None), bool(folders)
    )


def _of_table(place: Place, path: str, classes: set[str], empty: list[str]) -> Iterator[Query]:
    table = _table(place, path)
    columns = text_columns(table, labelled=False)
    problems = [f"line {line}: {wrong}" for line, row in columns.rows if (wrong := _too_many(columns, row))]
    problems += [table.broken] if table.broken else []
    if problems:
        refuse(f"{place.name(path)} is no table of texts yet:", problems)
    for line, row in columns.rows:
        text, label = (row[each] if 0 <= each < len(row) else "" for each in columns[:2])
        where = f"{place.name(path)}:{line}"
        if cleaned(text):
            yield Query(Text(cleaned(text), where), label if label in classes else None, bool(label))
        else:
            empty.append(where)
