"""One file of features with their classes, in the forms in which people keep them.

npz, safetensors, Parquet, or npy with a table. A npy stays where it is, mapped. Rows of classes may stand beside: see
`class_rows.py`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsl_cli.data.columns import LABEL, SPLIT, label_column, named_columns, plain, split_column
from fsl_cli.data.store import SPLITS
from fsl_cli.data.tables import parse_table
from fsl_cli.errors import UserError

FORMS = (".npz", ".npy", ".safetensors", ".parquet")
TABLES = (".csv", ".tsv")
FEATURES = ("features", "embeddings", "feature", "embedding", "feats", "embs", "vectors", "x")
LABELS = (*LABEL, "targets")
CLASS_ROWS = ("classrows", "classembeddings", "classfeatures", "textfeatures", "textembeddings", "attributes")
NAMES = ("names", "classnames", "labelnames", "classes")
MAPPED = 1 << 20  # bytes: smaller files are read, as there may be one for each item


class Chosen(NamedTuple):
    """What the user said of the files."""

    labels: str | None = None  # a table for a file without labels
    label_column: str | int | None = None
    skip: bool = False  # leave out what is not finite, or all zeros
    class_rows: str | None = None  # a file of them


class Rows(NamedTuple):
    """Rows of classes, and the classes that they are of."""

    name: str  # of the file
    classes: list[str]
    values: Any  # (classes, k), if all is well


class File(NamedTuple):
    """A file's features, and the label and split of each row where it tells them."""

    name: str
    features: Any  # (n, d)
    labels: list[str] | None
    splits: list[str] | None
    class_rows: Rows | None = None


def read_features(path: Path, chosen: Chosen) -> File:
    """The features of a file, with the labels and splits that it or the table beside it has. Raises UserError."""
    arrays = _arrays(path)
    by_name = {plain(name): value for name, value in reversed(arrays.items())}
    rows = next((by_name.pop(name) for name in CLASS_ROWS if name in by_name), None)
    features = next((by_name[name] for name in FEATURES if name in by_name), None)
    if features is None:
        tables = [value for value in by_name.values() if value.ndim == 2 and value.dtype.kind == "f"]
        several = path.suffix.lower() == ".npy"  # has but one
        features = next(iter(arrays.values())) if several else tables[0] if len(tables) == 1 else None
    if features is None:
        there = ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in arrays.items())
        raise UserError(f"{path} has {there or 'no arrays'}: which are the features? Call them features.")
    features = features[None] if features.ndim == 1 else features
    if features.ndim != 2 or features.dtype.kind not in "fiu" or not features.shape[1]:
        raise UserError(
            f"{path} has features of shape {features.shape}, {features.dtype}: they must be numbers (n, d)."
        )
    n = len(features)
    labels = _first(by_name, LABELS, n)
    named = _named(by_name, labels)
    if labels is not None and labels.dtype.kind in "iu" and named is not None and labels.max(initial=-1) < len(named):
        labels = named[labels]
    class_rows = None if rows is None else _of_classes(path, rows, named)
    splits = _first(by_name, SPLIT, n)
    if splits is not None and splits.dtype.kind in "iu":
        splits = np.array([SPLITS[value] if 0 <= value < 3 else str(value) for value in splits.tolist()])
    beside = None if labels is not None else _table_of(path, chosen)
    if beside:
        told, parts = _listed(beside, n, path, chosen)
        return File(str(path), features, told, parts, class_rows)
    return File(
        str(path),
        features,
        None if labels is None else _words(labels, path),
        None if splits is None else _words(splits, path),
        class_rows,
    )


def read_class_rows(path: Path) -> Rows | None:
    """The rows of classes that a file has beside features, or instead of them; None: it has none. Raises UserError."""
    by_name = {plain(name): value for name, value in reversed(_arrays(path).items())}
    rows = next((by_name.pop(name) for name in CLASS_ROWS if name in by_name), None)
    return None if rows is None else _of_classes(path, rows, _named(by_name, _first(by_name, LABELS, len(rows))))


def _named(by_name: dict[str, Any], labels: Any) -> Any:
    """The array of names of classes; None: there is none."""
    named = next((by_name[key] for key in NAMES if key in by_name and by_name[key] is not labels), None)
    return named if named is not None and named.dtype.kind in "US" and named.ndim == 1 else None


