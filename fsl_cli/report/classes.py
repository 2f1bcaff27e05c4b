"""What tests say about each class, for the page: the hardest classes, and the best method's confusion matrix."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.files import read_rows
from fsl_cli.report.rows import Row, Section

SHOWN = 20  # classes, the hardest
LARGEST = 400_000  # bytes of a picture in the page


def by_class(section: Section) -> dict[str, Any] | None:
    """Accuracies of each class by method, the hardest classes first; None where no test tells of classes."""
    columns = [(row, found) for row in section.rows if (found := _accuracies(row))]
    if not columns:
        return None
    names = list(dict.fromkeys(name for _, found in columns for name in found))
    means = {name: fmean(found[name] for _, found in columns if name in found) for name in names}
    names.sort(key=lambda name: means[name])
    return {
        "classes": len(names),
        "methods": [row.name for row, _ in columns],
        "macro_f1": [_macro_f1(row) for row, _ in columns],
        "lines": [(name, [found.get(name) for _, found in columns]) for name in names[:SHOWN]],
        "matrix": _picture(columns[0][0].tests[0].outcome.folder / "confusion.png"),
        "matrix_of": f"{columns[0][0].name}, seed {columns[0][0].result.seed}",
    }


def _accuracies(row: Row) -> dict[str, float]:
    """The accuracy of each class, averaged over the method's seeds; nothing where it cannot be read."""
    found: dict[str, list[float]] = {}
    for test in row.tests:
        for name, value in _table(test.outcome.folder / "classes.csv"):
            found.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in found.items()}


def _table(path: Path) -> Sequence[tuple[str, float]]:
    try:
        return [(row["class"], float(row["accuracy"])) for row in read_rows(path)]
    except (UserError, KeyError, ValueError):
        return []


def _macro_f1(row: Row) -> float | None:
    values = [found["macro_f1"] for test in row.tests if (found := test.outcome.result.by_class)]
    return fmean(values) if values else None


def _picture(path: Path) -> str:
    """A data URI; nothing where there is no picture, or a very large one."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if len(content) <= LARGEST else ""
