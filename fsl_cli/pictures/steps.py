"""Accuracy and loss by inner step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fsl_cli.pictures.curves import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AfterSteps(NamedTuple):
    """The mean over the episodes after so many inner steps, each with half the width of its 95% interval."""

    steps: int
    value: float  # accuracy 0..1; in regression the mean squared error
    value_interval: float
    loss: float
    loss_interval: float


def draw(rows: Sequence[AfterSteps], trained: dict[str, int], metric: str, title: str) -> Figure:
    """Accuracy, or the error, and the loss by inner step, with their intervals; lines where the run takes so many."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    steps = [row.steps for row in rows]
    accuracy = metric == "accuracy"
    columns = [("value", MEASURES[metric], 100 if accuracy else 1)]
    columns += [("loss", "loss", 1)] if accuracy else []  # a regression's loss is its error
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, (column, label, times) in zip(axes, columns, strict=True):
        values = [times * getattr(row, column) for row in rows]
        half = [times * getattr(row, f"{column}_interval") for row in rows]
        axis.plot(steps, values, "o-", markersize=3)
        low, high = zip(*((value - h, value + h) for value, h in zip(values, half, strict=True)), strict=True)
        axis.fill_between(steps, low, high, alpha=0.2)
        for (where, count), line in zip(trained.items(), ("--", ":"), strict=False):
            axis.axvline(count, color="black", linestyle=line, linewidth=1, label=f"{count} {where}")
        axis.set(xlabel="inner steps", ylabel=f"{label}, 95% interval")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend()
    figure.suptitle(title, fontsize=10)
    return figure
