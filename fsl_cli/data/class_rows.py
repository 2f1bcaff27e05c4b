"""Class rows: what is known of a class besides its items, a vector each. Attributes, or the embedding of its name.

They stand in the file of features (arrays class_rows and class_names), or in one of their own: these arrays, or
features and labels, a row a class.
Everything wrong with them is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.data.feature_files import FORMS, Chosen, Rows, read_class_rows, read_features
from fsl_cli.data.layouts import refuse
from fsl_cli.data.left_out import first_five, some
from fsl_cli.errors import UserError

STEM = "classes"  # of the file of class rows in a folder, or beside a file


def rows_from(path: Path, chosen: Chosen) -> Rows:
    """The class rows that a file holds: so called, or its features, whose labels are the classes, or else 0, 1, …"""
    if own := read_class_rows(path):
        return own
    file = read_features(path, Chosen(None, chosen.label_column))
    return Rows(file.name, file.labels or list(map(str, range(len(file.features)))), np.asarray(file.features))


def rows_in(file: str, setting: str) -> dict[str, Any]:
    """The row of each class that a file has one of, as `setting` names it. Raises UserError."""
    path = Path(file).expanduser()
    if not path.is_file() or path.suffix.lower() not in FORMS:
        state = f"is no {', '.join(FORMS)}" if path.exists() else "does not exist"
        raise UserError(
            f"{setting}={file} {state}. It needs a file of vectors, a row a class: arrays class_rows and class_names, "
            "or features and labels."
        )
    try:
        found = rows_from(path, Chosen())
    except OSError as error:
        raise UserError(f"{error.filename or file} cannot be read: {error.strerror or error}.") from error
    values, _ = class_rows(list(dict.fromkeys(found.classes)), [found], f"{setting}={file}")
    return dict(zip(dict.fromkeys(found.classes), values, strict=True))


def class_rows(classes: Sequence[str], found: Iterable[Rows | None], where: str) -> tuple[Any, list[str]]:
    """The rows (classes, k) of these classes, float32, and a line for rows of others; (None, []) where there are none.

    `where` is the setting that names them. Raises UserError where a class has none or two, or a row cannot be used.
    """
    sets = [rows for rows in found if rows]
    if not sets:
        return None, []
    problems, kept = list[str](), dict[str, Any]()
    width = sets[0].values.shape[-1]
    for name, names, values in sets:
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[-1]:
            problems.append(f"{name} has class rows of shape {values.shape}, {values.dtype}: they must be numbers.")
        elif len(names) != len(values):
            problems.append(f"{name} has {len(values):,} class rows and {len(names):,} names of classes.")
        elif values.shape[1] != width:
            problems.append(f"{name} has class rows of {values.shape[1]:,} numbers, {sets[0].name} of {width:,}.")
        else:
            problems += _taken(name, names, values, kept)
    if not problems:
        problems += _lacking(classes, kept)
    if problems:
        refuse(f"{where}: its class rows cannot be used:", problems)
    others = [name for name in kept if name not in set(classes)]
    lost = [some(others, "class row", "there are no features of that class")] if others else []
    return np.stack([kept[name] for name in classes]), lost


def _taken(file: str, names: list[str], values: Any, kept: dict[str, Any]) -> list[str]:
    """Put rows among those that are `kept`, by class; what is wrong with them."""
    problems = []
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, dtype="<f4")
    for name, row in zip(names, numbers, strict=True):
        if not np.isfinite(row).all():
            problems.append(f"the class row of {name} in {file} is not finite (NaN, or too large for float32).")
        elif not row.any():
            problems.append(f"the class row of {name} in {file} is all zeros: it says nothing of the class.")
        elif name in kept and (kept[name] != row).any():
            problems.append(f"{name} has two class rows, the second in {file}.")
        kept.setdefault(name, row)
    return problems


def _lacking(classes: Sequence[str], kept: dict[str, Any]) -> list[str]:
    without = [name for name in classes if name not in kept]
    if not without:
        return []
    there = ", ".join([*kept][:3])
    return [
        f"{len(without):,} of the {len(classes):,} classes have no class row: {first_five(without)}. There are "
        f"{len(kept):,} rows, of {there}{', …' if len(kept) > 3 else ''}: name them as the labels do, in an array "
        "class_names."
    ]
