"""What people look at: the console, the last screen of a run, its curves."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from fsl_cli.results import FittedTask, first_process, read_json, spelled, task_words
from fsl_cli.sweeps import Job

PIPED = 160  # characters of a line, where it is not a terminal's
TABLE = "FSL_SWEEP_TABLE"  # set in the environment of runs whose sweep shows a live table
STATES = {  # of a sweep's run, and their colours
    "waiting": "dim", "running": "cyan", "finished": "green", "there": "green", "pruned": "dim", "failed": "red",
    "stopped": "yellow",
}  # fmt: skip


def console() -> Console:
    """Standard output; silent in all but the first of several processes, and where a sweep's table is in its place.

    In a file or a pipe lines are long, so that names stay whole.
    """
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED
    return Console(quiet=not first_process() or (TABLE in os.environ and sys.stdout.isatty()), width=width)


def protocol_line(result: dict[str, Any]) -> str:
    """What an accuracy was reached under, in one line."""
    elsewhere = f"trained on {result['trained_on']}, " if result["trained_on"] != result["data"] else ""
    if result["metric"] == "mse":
        return f"{elsewhere}{result['data']} {result['split']}, {result['query']} queries, {result['episodes']} tasks"
    queries = "1 query" if result["query"] == 1 else f"{result['query']} queries"
    sampling = f"classes drawn {result['sampling']}, " if result["sampling"] != "uniform" else ""
    return (
        f"{elsewhere}{result['data']} {result['split']} split ({result['split_hash']}), "
        f"rotations={result['rotations']}, {sampling}{queries} a class, {result['episodes']} episodes, "
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
    seconds = training["seconds"]
    took = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    lines = [
        f"best validation {_best(training)} at step {training['best_step']} of {training['steps']}, trained for {took}"
    ]
    other = "episodes=10000"
    if tested:
        result = read_json(folder / "result.json")
        lines = [f"[bold]{reached_line(result)}[/]", protocol_line(result), *lines]
        if result["metric"] == "accuracy":
            other = "shot=5" if result["shot"] == 1 else "shot=1"
    console().print(Panel("\n".join(lines), expand=False), highlight=False)
    paths = f"files  {folder}\nnext   fsl test run={folder} {other}"  # outside the panel: whole lines to copy
    console().print(paths, highlight=False, soft_wrap=True)


def _best(training: dict[str, Any]) -> str:
    value = training["best_value"]
    return f"accuracy {value:.2%}" if training["metric"] == "accuracy" else f"MSE {value:.3f}"


@contextmanager
def watched(jobs: Callable[[], list[Job]]) -> Iterator[None]:
    """On a terminal, show a live table of a sweep's runs while inside, and nothing else of theirs."""
    screen = console()
    if not screen.is_terminal:
        yield
        return
    os.environ[TABLE] = "1"
    try:
        with Live(get_renderable=lambda: sweep_table(jobs()), console=screen, refresh_per_second=2, transient=True):
            yield
    finally:
        del os.environ[TABLE]


def sweep_table(jobs: Sequence[Job]) -> Table:
    """A row for each run of a sweep: what makes it differ, how far it is, and what it reached."""
    done = sum(job.state not in ("waiting", "running") for job in jobs)
    table = Table("", "settings", "", "step", "validation", "test", title=f"{done} of {len(jobs)} runs", box=SIMPLE)
    for job in jobs:
        step, validation, test = _progress(Path(job.folder)) if job.folder else ("", "", "")
        state = f"[{STATES[job.state]}]{job.state}[/]"
        table.add_row(str(job.number), escape(" ".join(map(_short, job.words))), state, step, validation, test)
    return table


def _short(word: str) -> str:
    """optim.lr=0.00160519113335876 -> optim.lr=0.001605"""
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", word)


def _progress(folder: Path) -> tuple[str, str, str]:
    """How far a run is, its best validation so far, and its test."""
    if not (folder / "metrics.csv").exists():
        return "", "", ""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    metric = "accuracy" if "val_accuracy" in rows[0] else "mse"
    best = (max if metric == "accuracy" else min)(rows, key=lambda row: float(row[f"val_{metric}"]))
    validation = spelled(metric, float(best[f"val_{metric}"]), float(best["val_interval"]))
    path = folder / "result.json"
    result = read_json(path) if path.exists() else None
    test = spelled(metric, result["mean"], result["interval"]) if result else ""
    return rows[-1]["step"], validation, test


def sweep_screen(jobs: Sequence[Job]) -> None:
    """What a sweep came to: its table, and where each run lies."""
    if jobs:
        console().print(sweep_table(jobs), highlight=False)
    for job in jobs:
        if job.folder:
            console().print(f"{job.number:>3}  {job.folder}", highlight=False, markup=False, soft_wrap=True)


def search_screen(found: dict[str, Any]) -> None:
    """What a search came to, and what to type next."""
    lines = [f"study {found['study']}, {found['trials']} trials, in {found['storage']}"]
    if best := found["best"]:
        settings = " ".join(_short(f"{key}={value}") for key, value in best["params"].items())
        reached = _best(read_json(Path(best["folder"]) / "training.json"))
        lines += [f"best validation {reached}: {settings}", f"next   fsl test run={best['folder']}"]
    console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


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
