"""Distilled images beside the real ones that they began as, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsl_cli.pictures.lettering import fit, save

SIDE = 0.9  # inches of an image
CLASSES, EACH = 20, 5  # that are drawn, and images of each


def distilled_picture(out: Path, start: Any, found: Any, labels: Sequence[str]) -> None:
    """A row for each of the first classes: real images on the left, what became of them on the right.

    Images are (n, C, H, W) with pixels in 0..1. Raises OSError.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(labels))[:CLASSES]
    own = [[i for i, label in enumerate(labels) if label == name][:EACH] for name in names]
    wide = max(map(len, own))
    figure = Figure(figsize=(SIDE * (2 * wide + 1.5), SIDE * len(names) + 0.4), layout="constrained")
    axes = figure.subplots(len(names), 2 * wide + 1, squeeze=False)
    for row, name, images in zip(axes, names, own, strict=True):
        for axis in row:
            axis.axis("off")
        row[0].text(0, 0.5, fit(name, SIDE, 8), fontsize=8, va="center", transform=row[0].transAxes)
        for column, i in enumerate(images):
            for axis, image in ((row[1 + column], start[i]), (row[1 + wide + column], found[i])):
                axis.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
    axes[0][1].set_title("real", fontsize=9, loc="left")
    axes[0][1 + wide].set_title("distilled", fontsize=9, loc="left")
    save(figure, out)
