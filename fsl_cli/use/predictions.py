"""What fsl predict found, as people and scripts read it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]
SURE = 0.75  # a class as probable as this leaves no doubt
CLOSE = 3  # the next class is close where it is at least one part in so many as probable


class Prediction(NamedTuple):
    """What was predicted for one picture."""

    file: str
    probabilities: list[float]  # of each class
    true: str | None  # the class that it is known to show
    told: bool  # whether a folder or a CSV says what it shows, be it a class or not
    nearest: str  # file of the nearest support picture; "" where nobody asked
    own: str  # file of the nearest one of the most probable class
    unknown: float | None = None  # probability that it is of no class, where half the pictures are of none
    is_unknown: bool = False  # whether that is the answer


class Predictions(NamedTuple):
    """What was predicted for all pictures."""

    run: str
    algorithm: str
    classes: list[str]
    support: dict[str, int]  # each support picture's file -> the number of its class
    rows: list[Prediction]
    skipped: list[str]  # pictures that cannot be read, and why
    thumbnails: dict[str, str]  # file -> data URI, for the page
    temperature: float = 1.0  # what logits were divided by
    calibration: str = "none"  # how that was found
    rate: float | None = None  # share of the known pictures that are called unknown by mistake; None: none are
    texts: dict[str, str] = {}  # where a text stands -> what it says; {} where these are pictures
    items: str = "pictures"  # what was predicted: pictures, texts or embeddings

    def named(self, row: Prediction) -> list[str]:
        """Where a picture is; where a text stands, and what it says."""
        return [row.file, self.texts[row.file]] if self.texts else [row.file]

    def label(self, row: Prediction) -> str:
        """The most probable class."""
        return self.best(row, 1)[0][0]

    def answer(self, row: Prediction) -> str:
        """The most probable class, or that it is none of them."""
        return self.no_class if row.is_unknown else self.label(row)

    def doubt(self, row: Prediction) -> float:
        """How likely the most probable class is wrong, 0 to 1, where half of the pictures may be of no class."""
        return 1 - self.best(row, 1)[0][1] * (1 - (row.unknown or 0))

    def why(self, row: Prediction) -> str:
        """What makes a prediction doubtful, in words; "" where nothing does."""
        if row.is_unknown:
            return "far from all classes"
        (_, share), (_, following) = self.best(row, 2)
        if share >= SURE:
            return "unlike the known pictures" if (row.unknown or 0) > 0.5 else ""
        two = CLOSE * following >= share and share + following >= SURE
        return "two classes are close" if two else "several classes are possible"

    def doubtful_first(self) -> list[Prediction]:
        """All rows, those to look at first."""
        return sorted(self.rows, key=self.doubt, reverse=True)

    @property
    def no_class(self) -> str:
        """`unknown`, unless a class is called so."""
        return "unknown" if "unknown" not in self.classes else "none of these"

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
    """For each class with known pictures: how many were predicted right, and how many there are."""
    counts = found.confusion()
    rows = zip(found.classes, counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
    return {name: (right, total) for name, right, total in rows if total}


def accuracy_line(found: Predictions) -> str:
    """accuracy 93.33%, 28 of 30 pictures whose class is known; "" where none is."""
    right, total = (sum(part) for part in zip(*per_class(found).values(), strict=True)) if per_class(found) else (0, 0)
    others = sum(row.told and row.true is None for row in found.rows)
    lines = (
        [f"accuracy {right / total:.2%}, {right:,} of {total:,} {found.items} whose class is known"] if total else []
    )
    lines += (
        [f"not counted: {others:,} in folders, or with labels, that are no class of the support set"] if others else []
    )
    return "; ".join(lines)


def unknown_line(found: Predictions) -> str:
    """unknown 7 of 40 pictures: 6 of the 8 of no class, 1 of the 32 whose class is known; "" where nobody asked."""
    if found.rate is None:
        return ""
    called = [row for row in found.rows if row.is_unknown]
    others = [row for row in found.rows if row.told and row.true is None]
    known = [row for row in found.rows if row.true is not None]
    parts = [(rows, words) for rows, words in ((others, "of no class"), (known, "whose class is known")) if rows]
    told = ", ".join(f"{sum(row.is_unknown for row in rows):,} of the {len(rows):,} {words}" for rows, words in parts)
    line = f"{found.no_class} {len(called):,} of {len(found.rows):,} {found.items}, at {found.rate:.1%} false alarms"
    return f"{line}: {told}" if told else line


def as_json(found: Predictions) -> dict[str, Any]:
    """All predictions as JSON, for a script."""
    scores = per_class(found)
    right, total = (sum(part) for part in zip(*scores.values(), strict=True)) if scores else (0, 0)
    predictions = [
        {
            **dict(zip(("file", "text"), found.named(row), strict=False)),
            "label": found.answer(row),
            **({"class": found.label(row), "unknown": row.unknown} if found.rate is not None else {}),
            "probabilities": dict(zip(found.classes, row.probabilities, strict=True)),
            "doubt": found.doubt(row),
            "why": found.why(row),
            "true": row.true,
        }
        for row in found.rows
    ]
    return {
        "algorithm": found.algorithm,
        "classes": found.classes,
        "temperature": found.temperature,
        "calibration": found.calibration,
        **({"false_alarms": found.rate} if found.rate is not None else {}),
        "support": len(found.support),
        "predictions": predictions,
        "accuracy": right / total if total else None,
        "labelled": total,
        "per_class": {name: {"accuracy": r / n, "pictures": n} for name, (r, n) in scores.items()},
        "skipped": found.skipped,
    }
