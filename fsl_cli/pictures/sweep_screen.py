"""What a sweep or a search is doing, and what it came to."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from fsl_cli.pictures.console import TABLE, console
from fsl_cli.pictures.run_screen import best_line
from fsl_cli.runs.jobs import Job
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import score_text
from fsl_cli.shell import command

STATES = {  # of a sweep's run, and their colours
    "waiting": "dim", "running": "cyan", "finished": "green", "there": "green", "pruned": "dim", "failed": "red",
    "stopped": "yellow",
}  # fmt: skip


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
        step, validation, test = _progress(Run(job.folder)) if job.folder else ("", "", "")
        state = f"[{STATES[job.state]}]{job.state}[/]"
        table.add_row(str(job.number), escape(" ".join(map(_short, job.words))), state, step, validation, test)
    return table


def _short(word: str) -> str:
    """optim.lr=0.00160519113335876 -> optim.lr=0.001605"""
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", word)


def _progress(run: Run) -> tuple[str, str, str]:
    """How far a run is, its best validation so far, and its test."""
    if not run.metrics.exists():
        return "", "", ""
    with open(run.metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    metric = "accuracy" if "val_accuracy" in rows[0] else "mse"
    best = (max if metric == "accuracy" else min)(rows, key=lambda row: float(row[f"val_{metric}"]))
    validation = score_text(metric, float(best[f"val_{metric}"]), float(best["val_interval"]))
    test = score_text(metric, run.result.mean, run.result.interval) if run.result else ""
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
        training = Run(best["folder"]).training
        reached = best_line(training) if training else ""
        lines += [f"best validation {reached}: {settings}", f"next   {command('fsl', 'test', 'run=' + best['folder'])}"]
    console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