def _of_classes(path: Path, rows: Any, named: Any) -> Rows:
    return Rows(str(path), list(map(str, range(len(rows)))) if named is None else _words(named, path), rows)


def _arrays(path: Path) -> dict[str, Any]:
    try:
        if path.suffix.lower() == ".npy":
            large = path.stat().st_size > MAPPED
            return {"features": np.load(path, mmap_mode="r" if large else None, allow_pickle=False)}
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        return _parquet(path) if path.suffix.lower() == ".parquet" else _safetensors(path)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Write it again, with numpy.savez, numpy.save, safetensors or Parquet, "
            "without Python objects in it."
        ) from error


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path} needs safetensors. Type pip install safetensors.") from error
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error
    return {
        name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()
    }  # NumPy has no bfloat16


def _parquet(path: Path) -> dict[str, Any]:
    """A table's columns: one of lists of numbers is a matrix; where there is none, all of fractions together are."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f'{path} needs pyarrow. Type pip install "fsl-cli[parquet]".') from error
    try:
        table = parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as error:
        raise ValueError(error) from error
    found: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        cells = column.combine_chunks()
        if pyarrow.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        if pyarrow.types.is_nested(cells.type) and hasattr(cells, "value_lengths"):
            numbers = cells.flatten().to_numpy(zero_copy_only=False)
            if len(set(cells.value_lengths().to_pylist())) > 1:
                raise UserError(f"{path}: rows of its column {name} are not all as long: they must be numbers (n, d).")
            found[name] = numbers.reshape(len(cells), -1)
        elif pyarrow.types.is_string(cells.type) or pyarrow.types.is_large_string(cells.type):
            found[name] = np.array(cells.fill_null("").to_pylist(), dtype=str)
        else:
            found[name] = cells.to_numpy(zero_copy_only=False)
    wide = [cells for cells in found.values() if cells.ndim == 1 and cells.dtype.kind == "f"]
    if wide and all(cells.ndim == 1 for cells in found.values()):
        found["features"] = np.stack(wide, 1)
    return found


def _first(arrays: dict[str, Any], names: tuple[str, ...], count: int) -> Any:
    """The first of these arrays that says something of each row."""
    return next((arrays[key] for key in names if key in arrays and arrays[key].shape in ((count,), (count, 1))), None)


def _words(values: Any, path: Path) -> list[str]:
    values = values.reshape(-1)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind not in "USiub":
        raise UserError(f"{path} has labels or splits of type {values.dtype}: they must be whole numbers or words.")
    return list(map(str, values.tolist()))


def _table_of(path: Path, chosen: Chosen) -> Path | None:
    """The table with a file's labels: as it was typed, or of the same name, or the one that is called labels."""
    if chosen.labels:
        return Path(chosen.labels).expanduser()
    near = [path.with_suffix(ending) for ending in TABLES]
    near += [path.with_name(f"{name}{ending}") for name in ("labels", "metadata") for ending in TABLES]
    return next((each for each in near if each.is_file()), None)


def _listed(table: Path, count: int, path: Path, chosen: Chosen) -> tuple[list[str], list[str] | None]:
    """The labels and splits that a table gives the rows of a file."""
    read = parse_table(table.read_bytes(), table.name, str(table))
    if not read.rows:
        raise UserError(f"{table} is empty: it has no labels for {path}.")
    first = read.rows[0][1]
    header = bool({plain(cell) for cell in first} & {*LABELS, *SPLIT} or chosen.label_column in first)
    names = first if header else [str(i + 1) for i in range(len(first))]
    below = read._replace(rows=read.rows[1:] if header else read.rows)
    split = split_column(below, names, header)
    taken = {split, *(named_columns(names, ("index", "row", "id")) if header else ())}
    label = label_column(below, names, header, chosen.label_column, taken, True, LABELS)
    if len(below.rows) != count or read.broken:
        raise UserError(
            f"{table} has {len(below.rows):,} rows{' below its header' if header else ''}, and {path} {count:,}: "
            f"each row of features needs a line, in the same order.{' ' + read.broken if read.broken else ''}"
        )
    return below.cells(label), below.cells(split) if split >= 0 else None
