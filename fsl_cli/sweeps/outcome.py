"""How far the runs of a sweep are, what they reached, and what to type next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fsl_cli.errors import command
from fsl_cli.pictures.console import tell
from fsl_cli.pictures.sweep_screen import Row, show_table
from fsl_cli.runs.jobs import Job
from fsl_cli.runs.result_lines import best_line
from fsl_cli.runs.run import Run
from fsl_cli.runs.wording import score_text


def rows(jobs: Sequence[Job]) -> list[Row]:
    """The runs as a table shows them."""
    return [Row(job.number, " ".join(map(_short, job.words)), job.state, *_progress(job.folder)) for job in jobs]


def _short(word: str) -> str:
    """optim.lr=0.00160519113335876 -> optim.lr=0.001605"""
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: f"{float(number[0]):.4g}", word)


def _progress(folder: str | None) -> tuple[str, str, str]:
    """How far a run is, its best validation so far, and its test."""
    run = Run(folder) if folder else None
    rows = run.validations if run else []
    if not run or not rows:
        return "", "", ""
    metric = next(each for each in ("accuracy", "mse", "bits") if f"val_{each}" in rows[0])
    best = (max if metric == "accuracy" else min)(rows, key=lambda row: row[f"val_{metric}"])
    validation = score_text(metric, best[f"val_{metric}"], best["val_interval"])
    test = score_text(metric, run.result.mean, run.result.interval) if run.result else ""
    return f"{rows[-1]['step']:.0f}", validation, test


def show_sweep(jobs: Sequence[Job]) -> None:
    """Print what the runs of a sweep reached, and the folder of each."""
    if jobs:
        show_table(rows(jobs))
    for job in jobs:
        if job.folder:
            tell(f"{job.number:>3}  {job.folder}")


def show_search(found: dict[str, Any]) -> None:
    """Print what a search found, and what to type next."""
    lines = [f"study {found['study']}, {found['trials']} trials, in {found['storage']}"]
    if best := found["best"]:
        settings = " ".join(_short(f"{key}={value}") for key, value in best["params"].items())
        training = Run(best["folder"]).training
        reached = best_line(training) if training else ""
        lines += [f"best validation {reached}: {settings}", f"next   {command('fsl', 'test', 'run=' + best['folder'])}"]
    tell("\n".join(lines))
