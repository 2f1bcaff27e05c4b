"""Class rows: what is known of a class besides its items, a vector each. Attributes, or the embedding of its name.

They stand in the file of features (arrays class_rows and class_names), or in one of their own, a row a class.
Everything wrong with them is told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.data.feature_files import Chosen, Rows, read_features
from fsl_cli.data.layouts import refuse
from fsl_cli.data.left_out import first_five, some

STEM = "classes"  # of the file of class rows in a folder, or beside a file


def rows_from(path: Path, chosen: Chosen) -> Rows:
    """The class rows that a file of their own holds: its features, whose labels are the classes, or else 0, 1, …"""
    file = read_features(path, Chosen(None, chosen.label_column))
    return Rows(file.name, file.labels or list(map(str, range(len(file.features)))), np.asarray(file.features))


def class_rows(classes: Sequence[str], found: Iterable[Rows | None], root: str) -> tuple[Any, list[str]]:
    """The rows (classes, k) of these classes, float32, and a line for rows of others; (None, []) where there are none.

    Raises UserError where a class has none or two, or a row cannot be used.
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
        refuse(f"data.root={root}: its class rows cannot be used:", problems)
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
