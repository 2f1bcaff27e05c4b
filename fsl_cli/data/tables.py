"""Tables that list pictures, as people have them: what separates their columns, how they are encoded, JSON lists."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from typing import Any, NamedTuple

from fsl_cli.data.places import Place
from fsl_cli.errors import UserError

ENDINGS = (".csv", ".tsv", ".json")  # of the tables that are looked for in a folder; .txt may be named
SEPARATORS = ",;\t|"
SAMPLE = 20  # rows by which a table's form is told
LARGEST, LARGEST_JSON = 1 << 27, 1 << 26  # bytes
MOST = 2_000_000  # rows
BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Table(NamedTuple):
    """The rows of a table, none of them empty, each with the number of its line."""

    path: str  # in its place
    name: str  # for people
    rows: list[tuple[int, list[str]]]
    broken: str  # why the rows end too soon; "" if they do not

    def cells(self, column: int, count: int | None = None) -> list[str]:
        """What stands in a column, in the first `count` rows below the header."""
        return [row[column] if column < len(row) else "" for _, row in self.rows[:count]]


def read_table(place: Place, path: str, errors: str = "strict") -> Table:
    """The table with this path in `place`. Raises UserError where it cannot be read as one.

    `errors` is what to do where its letters cannot be: strict or replace.
    """
    picture = place.picture(path)
    if is_too_large(place, path):
        raise UserError(f"{place.name(path)} is larger than {LARGEST >> 20} MB: no list of pictures.")
    try:
        content = picture.file.read() if picture else b""
    except (RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # what a zip's members raise
        raise UserError(
            f"{place.name(path)} cannot be read ({error}). Make the zip again, without a password."
        ) from error
    return parse_table(content, path, place.name(path), errors)


def is_too_large(place: Place, path: str) -> bool:
    """Whether the file is too large to be a list of pictures."""
    picture = place.picture(path)
    return picture is not None and int(picture.stamp[1]) > LARGEST


def parse_table(content: bytes, path: str, name: str, errors: str = "strict") -> Table:
    """The table in the content of a file."""
    if path.lower().endswith(".json"):
        return Table(path, name, _json_rows(content), "")
    text = decoded_text(content, name, errors)
    separator = re.match(r"sep=(.)\r?\n", text)  # Excel's own line
    rows, broken = _rows(
        text[separator.end() :] if separator else text, separator[1] if separator else _separator(text)
    )
    return Table(path, name, [(line + bool(separator), row) for line, row in rows], broken)


def decoded_text(content: bytes, name: str, errors: str = "strict") -> str:
    """What a file says, in UTF-8 or UTF-16. Raises UserError where it is neither."""
    encoding = next((each for bom, each in BOMS.items() if content.startswith(bom)), "utf-8")
    if encoding == "utf-8" and content[:200].count(0) > len(content[:200]) // 4:  # UTF-16 that does not say so
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content.decode(encoding, errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not in UTF-8 ({error}). Save it in UTF-8, or convert it: "
            "iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW, where it was written with Windows in Europe or America."
        ) from error


def _rows(text: str, separator: str, count: int | None = None) -> tuple[list[tuple[int, list[str]]], str]:
    """Up to `count` rows with their lines, and what ended them too soon."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    found: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            cells = [each.strip() for each in row]
            if any(cells):
                found.append((reader.line_num, cells))
            if len(found) == (count or MOST):
                return found, "" if count else f"after line {found[-1][0]}: more than {MOST:,} rows."
    except csv.Error as error:
        return found, f"after line {found[-1][0] if found else 0}: {error}."
    return found, ""


def _separator(text: str) -> str:
    """The one that divides the first rows into equally many columns, more than one; a comma where none does."""

    def good(separator: str) -> tuple[bool, bool, int]:
        widths = [len(row) for _, row in _rows(text, separator, SAMPLE)[0]] or [1]
        return widths[0] > 1, min(widths) == max(widths) > 1, -SEPARATORS.index(separator)

    return max(SEPARATORS, key=good)


def cell(value: Any) -> str:
    """What a value of JSON is in a table."""
    return "" if value is None else str(value).strip()


def _json_rows(content: bytes) -> list[tuple[int, list[str]]]:
    """A JSON list of pictures as a table with a header; nothing where it lists none.

    {"image_names": [], "image_labels": [], "label_names": []} as Chen et al. 2019 write, [{"file": "", "label": ""}],
    {"1.jpg": "cat"} or {"cat": ["1.jpg"]}.
    """
    if len(content) > LARGEST_JSON:
        return []
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return []
    rows: list[tuple[Any, Any]] = []
    header = ["file", "label"]
    if isinstance(value, dict) and {"image_names", "image_labels"} <= value.keys():
        names = value.get("label_names")
        names = dict(enumerate(names)) if isinstance(names, list) else names if isinstance(names, dict) else {}
        labels = (names.get(each, names.get(str(each), each)) for each in _list(value["image_labels"]))
        rows = list(zip(_list(value["image_names"]), labels, strict=False))
    elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        header = [str(key) for key in value[0]]
        return list(enumerate([header, *([cell(each.get(key)) for key in value[0]] for each in value)], 1))
    elif isinstance(value, dict) and all(isinstance(each, str | int) for each in value.values()):
        rows = list(value.items())
    elif isinstance(value, dict) and all(isinstance(each, list) for each in value.values()):
        rows = [(file, label) for label, files in value.items() for file in files if isinstance(file, str)]
    return list(enumerate([header, *([str(file), str(label)] for file, label in rows)], 1)) if rows else []


def _list(value: Any) -> list[Any]:
    return [each if isinstance(each, str | int) else "" for each in value] if isinstance(value, list) else []
