"""A confusion matrix as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WRITTEN = 25  # classes of a matrix in which counts are written


def confusion_picture(counts: Any, classes: Sequence[str], out: Path) -> None:
    """A PNG of counts (classes, classes): each row a known class, each column what its pictures were taken for."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    side = min(3 + 0.35 * len(classes), 40)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(counts, cmap="Blues")
    axis.set(xlabel="predicted", ylabel="true")
    names = [name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}" for name in classes]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    for (i, j), count in ((place, int(counts[place])) for place in zip(*counts.nonzero(), strict=True)):
        if len(classes) <= WRITTEN:
            color = "white" if count > counts.max() / 2 else "black"
            axis.text(j, i, str(count), ha="center", va="center", color=color, fontsize=8)
    figure.colorbar(image, label="pictures", shrink=0.8, ticks=MaxNLocator(integer=True))
    figure.savefig(out, dpi=120, format="png")
    pyplot.close(figure)
