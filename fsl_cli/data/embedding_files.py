"""The features at a place, a file or a folder of them, by split and class. Everything wrong with them is one error."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsl_cli.data.class_rows import STEM, class_rows, rows_from
from fsl_cli.data.feature_files import FORMS, TABLES, Chosen, File, read_features
from fsl_cli.data.layouts import counted, in_two, refuse, split_folders, split_problems
from fsl_cli.data.left_out import some
from fsl_cli.data.names import is_junk, part_of
from fsl_cli.errors import UserError

BLOCK = 1 << 16  # rows looked at together
LAYOUT = (
    "It needs a file .npz, .safetensors or .parquet with the arrays features (n, d), labels (n) and perhaps split (n); "
    "a .npy with a table (CSV) of label[,split] beside it, a line for each row; or a folder of such files, or of "
    "CLASS.npy."
)
Row = tuple[int, int]  # the number of a file, and of a row in it


class Found(NamedTuple):
    """The rows of each class by split ("" if there is none), and the features (n, d) of each file."""

    groups: dict[str, dict[str, list[Row]]]
    features: list[Any]
    digest: str  # of all that was found
    reading: str
    left_out: list[str]
    class_rows: dict[str, Any]  # of each class a vector (k,), where there are any
    files: list[str]  # the name of each

    def of(self, rows: list[Row]) -> Any:
        """The features (n, d) of some rows, in their order."""
        pieces, start = [], 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end][0] != rows[start][0]:
                pieces.append(self.features[rows[start][0]][[row for _, row in rows[start:end]]])
                start = end
        return np.concatenate(pieces)


def find_embeddings(root: str | None, chosen: Chosen = Chosen(), setting: str = "data.root") -> Found:  # noqa: B008
    """The features at `root`, a file or a folder, as `setting` names it. Raises UserError."""
    if not root:
        raise UserError(f"data=embeddings needs to know where your features are: type data.root=FILE.npz. {LAYOUT}")
    place = Path(root).expanduser()
    if not place.is_dir() and not (place.is_file() and place.suffix.lower() in FORMS):
        state = "is no .npz, .npy, .safetensors or .parquet" if place.exists() else "does not exist"
        raise UserError(f"{setting}={root} {state}. {LAYOUT}")
    try:
        paths, others = ([place], 0) if place.is_file() else inside(place)
        if not paths:
            raise UserError(f"{setting}={root} is no data set yet: it has no files {', '.join(FORMS)}. {LAYOUT}")
        files = [read_features(path, chosen) for path in paths]
        rows = [file.class_rows for file in files]
        rows += [rows_from(path, chosen) for path in _of_classes(place, chosen)]
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error
    by_place = [_by_place(path.relative_to(place)) if place.is_dir() else None for path in paths]
    found = _gathered(f"{setting}={root}", files, by_place, chosen)
    classes = sorted({label for each in found.groups.values() for label in each})
    values, unused = class_rows(classes, rows, f"{setting}={root}")
    lost = [f"{others:,} file{'s' * (others > 1)}: no {', '.join(FORMS)}, and no table of one"] if others else []
    told = found.reading if values is None else f"{found.reading}, with class rows of {values.shape[1]:,} numbers"
    return found._replace(
        left_out=[*found.left_out, *lost, *unused],
        reading=told,
        class_rows={} if values is None else dict(zip(classes, values, strict=True)),
    )


def _of_classes(place: Path, chosen: Chosen) -> list[Path]:
    """The file of class rows: the one that was typed, or the one that is called classes, in the folder or beside."""
    if chosen.class_rows:
        return [Path(chosen.class_rows).expanduser()]
    folder = place if place.is_dir() else place.parent
    return [path for ending in FORMS if (path := folder / f"{STEM}{ending}").is_file() and path != place][:1]


def inside(folder: Path) -> tuple[list[Path], int]:
    """The files of features in a folder, however deep, and how many others there are, tables not counted."""
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    every = [path for path in every if not any(map(is_junk, path.relative_to(folder).parts))]
    every = [path for path in every if path.stem != STEM or path.parent != folder]  # which are rows of classes
    found = [path for path in every if path.suffix.lower() in FORMS]
    return found, sum(path.suffix.lower() not in (*FORMS, *TABLES) for path in every)


def _by_place(path: Path) -> tuple[str, str]:
    """Where a file without labels lies: the first folder or its own name, and what its class would be called below."""
    parts = path.with_suffix("").parts
    return parts[0], "/".join(parts[1:2])


def _gathered(where: str, files: list[File], places: list[tuple[str, str] | None], chosen: Chosen) -> Found:
    """All rows by split and class, those that cannot be used told or left out."""
    problems, bad, zero = _widths(files), list[str](), list[str]()
    parts = split_folders(sorted({place[0] for place in places if place}))
    digest = blake2b(digest_size=16)
    groups = defaultdict[str, dict[str, list[Row]]](dict)
    for number, (file, place) in enumerate(zip(files, places, strict=True)):
        own = parts.get(place[0], "") if place else ""
        usual = "" if not place else place[1] if own else place[0]
        if file.labels is None and not usual:
            problems.append(f"{file.name} has no labels: add an array labels, or a table {Path(file.name).stem}.csv.")
            continue
        labels = file.labels or [usual] * len(file.features)
        digest.update(json.dumps([labels, file.splits, own]).encode())
        finite, something = _usable(file.features, digest)
        meant = {word: part_of(word) for word in set(file.splits or ())}
        for row, label in enumerate(labels):
            split = meant[file.splits[row]] if file.splits else own
            wrong = "" if finite[row] else "is not finite (NaN, or too large for float32)"
            wrong = wrong or ("" if label else "has no label")
            if not wrong and not something[row]:
                zero.append(f"row {row} of {Path(file.name).name}")
                if chosen.skip:
                    continue
            if wrong and chosen.skip:
                bad.append(f"row {row} of {Path(file.name).name}")
            elif wrong:
                problems.append(f"row {row} of {file.name} {wrong}.")
            elif split is None:
                told = file.splits[row] if file.splits else ""
                problems.append(f"row {row} of {file.name}: split is {told!r}: write train, val or test.")
            else:
                groups[split].setdefault(label, []).append((number, row))
    if "" in groups and len(groups) > 1:
        problems.append(f"Some files have splits, and some have none: {len(groups.pop(''))} classes are in no split.")
        problems += in_two(groups)
    else:
        problems += split_problems(groups)
    if not groups and not problems:
        problems.append("There are no rows.")
    skip = f"{'data.' * where.startswith('data.')}on_error=skip leaves"
    if problems:
        hint = f" ({skip} out such rows)" if any("row " in line for line in problems) else ""
        refuse(f"{where} is no data set yet{hint}:", problems)
    lost = [some(bad, "row", "not finite, or without a label")] if bad else []
    lost += [some(zero, "row", "all zeros")] if zero and chosen.skip else []
    if zero and not chosen.skip:
        print(f"{some(zero, 'row', 'all zeros')}: what compares by cosines tells nothing of these. {skip} them out.")
    width, count = files[0].features.shape[1], sum(len(own) for each in groups.values() for own in each.values())
    kinds = Counter(Path(file.name).suffix.lower() for file in files)
    read = f"{len(files):,} files" if len(files) > 1 else f"a file {next(iter(kinds))}"
    reading = f"{read}: {count:,} embeddings of {width:,} numbers; {counted(groups)}"
    features, names = [file.features for file in files], [file.name for file in files]
    return Found(dict(groups), features, digest.hexdigest(), reading, lost, {}, names)


def _widths(files: list[File]) -> list[str]:
    """Files whose features are not as wide as the first one's."""
    width = files[0].features.shape[1]
    return [
        f"{file.name} has features of {file.features.shape[1]:,} numbers, {files[0].name} of {width:,}."
        for file in files
        if file.features.shape[1] != width
    ]


def _usable(features: Any, digest: Any) -> tuple[Any, Any]:
    """Which rows are finite, and which of them say anything; `digest` takes all in."""
    finite, something = [], []
    for block in _blocks(features):
        digest.update(block.data)
        finite.append(np.isfinite(block).all(1))
        something.append(block.any(1))
    return np.concatenate(finite or [np.zeros(0, bool)]), np.concatenate(something or [np.zeros(0, bool)])


def _blocks(features: Any) -> Iterator[Any]:
    for start in range(0, len(features), BLOCK):
        with np.errstate(over="ignore"):
            yield np.ascontiguousarray(features[start : start + BLOCK], dtype="<f4")
