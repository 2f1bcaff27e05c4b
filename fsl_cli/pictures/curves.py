"""Learning curves, and the curves that a regression fits, as PNG files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fsl_cli.runs.results import FittedTask


def fitted_tasks(out: Path, tasks: Sequence[FittedTask]) -> None:
    """A PNG as figure 2 of MAML: each task's curve, its support points, and the fit after so many steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), layout="constrained", squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.plot(task.x, task.truth, color="tab:red", label="true curve")
        axis.plot(task.support_x, task.support_y, "^", color="tab:purple", label="support")
        for number, (steps, predicted) in enumerate(task.after.items()):
            label = "before" if not steps else f"after {steps} step{'s' if steps > 1 else ''}"
            axis.plot(task.x, predicted, "--", color=str(0.75 - 0.75 * number / len(task.after)), label=label)
        axis.set(xlabel="x", ylabel="y")
    axes[0][0].legend()
    figure.savefig(out, dpi=120, format="png")
    pyplot.close(figure)


def curves(folder: Path) -> None:
    """curves.png from metrics.csv: training loss and validation accuracy over the meta-iterations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(folder / "metrics.csv") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    steps = [row["step"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(steps, [row["train_loss"] for row in rows], label="training")
    left.plot(steps, [row["val_loss"] for row in rows], label="validation")
    left.set(xlabel="meta-iterations", ylabel="loss")
    left.legend()
    percent, label = (100, "accuracy (%)") if "val_accuracy" in rows[0] else (1, "mean squared error")
    value = [percent * row.get("val_accuracy", row.get("val_mse", 0)) for row in rows]
    interval = [percent * row["val_interval"] for row in rows]
    right.plot(steps, value)
    low, high = zip(*((v - i, v + i) for v, i in zip(value, interval, strict=True)), strict=True)
    right.fill_between(steps, low, high, alpha=0.2)
    right.set(xlabel="meta-iterations", ylabel=f"validation {label}, 95% interval")
    figure.savefig(folder / "curves.png", dpi=120)
    pyplot.close(figure)
