"""What people look at: the console, the last screen of a run, its curves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from fsl_cli.results import FittedTask, first_process, read_json, spelled, task_words


def console() -> Console:
    """Standard output; silent in all but the first of several processes."""
    return Console(quiet=not first_process())


def protocol_line(result: dict[str, Any]) -> str:
    """What an accuracy was reached under, in one line."""
    elsewhere = f"trained on {result['trained_on']}, " if result["trained_on"] != result["data"] else ""
    sampling = f"classes drawn {result['sampling']}, " if result["sampling"] != "uniform" else ""
    return (
        f"{elsewhere}{result['data']} {result['split']} split ({result['split_hash']}), "
        f"rotations={result['rotations']}, {sampling}{result['query']} queries a class, {result['episodes']} episodes, "
        f"{result['inference']} (norm={result['norm']})"
    )


def reached_line(result: dict[str, Any]) -> str:
    """The number itself."""
    measure = "accuracy" if result["metric"] == "accuracy" else "error"
    reached = spelled(result["metric"], result["mean"], result["interval"])
    return f"{task_words(result)} {result['part']} {measure}  {reached}"


def last_screen(folder: Path, tested: bool) -> None:
    """What was reached, under which protocol, where it lies and what to type next."""
    training = read_json(folder / "training.json")
    lines = [
        f"best validation {_best(training)} at step {training['best_step']} "
        f"of {training['steps']}, trained for {training['seconds'] / 60:.1f} minutes"
    ]
    if tested:
        result = read_json(folder / "result.json")
        lines = [f"[bold]{reached_line(result)}[/]", protocol_line(result), *lines]
    console().print(Panel("\n".join(lines), expand=False), highlight=False)
    paths = f"files  {folder}\nnext   fsl test run={folder} shot=5"  # outside the panel: whole lines to copy
    console().print(paths, highlight=False, soft_wrap=True)


def _best(training: dict[str, Any]) -> str:
    value = training["best_value"]
    return f"accuracy {value:.2%}" if training["metric"] == "accuracy" else f"MSE {value:.3f}"


def sweep_screen(folders: Sequence[Path]) -> None:
    """A line for each run of a sweep: what it reached and where it lies."""
    for folder in folders:
        training = read_json(folder / "training.json")
        reached = f"best validation {_best(training)}"
        if (folder / "result.json").exists():
            reached += f"   {reached_line(read_json(folder / 'result.json'))}"
        console().print(f"{reached}   {folder}", highlight=False, soft_wrap=True)


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
