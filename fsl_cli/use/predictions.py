"""What fsl predict found, as people and scripts read it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]


class Prediction(NamedTuple):
    """Of one picture."""

    file: str
    probabilities: list[float]  # of each class
    true: str | None  # the class that it is known to show
    told: bool  # whether a folder or a CSV says what it shows, be it a class or not
    nearest: str  # file of the nearest support picture; "" where nobody asked


class Predictions(NamedTuple):
    """Of all pictures."""

    run: str
    algorithm: str
    classes: list[str]
    support: dict[str, int]  # each support picture's file -> the number of its class
    rows: list[Prediction]
    skipped: list[str]  # pictures that cannot be read, and why
    thumbnails: dict[str, str]  # file -> data URI, for the page

    def label(self, row: Prediction) -> str:
        return self.best(row, 1)[0][0]

    def best(self, row: Prediction, count: int) -> list[tuple[str, float]]:
        """The most probable classes, and their probabilities."""
        order = sorted(range(len(self.classes)), key=lambda i: -row.probabilities[i])[:count]
        return [(self.classes[i], row.probabilities[i]) for i in order]

    def confusion(self) -> Counts:
        """How many pictures of each known class (rows) were given to each class (columns)."""
        number = {name: i for i, name in enumerate(self.classes)}
        counts = np.zeros((len(number), len(number)), dtype=np.int64)
        for row in self.rows:
            if row.true is not None:
                counts[number[row.true], number[self.label(row)]] += 1
        return counts


def per_class(found: Predictions) -> dict[str, tuple[int, int]]:
    """Of each class with known pictures: how many were right, and how many there are."""
    counts = found.confusion()
    rows = zip(found.classes, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return {name: (right, total) for name, right, total in rows if total}


def accuracy_line(found: Predictions) -> str:
    """accuracy 93.33%, 28 of 30 pictures whose class is known; "" where none is."""
    right, total = (sum(part) for part in zip(*per_class(found).values(), strict=True)) if per_class(found) else (0, 0)
    others = sum(row.told and row.true is None for row in found.rows)
    lines = [f"accuracy {right / total:.2%}, {right:,} of {total:,} pictures whose class is known"] if total else []
    lines += (
        [f"not counted: {others:,} in folders, or with labels, that are no class of the support set"] if others else []
    )
    return "; ".join(lines)


def as_json(found: Predictions) -> dict[str, Any]:
    """The same for a script."""
    scores = per_class(found)
    right, total = (sum(part) for part in zip(*scores.values(), strict=True)) if scores else (0, 0)
    predictions = [
        {
            "file": row.file,
            "label": found.label(row),
            "probabilities": dict(zip(found.classes, row.probabilities, strict=True)),
            "true": row.true,
        }
        for row in found.rows
    ]
    return {
        "algorithm": found.algorithm,
        "classes": found.classes,
        "support": len(found.support),
        "predictions": predictions,
        "accuracy": right / total if total else None,
        "labelled": total,
        "per_class": {name: {"accuracy": r / n, "pictures": n} for name, (r, n) in scores.items()},
        "skipped": found.skipped,
    }
