"""A confusion matrix as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_cli.pictures import lettering

WRITTEN = 25  # classes of a matrix in which counts are written
LETTERS = 20  # of a class's name
LARGEST = 40  # inches of a side
SMALLEST = 4  # points: letters below it are not read, and names would lie over one another


def confusion_picture(counts: Any, classes: Sequence[str], out: Path, what: str = "pictures") -> None:
    """A PNG of counts (classes, classes): each row a known class, each column what its pictures were taken for."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    side = min(3 + 0.35 * len(classes), LARGEST)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(counts, cmap="Blues")
    axis.set(xlabel="predicted", ylabel="true")
    points = min(8.0, 72 * 0.7 * (side - 3) / max(len(classes), 1))
    if points >= SMALLEST:
        names = [lettering.cut(name, LETTERS) for name in classes]
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=points)
        axis.set_yticks(range(len(names)), names, fontsize=points)
    else:
        axis.set(xlabel="predicted, by the number of the class", ylabel="true, by the number of the class")
    for i, j in zip(*counts.nonzero(), strict=True) if len(classes) <= WRITTEN else ():
        color = "white" if counts[i, j] > counts.max() / 2 else "black"
        axis.text(j, i, str(int(counts[i, j])), ha="center", va="center", color=color, fontsize=_size(counts[i, j]))
    figure.colorbar(image, label=what, shrink=0.8, ticks=MaxNLocator(integer=True))
    lettering.save(figure, out)


def _size(count: Any) -> float:
    """Points of a count's letters, so that it stays in its cell."""
    return min(8.0, 26 / len(str(int(count))))
