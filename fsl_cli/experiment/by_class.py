"""What a test says about each class, where the same classes are in many of its episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsl_cli.data.store import DataSet
from fsl_cli.files import replacing, write_table
from fsl_cli.pictures.confusion import confusion_picture

RECURS = 10  # episodes in which a class stands on average, for its own numbers to mean something
PICTURED = 200  # classes of a matrix that is drawn

Pairs = Counter[tuple[int, int]]  # (a query's class, the class it was taken for) -> how often; numbers of the split


class ByClass(NamedTuple):
    """One class."""

    name: str
    queries: int
    right: int
    taken: int  # queries of any class that were taken for it

    @property
    def accuracy(self) -> float:
        return self.right / self.queries

    @property
    def f1(self) -> float:
        """The harmonic mean of accuracy (recall) and precision: 2 right / (queries + taken)."""
        return 2 * self.right / (self.queries + self.taken)


def pairs(classes: Tensor, y: Tensor, predicted: Tensor) -> Pairs:
    """Counts over episodes with classes (T, way), query labels y (T, m) and predicted labels (T, m)."""
    true, taken = (classes.gather(1, labels) for labels in (y, predicted))  # (T, m)
    found, counts = torch.stack([true.flatten(), taken.flatten()]).unique(dim=1, return_counts=True)  # (2, n), (n)
    return Counter({(int(a), int(b)): int(n) for (a, b), n in zip(found.T.tolist(), counts.tolist(), strict=True)})


def recurring(data: object, episodes: int, way: int | list[int]) -> dict[int, str]:
    """The names of a test's classes by their numbers; none where they do not recur, or there are no classes."""
    names = class_names(data, "test") if isinstance(data, DataSet) else {}
    return names if names and recurs(episodes, way, len(names)) else {}


def recurs(episodes: int, way: int | list[int], classes: int) -> bool:
    """Whether each class is in ten episodes of the test or more, on average."""
    ways = sum(way) / len(way) if isinstance(way, list) else way
    return episodes * ways >= RECURS * classes


def by_class(tally: Pairs, names: dict[int, str]) -> list[ByClass]:
    """A row for each class that queries had, in the order of their numbers."""
    queries, taken = Counter[int](), Counter[int]()
    for (true, guess), count in tally.items():
        queries[true] += count
        taken[guess] += count
    return [ByClass(names[n], queries[n], tally[n, n], taken[n]) for n in sorted(queries)]


def summary(rows: Iterable[ByClass]) -> dict[str, Any]:
    """For result.json: means over the classes, each counting the same."""
    found = list(rows)
    return {
        "classes": len(found),
        "macro_accuracy": fmean(row.accuracy for row in found),
        "macro_f1": fmean(row.f1 for row in found),
    }


def class_names(data: DataSet, part: str) -> dict[int, str]:
    """A split's classes by their numbers in episodes; those that are turned say so."""
    split = data.splits[part]
    if split.pseudo:
        what = "picture" if split.pseudo.copies else "cluster"
        return {number: f"{what} {number}" for number in range(len(split.pseudo.sizes))}
    plain = [data.store.names[c] for c in split.classes]
    return {
        number * split.turns + turn: name + (f", turned {90 * turn}°" if turn else "")
        for number, name in enumerate(plain)
        for turn in range(split.turns)
    }


def write(folder: Path, tally: Pairs, names: dict[int, str]) -> None:
    """classes.csv, confusion.csv, and confusion.png where it can be read."""
    rows = by_class(tally, names)
    table = ([row.name, row.queries, row.right, row.accuracy, row.taken, row.f1] for row in rows)
    write_table(folder / "classes.csv", ["class", "queries", "right", "accuracy", "taken_for_it", "f1"], table)
    lines = ([names[true], names[guess], count] for (true, guess), count in sorted(tally.items()))
    write_table(folder / "confusion.csv", ["class", "taken_for", "queries"], lines)
    numbers = sorted({number for pair in tally for number in pair})
    if len(numbers) <= PICTURED:
        place = {number: i for i, number in enumerate(numbers)}
        counts = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
        for (true, guess), count in tally.items():
            counts[place[true], place[guess]] += count
        with replacing(folder / "confusion.png") as temporary:
            confusion_picture(counts, [names[number] for number in numbers], temporary, "queries")
