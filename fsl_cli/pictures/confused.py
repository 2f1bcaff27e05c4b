"""Where the classes lie that a classifier confuses: how often, and on a plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.pictures.lettering import save

SHOWN = 12  # classes


def most_confused(counts: Any) -> list[int]:
    """The classes of the pairs that are confused most often, one way or the other: at most SHOWN, in their order."""
    both = np.triu(counts + counts.T, 1)
    chosen: set[int] = set()
    for number in np.argsort(-both, axis=None, kind="stable")[: np.count_nonzero(both)]:
        pair = {int(i) for i in np.unravel_index(number, both.shape)}
        if len(chosen | pair) <= SHOWN:
            chosen |= pair
    return sorted(chosen)


def confused_picture(counts: Any, classes: Sequence[str], features: Any, labels: Any, out: Path) -> None:
    """A PNG of the classes that are confused most, of counts (way, way), features (n, d) and labels (n,), NumPy arrays.

    Left how often, right each of their pictures on the plane on which these spread most (PCA).
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    chosen = np.array(most_confused(counts))
    names = [classes[i] if len(classes[i]) <= 20 else f"{classes[i][:9]}…{classes[i][-10:]}" for i in chosen]
    figure = Figure(figsize=(15, 7), layout="constrained")
    left, right = figure.subplots(1, 2)
    some = counts[np.ix_(chosen, chosen)]
    left.imshow(some, cmap="Blues")
    left.set(xlabel="taken for", ylabel="is", title=f"the {len(chosen)} classes that are confused most")
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    left.set_yticks(range(len(names)), names, fontsize=8)
    for i, j in zip(*some.nonzero(), strict=True):
        left.text(
            j, i, str(some[i, j]), ha="center", va="center", color="white" if some[i, j] > some.max() / 2 else "k"
        )
    own = np.isin(labels, chosen)
    centred = features[own] - features[own].mean(0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    colours = colormaps["tab20"]
    for number, (label, name) in enumerate(zip(chosen, names, strict=True)):
        points = plane[labels[own] == label]
        right.scatter(*points.T, color=colours(number), label=name, s=40, marker="osD^"[number % 4])
        right.annotate(name, points.mean(0), color=colours(number), fontsize=8, ha="center")
    right.set(title="their pictures by what the network sees, on a plane", xticks=[], yticks=[])
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, out)
