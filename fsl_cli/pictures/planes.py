"""Functions of two variables, or images, beside what was predicted of them, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fsl_cli.pictures.lettering import save


class FittedPlane(NamedTuple):
    """What is drawn of one task; the rows of a grid go from the top of it down."""

    truth: list[list[float]]
    mean: list[list[float]]
    std: list[list[float]] | None  # where deviations are predicted
    support_x: list[list[float]]  # along and down, -1 to 1
    support_y: list[float]


def fitted_planes(out: Path, tasks: Sequence[FittedPlane]) -> None:
    """A row a task: the points to learn from, the prediction, its deviation where there is one, and the truth."""
    from matplotlib.figure import Figure

    names = ["support", "predicted", *(["deviation"] if tasks[0].std else []), "true"]
    figure = Figure(figsize=(2.4 * len(names), 2.5 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), len(names), squeeze=False)
    for row, task in zip(axes, tasks, strict=True):
        low, high = (pick(value for line in task.truth for value in line) for pick in (min, max))
        for axis, name in zip(row, names, strict=True):
            if name == "support":
                along, down = zip(*task.support_x, strict=True)
                axis.set_facecolor("#88aadd")  # nothing is known there
                axis.scatter(along, down, c=task.support_y, cmap="gray", vmin=low, vmax=high, marker="s", s=9)
                axis.set(xlim=(-1.04, 1.04), ylim=(1.04, -1.04), aspect="equal")
            else:
                grid = {"predicted": task.mean, "deviation": task.std, "true": task.truth}[name]
                scale = {} if name == "deviation" else {"vmin": low, "vmax": high}
                axis.imshow(grid, cmap="magma" if name == "deviation" else "gray", interpolation="nearest", **scale)
            axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    save(figure, out)
