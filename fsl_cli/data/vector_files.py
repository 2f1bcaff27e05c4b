"""Vectors to classify, each in the place of a picture's file: rows of files of features.

The twin of `queries`, for embeddings in place of pictures; those with classes are read by `embedding_files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.data.decode import Classes, File
from fsl_cli.data.embedding_files import Found, inside
from fsl_cli.data.feature_files import FORMS, Chosen, read_features
from fsl_cli.data.layouts import refuse
from fsl_cli.data.left_out import some
from fsl_cli.data.queries import Query
from fsl_cli.errors import UserError

NEEDED = (
    "Type {0}= with files of vectors, .npz, .npy, .safetensors or .parquet, or a folder of them: {0}=new.npz, "
    "{0}='new/*.npy'."
)


def known_vectors(found: Found) -> Classes:
    """The rows of each class as files."""
    classes: Classes = {}
    for group in found.groups.values():
        for label, rows in group.items():
            own = [_as_file(found.features[number], found.files[number], row) for number, row in rows]
            classes.setdefault(label, []).extend(own)
    return classes


def vectors(files: Iterable[File]) -> Any:
    """The vectors (n, d) of such files, float32."""
    return np.stack([np.frombuffer(file.read(), dtype="<f4") for file in files])


def vector_queries(
    words: Iterable[str], classes: Iterable[str], width: int, skip: bool, lost: list[str], setting: str = "query"
) -> list[Query]:
    """The rows of the files that these words name, each a path or a pattern; `classes` are those that they may be of.

    Their labels are those of the file, or else the name of the file or of a folder on its way that is a class's. With
    `skip`, rows that are not finite are added to `lost`, in words. Raises UserError, also where they are not of this
    `width`; it calls them by their `setting`.
    """
    known, bad, odd, found = set(classes), list[str](), list[str](), list[Query]()
    try:
        for word in words:
            for path, parts in _paths(word, setting):
                found += _rows(path, parts, known, width, bad, odd)
    except OSError as error:
        raise UserError(f"{error.filename or setting} cannot be read: {error.strerror or error}.") from error
    where = f"{setting}={','.join(words)}"
    if odd:
        refuse(f"{where}: vectors of {width:,} numbers are needed, of the network that made the known ones:", odd)
    if bad and not skip:
        refuse(
            f"{where} cannot be used (on_error=skip leaves out such rows):", [f"{row} is not finite." for row in bad]
        )
    lost += [some(bad, "row", "not finite")] if bad else []
    if not found:
        raise UserError(f"{where} has no vectors. {NEEDED.format(setting)}")
    return found


def width_of(word: str, setting: str) -> int:
    """How many numbers the vectors have that a word names, a file, a pattern or a folder. Raises UserError."""
    for path, _ in _paths(word, setting):
        return int(read_features(path, Chosen()).features.shape[1])
    raise UserError(f"{setting}={word} has no vectors. {NEEDED.format(setting)}")


def _paths(word: str, setting: str) -> Iterator[tuple[Path, list[str]]]:
    """The files of features that a word names, each with the folders on its way and its own name."""
    path = Path(word).expanduser()
    if path.is_dir():
        for each in inside(path)[0]:
            yield each, list(each.relative_to(path).with_suffix("").parts)
    elif path.is_file() and path.suffix.lower() in FORMS:
        yield path, []
    elif path.exists():
        raise UserError(f"{setting}={word} is no file of vectors. {NEEDED.format(setting)}")
    else:
        matches = sorted(glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{setting}={word} does not exist. {NEEDED.format(setting)}")
        for match in matches:
            yield from _paths(match, setting)


def _rows(
    path: Path, parts: list[str], classes: set[str], width: int, bad: list[str], odd: list[str]
) -> Iterator[Query]:
    """The rows of a file; the names of those that are not finite go to `bad`, a file of another width to `odd`."""
    file = read_features(path, Chosen())
    if file.features.shape[1] != width:
        odd.append(f"{path} has vectors of {file.features.shape[1]:,}.")
        return
    by_place = next((part for part in reversed(parts) if part in classes), None)
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.asarray(file.features, dtype="<f4")).all(1)
    for row, good in enumerate(finite.tolist()):
        vector = _as_file(file.features, str(path), row)
        if not good:
            bad.append(vector.name)
            continue
        label = file.labels[row] if file.labels else by_place
        yield Query(vector, label if label in classes else None, bool(file.labels and label) or len(parts) > 1)


def _as_file(features: Any, name: str, row: int) -> File:
    return File(f"{name} row {row}" if len(features) > 1 else name, partial(_bytes, features, row))


def _bytes(features: Any, row: int) -> bytes:
    return np.ascontiguousarray(features[row], dtype="<f4").tobytes()
