"""Files are written whole or not at all, and read through one door. What the disk refuses becomes a UserError."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from fsl_cli.errors import UserError, shown

LARGEST = 64 * 1024 * 1024  # bytes of a text that is read whole
LARGEST_YAML = 1024 * 1024  # bytes: a YAML takes a thousand times as long to read
VALUES, DEPTH = 100_000, 50  # the most values of a YAML, and the deepest nesting

# errors of a disk: full, over quota, read-only, no permission, a file in place of a folder, file too large, broken
REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES),
    *(errno.EPERM, errno.ENOTDIR, errno.EFBIG, errno.EIO),
)

FORMULA = tuple("=+-@\t\r＝＋－＠")  # a cell that begins so is computed by spreadsheets


def first_process() -> bool:
    """Whether this process writes: it is the only one of its run, or the first of several on one or more machines."""
    ranks = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")  # torchrun's, Slurm's, and Lightning's own two
    return all(os.environ.get(rank, "0") == "0" for rank in ranks)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none. Raises UserError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of that name" if folder.exists() else error.strerror
        raise UserError(f"The folder {folder} cannot be made: {reason}. Choose another with out=.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name that becomes `path` when all is written, and is removed when it is not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")  # no other process has it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def demand_writable(path: Path, advice: str) -> None:
    """To be called before long work. Raises UserError, which ends in `advice`, if `path` cannot be written."""
    top = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not top.is_dir() or not os.access(top, os.W_OK):
        reason = "it is a folder" if path.is_dir() else f"{top} is no folder that can be written to"
        raise UserError(f"{path} cannot be written: {reason}. {advice}")


@contextmanager
def writing(place: object, advice: str) -> Iterator[None]:
    """While inside, an OSError becomes a UserError that names `place` and ends in `advice`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}. {advice}") from error


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[None]:
    """While inside, files are made below `folder`; where that fails, those that were not there before are removed."""

    def there() -> set[Path]:
        return {folder, *folder.rglob("*")} if folder.exists() else set()

    before = there()
    try:
        yield
    except BaseException:
        for path in sorted(there() - before, reverse=True):  # what lies in a folder before it
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_text(path: Path, largest: int = LARGEST) -> str:
    """The text of a file. Raises UserError if it is missing, not a regular file, too large, or not UTF-8."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{path} cannot be read: it is no regular file.")
        if about.st_size > largest:
            raise UserError(f"{path} cannot be read: it has {about.st_size:,} bytes, more than {largest:,}.")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if the file is missing or not JSON."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it holds a {type(content).__name__}, not an object.")
    return content


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, by the names in its header. Raises UserError if it is missing or damaged."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path).removeprefix("\ufeff"), newline=""), strict=True)
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path} cannot be read: its rows have not as many columns as its header.")
    return rows


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML. Raises UserError if it is missing, not YAML, or unfolds far beyond its length."""
    text = read_text(path, LARGEST_YAML)
    try:
        content = yaml.load(text, _Plain)  # noqa: S506  # a SafeLoader
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}.") from error
    if _is_expanding(content):
        raise UserError(f"{path} cannot be read: it unfolds to more than {VALUES:,} values, or deeper than {DEPTH}.")
    return content


class _Plain(yaml.SafeLoader):
    """Refuses merge keys (<<): they copy what they name, so a few lines could become millions of values."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "it has a merge key (<<)", node.start_mark)


def _is_expanding(content: Any) -> bool:
    """Whether a few lines with anchors stand for millions of values, or values contain themselves."""
    waiting, seen = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if seen > VALUES or depth > DEPTH:
            return True
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((each, depth + 1) for each in inner)
    return False


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file whole or not at all. A spreadsheet shows every cell as text or a number, never as a formula."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([csv_cell(cell) for cell in row] for row in (header, *rows))


def csv_cell(value: object) -> object:
    """A cell of a CSV: one line of text, and never a formula (an apostrophe in front tells a spreadsheet so)."""
    if not isinstance(value, str):
        return value
    plain = shown(value)
    return f"'{plain}" if value.startswith(FORMULA) and not _number(value) else plain


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()


@contextmanager
def disk_errors(place: object) -> Iterator[None]:
    """While inside, a full or read-only disk becomes a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise UserError(
            f"{error.filename or place} cannot be written: {error.strerror}. Free some space, or type out=FOLDER."
        ) from error
