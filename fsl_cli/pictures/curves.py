"""Learning curves, and the curves that a regression fits, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fsl_cli.pictures.lettering import save

MEASURES = {"accuracy": "accuracy (%)", "mse": "mean squared error", "bits": "bits a character"}  # of axes, by metric


class FittedTask(NamedTuple):
    """What is drawn of a regression task."""

    x: list[float]
    truth: list[float]
    support_x: list[float]
    support_y: list[float]
    after: dict[int | None, list[float]]  # gradient steps -> predictions at x; None: there are no steps
    std: list[float] | None = None  # the deviation of the only prediction


def fitted_tasks(out: Path, tasks: Sequence[FittedTask]) -> None:
    """A PNG as figure 2 of MAML: each task's curve, its support points, and the fit after so many steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(tasks), 4), layout="constrained")
    [axes] = figure.subplots(1, len(tasks), squeeze=False)
    for axis, task in zip(axes, tasks, strict=True):
        axis.plot(task.x, task.truth, color="tab:red", label="true curve")
        axis.plot(task.support_x, task.support_y, "^", color="tab:purple", label="support")
        for number, (steps, predicted) in enumerate(task.after.items()):
            label = {None: "predicted", 0: "before", 1: "after 1 step"}.get(steps, f"after {steps} steps")
            axis.plot(task.x, predicted, "--", color=str(0.75 - 0.75 * number / len(task.after)), label=label)
        if task.std:
            mean = task.after[None]
            low, high = zip(*((m - 2 * s, m + 2 * s) for m, s in zip(mean, task.std, strict=True)), strict=True)
            axis.fill_between(task.x, low, high, alpha=0.2, label="two deviations")
        axis.set(xlabel="x", ylabel="y")
    axes[0].legend()
    save(figure, out)


def curves(rows: Sequence[Mapping[str, float]], out: Path) -> None:
    """A PNG of a run's validations, a row each: training loss and validation accuracy over the meta-iterations."""
    from matplotlib.figure import Figure

    steps = [row["step"] for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [row["train_loss"] for row in rows], label="training")
    left.plot(steps, [row["val_loss"] for row in rows], label="validation")
    left.set(xlabel="meta-iterations", ylabel="loss")
    left.legend()
    metric = next(name for name in MEASURES if f"val_{name}" in rows[0])
    percent, label = 100 if metric == "accuracy" else 1, MEASURES[metric]
    value = [percent * row[f"val_{metric}"] for row in rows]
    interval = [percent * row["val_interval"] for row in rows]
    right.plot(steps, value)
    low, high = zip(*((v - i, v + i) for v, i in zip(value, interval, strict=True)), strict=True)
    right.fill_between(steps, low, high, alpha=0.2)
    right.set(xlabel="meta-iterations", ylabel=f"validation {label}, 95% interval")
    save(figure, out)
